"""What generic KASAN tells of an address and of a slab object (kplug/runtime/tables/kasan.py), with records of each of
their forms; and what is said where it has none.

The shadow's values are those of mm/kasan/kasan.h.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("drgn")

from support.fake_kasan import FORMS, NO_FREE_META, OFFSET, FakeKasan
from support.fake_kernel import FakeKernel
from support.fake_machines import PAGE
from support.fake_slab import FakeSlab
from support.fake_tracks import FakeTracks

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.address_state import MemoryState
from kplug.runtime.locators.kasan_shadow import KasanShadowLocator
from kplug.runtime.locators.slab import KIND, SlabLocator
from kplug.runtime.tables.kasan import Kasan

ALLOC_META, FREE_META = 0x40, 0x58
FREED, FREED_WITH_TRACK, RED_ZONE = 0xFB, 0xFA, 0xFC
NOW = 8 * 10**9  # nanoseconds since boot
TYPESAFE_BY_RCU = 0x80000

each_form = pytest.mark.parametrize("form", FORMS)
with_free_meta = pytest.mark.parametrize("form", [form for form, (_, free_in_meta, _) in FORMS.items() if free_in_meta])


class Recorded:
    """A slab of objects of 0x40 bytes; their records of a free are in them where they are not in the other record."""

    def __init__(
        self, form: str = "6.12", *, free_meta: int = 0, alloc_meta: int = ALLOC_META, shift: int = 9, **slab: Any
    ) -> None:
        self.fake = FakeKernel()
        self.tracks = FakeTracks(self.fake)
        self.kasan = FakeKasan(self.fake, form, shift)
        self.slab = FakeSlab(
            self.fake, object_size=0x40, inuse=0x40, kasan=(alloc_meta, free_meta), **{"link": 0x20, **slab}
        )
        self.kasan.shadow(self.slab.base, *[0] * 8, *[RED_ZONE] * 24)
        self.stack = [self.fake.machine.image + 0x20, self.fake.machine.image + 0x210]
        self.words = ["start_kernel+0x10/0x20", "kernel_clone+0x10/0x440"]

    def allocated(self, number: int, **values: int) -> None:
        place = self.slab.object(number)
        self.kasan.shadow(place, *[0] * 8)
        self.kasan.track(place + ALLOC_META, self.tracks.stack(1, self.stack), **values)

    def freed(self, number: int, free_meta: int = 0, **values: int) -> None:
        place = self.slab.object(number)
        handle = self.tracks.stack(2, self.stack[1:])
        self.kasan.quarantine(self.kasan.batches, place + free_meta)
        if self.kasan.free_in_meta:
            self.kasan.shadow(place, FREED_WITH_TRACK, *[FREED] * 7)
            self.kasan.track(place + free_meta + 8, handle, **values)
        else:
            self.kasan.shadow(place, *[FREED] * 8)
            self.kasan.track(place + ALLOC_META + self.kasan.track_size, handle, **values)

    def told(self, offset: int = 0x100) -> Layer:
        (layer,) = SlabLocator(self.fake.kernel).locate(self.slab.base + offset)
        return layer

    def details(self) -> Any:
        return self.told().details

    def problem(self) -> str:
        with pytest.raises(TargetError) as raised:
            list(SlabLocator(self.fake.kernel).locate(self.slab.object(1)))
        return str(raised.value)

    def clock(self, started: int = NOW // 2) -> None:
        """A clock, and a youngest task that was started then: object 2."""
        fake = self.fake
        fake.struct("rq", 8, clock=("unsigned long", 0))
        for cpu in (0, 1):
            fake.words(fake.cpu_area(cpu) + (self._rq if cpu else self._rq_place()), NOW)
        fake.struct("task_struct", 0x40, tasks=("struct list_head", 0), start_time=("unsigned long", 0x10))
        task = self.slab.object(2)
        self.allocated(2, nanoseconds=started)
        fake.words(task + 0x10, started)
        fake.variable("task_struct_cachep", "unsigned long", self.slab.cache)
        init_task = fake.variable("init_task", "struct task_struct")
        fake.words(init_task, task, task)

    def _rq_place(self) -> int:
        self._rq = self.fake.percpu("runqueues", "struct rq")
        return self._rq


@each_form
def test_who_allocated_an_object(form: str) -> None:
    recorded = Recorded(form)
    recorded.allocated(1)
    cpu = 1 if recorded.kasan.has_extra else None
    track = {
        "pid": 42, "cpu": cpu, "seconds": None, "age": None, "caller": recorded.words[0], "stack": recorded.words,
    }  # fmt: skip
    details = recorded.details()
    assert (details["state"], details["allocated_by"], details["freed_by"]) == ("allocated", track, None)
    assert "record_with" not in details


@each_form
def test_who_freed_an_object_that_kasan_keeps(form: str) -> None:
    recorded = Recorded(form)
    recorded.allocated(1)
    recorded.freed(1, pid=7)
    layer = recorded.told()
    assert (layer.details["state"], layer.details["allocated_by"]["pid"]) == ("quarantined", 42)
    assert (layer.details["freed_by"]["pid"], layer.details["freed_by"]["stack"]) == (7, recorded.words[1:])
    cpu = ", CPU 1" if recorded.kasan.has_extra else ""
    assert list(KIND.more(layer)) == [
        f"allocated in start_kernel+0x10/0x20 by task 42{cpu}",
        *(f"  {words}" for words in recorded.words),
        f"freed in kernel_clone+0x10/0x440 by task 7{cpu}",
        f"  {recorded.words[1]}",
    ]
    assert KIND.phrase(layer, 8) == "quarantined slab object things+0x8"


@with_free_meta
def test_the_shadow_says_whether_there_is_a_record_of_the_free(form: str) -> None:
    recorded = Recorded(form)
    recorded.allocated(1)
    recorded.freed(1)
    recorded.kasan.shadow(recorded.slab.object(1), FREED)
    assert (recorded.details()["state"], recorded.details()["freed_by"]) == ("quarantined", None)


@pytest.mark.parametrize("form", ["4.19", "5.4"])
def test_who_freed_what_was_there_before(form: str) -> None:
    recorded = Recorded(form)
    recorded.freed(1, pid=7)
    recorded.allocated(1)
    layer = recorded.told()
    assert (layer.details["state"], layer.details["freed_by"]["pid"]) == ("allocated", 7)
    assert list(KIND.more(layer))[3] == "freed before in kernel_clone+0x10/0x440 by task 7"


@with_free_meta
def test_a_record_of_the_free_after_the_object(form: str) -> None:
    recorded = Recorded(form, free_meta=FREE_META)
    recorded.allocated(1)
    recorded.freed(1, FREE_META, pid=7)
    assert recorded.details()["freed_by"]["pid"] == 7
    end = FREE_META + 8 + recorded.kasan.track_size
    parts = [recorded.told(0x100 + offset).details["part"] for offset in (0x3F, 0x40, end - 1, end)]
    assert parts == ["object", "KASAN metadata", "KASAN metadata", "padding"]


def test_no_record_of_frees() -> None:
    recorded = Recorded(free_meta=NO_FREE_META)
    recorded.freed(1)
    recorded.allocated(1)
    recorded.kasan.shadow(recorded.slab.object(1), FREED_WITH_TRACK)
    assert recorded.details()["freed_by"] is None


@pytest.mark.parametrize(("link", "pid"), [(0x20, 7), (8, None), (0x38, 7)])
def test_the_allocators_link_may_be_over_the_record_of_a_free(link: int, pid: int | None) -> None:
    recorded = Recorded(free=(1, 3), link=link)
    recorded.allocated(1)
    kept = recorded.fake.kernel.read_word(recorded.slab.object(1) + link)
    recorded.freed(1, pid=7)
    recorded.fake.words(recorded.slab.object(1) + link, kept)
    details = recorded.details()
    assert details["state"] == "free"
    assert (details["freed_by"] and details["freed_by"]["pid"]) == pid


def test_an_object_that_was_never_used() -> None:
    recorded = Recorded(free=(1,))
    layer = recorded.told()
    assert (layer.details["state"], layer.details["allocated_by"], layer.details["freed_by"]) == ("free", None, None)
    assert list(KIND.more(layer)) == []


def test_a_cache_without_records() -> None:
    recorded = Recorded(alloc_meta=0)
    recorded.fake.variable("slub_debug_string", "char *")
    assert "allocated_by" not in recorded.details()
    assert recorded.details()["record_with"] == "slub_debug=U,things"


def test_who_gave_it_to_call_rcu() -> None:
    recorded = Recorded()
    recorded.allocated(1)
    handles = [recorded.tracks.stack(3, recorded.stack[1:]), recorded.tracks.stack(4, recorded.stack[:1])]
    recorded.fake.words(recorded.slab.object(1) + ALLOC_META + 8, handles[0] | handles[1] << 32)
    layer = recorded.told()
    assert layer.details["work_created"] == [
        {"caller": recorded.words[1], "stack": recorded.words[1:]},
        {"caller": recorded.words[0], "stack": recorded.words[:1]},
    ]
    assert list(KIND.more(layer))[3:] == [
        "work with it created in kernel_clone+0x10/0x440",
        f"  {recorded.words[1]}",
        "before that, work with it created in start_kernel+0x10/0x20",
        f"  {recorded.words[0]}",
    ]


@pytest.mark.parametrize("shift", [3, 9])
def test_when(shift: int) -> None:
    """The kernel's types do not tell how many bits a record lacks, its youngest task does."""
    recorded = Recorded("6.12 with EXTRA_INFO", shift=shift)
    recorded.clock()
    recorded.allocated(1, nanoseconds=10**9)
    track = recorded.details()["allocated_by"]
    assert (track["cpu"], track["seconds"], track["age"]) == (1, 1.0, 7.0)


@pytest.mark.parametrize("started", [0, 1 << 50])
def test_a_youngest_task_that_does_not_tell(started: int) -> None:
    recorded = Recorded("6.12 with EXTRA_INFO")
    recorded.clock()
    recorded.fake.words(recorded.slab.object(2) + 0x10, started)
    recorded.allocated(1, nanoseconds=10**9)
    track = recorded.details()["allocated_by"]
    assert (track["cpu"], track["seconds"], track["age"]) == (1, None, None)


def test_a_handle_that_leads_nowhere() -> None:
    recorded = Recorded()
    recorded.kasan.track(recorded.slab.object(1) + ALLOC_META, 0x12345)
    assert "no stack of handle 0x12345" in recorded.problem()
    layer = next(iter(SlabLocator(recorded.fake.kernel).locate(recorded.slab.object(1))))
    track = layer.details["allocated_by"]
    assert (track["pid"], track["stack"], track["caller"]) == (42, [], None)


def test_a_record_that_was_overwritten() -> None:
    recorded = Recorded()
    recorded.kasan.track(recorded.slab.object(1) + ALLOC_META, 0, pid=0x6B6B6B6B)
    assert recorded.problem().endswith("KASAN's record of the object is corrupted")


def test_a_shadow_that_cannot_be_read() -> None:
    recorded = Recorded()
    recorded.allocated(1)
    recorded.fake.unmap((recorded.slab.base >> 3) + OFFSET)
    assert (recorded.details()["state"], recorded.details()["allocated_by"]["pid"]) == ("allocated", 42)


def test_an_unused_object_of_a_mempool() -> None:
    """The shadow says that it was freed, but nobody has freed it: it is not in the quarantine."""
    recorded = Recorded()
    recorded.allocated(1)
    recorded.freed(1, pid=7)
    recorded.kasan.quarantine(recorded.kasan.batches)
    assert (recorded.details()["state"], recorded.details()["freed_by"]["pid"]) == ("allocated", 7)


def test_objects_that_may_be_read_after_they_were_freed() -> None:
    """SLAB_TYPESAFE_BY_RCU: the shadow does not tell that KASAN keeps one, its quarantine does."""
    recorded = Recorded(flags=TYPESAFE_BY_RCU, free=(4,), free_meta=FREE_META, count=5)
    kasan, kept = recorded.kasan, [recorded.slab.object(number) + FREE_META for number in range(3)]
    kasan.quarantine(kasan.batches + 24, *kept[:2])
    kasan.quarantine(recorded.fake.cpu_area(1) + kasan.cpu_quarantine, kept[2])
    states = [recorded.told(number * 0x100).details["state"] for number in range(5)]
    assert states == ["quarantined", "quarantined", "quarantined", "allocated", "free"]


def test_a_quarantine_with_too_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kplug.runtime.tables.kasan._MAX_QUARANTINED", 1)
    recorded = Recorded(flags=TYPESAFE_BY_RCU, free_meta=FREE_META)
    recorded.kasan.quarantine(recorded.kasan.batches, *(recorded.slab.object(number) + FREE_META for number in (2, 3)))
    assert recorded.details()["state"] is None
    recorded.kasan.shadow(recorded.slab.object(1), FREED)
    assert recorded.details()["state"] == "freed"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0x6B6B6B6B6B6B6B6B, "KASAN's quarantine cannot be read"),
        (0, "KASAN's quarantine is corrupted"),  # what it led to is on no list any more
        (None, "KASAN's quarantine is corrupted"),  # it leads to itself
    ],
)
def test_who_wrote_to_a_freed_object_wrote_over_its_link(written: int | None, expected: str) -> None:
    """What is on another list is known all the same."""
    recorded = Recorded(flags=TYPESAFE_BY_RCU, free_meta=FREE_META)
    kasan, links = recorded.kasan, [recorded.slab.object(number) + FREE_META for number in range(3)]
    kasan.quarantine(kasan.batches, *links[:2])
    kasan.quarantine(kasan.batches + 24, links[2])
    recorded.fake.words(links[0], links[0] if written is None else written)
    assert expected in recorded.problem()
    assert recorded.told(0x200).details["state"] == "quarantined"


# The shadow.


@pytest.mark.parametrize(
    ("form", "value", "offset", "expected"),
    [
        ("6.12", 0, 7, "accessible"),
        ("6.12", 5, 4, "accessible"),
        ("6.12", 5, 5, "past the end of an object or a variable"),
        ("6.12", 0xFA, 0, "a freed slab object"),
        ("6.12", 0xFB, 0, "a freed slab object"),
        ("6.12", 0xFC, 0, "red zone of a slab object"),
        ("6.12", 0xFE, 0, "red zone of a page"),
        ("6.12", 0xFF, 0, "a freed page"),
        ("6.12", 0xF9, 0, "red zone of a global variable"),
        ("5.4", 0xFA, 0, "red zone of a global variable"),
        ("6.12", 0xF1, 0, "red zone on a stack"),
        ("6.12", 0x80, 0, "shadow byte 0x80"),
    ],
)
def test_what_the_shadow_says(form: str, value: int, offset: int, expected: str) -> None:
    recorded = Recorded(form)
    recorded.kasan.shadow(recorded.slab.object(1), value)
    assert MemoryState(recorded.fake.kernel).state(recorded.slab.object(1) + offset).kasan == expected


def test_an_address_in_the_shadow() -> None:
    recorded = Recorded()
    place = (recorded.slab.object(1) >> 3) + OFFSET
    recorded.kasan.shadow(recorded.slab.object(1), 0xFB)
    (layer,) = KasanShadowLocator(recorded.fake.kernel).locate(place)
    first = recorded.slab.object(1)
    assert (layer.name, layer.start) == (f"KASAN shadow of {first:#x}-{first + 8:#x}", place)
    assert layer.details == {"of": hex(first), "says": "a freed slab object"}
    assert list(KasanShadowLocator(recorded.fake.kernel).locate(first)) == []


def test_an_offset_that_is_not_this_kernels() -> None:
    recorded = Recorded()
    kernel, start = recorded.fake.kernel, recorded.slab.base
    assert [Kasan(kernel, offset).shadow(start) for offset in (OFFSET, OFFSET + 8)] == [0, None]


def test_no_word_of_the_shadow() -> None:
    """Where it has not been read, where nothing is mapped, and without KASAN, or with KASAN by tags."""
    recorded = Recorded()
    states = MemoryState(recorded.fake.kernel)
    assert states.state(recorded.fake.ram_end - PAGE).kasan is None
    assert states.state(0x1000).kasan is None
    recorded.kasan.shadow(recorded.fake.machine.vmalloc, 0, 0xF8)
    assert states.state(recorded.fake.machine.vmalloc).kasan is None
    assert states.state(recorded.fake.machine.vmalloc + 8).kasan is not None
    for needed in ("kasan_early_shadow_page", "global_quarantine"):
        recorded = Recorded()
        recorded.fake.forget(needed)
        assert MemoryState(recorded.fake.kernel).state(recorded.slab.object(1)).kasan is None
        assert "allocated_by" not in recorded.details()
