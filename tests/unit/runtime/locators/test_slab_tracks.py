"""Who allocated and freed a slab object, where SLUB recorded it (kplug/runtime/tables/slab_tracks.py), and what is said
where it did not."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import FakeKernel
from support.fake_slab import KMALLOC, STORE_USER, FakeSlab
from support.fake_tracks import FakeTracks

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.slab import KIND, SlabLocator

ALLOCATION, FREE, REQUESTED = 0x48, 0x68, 0x88  # where an object's tracks are, and what kmalloc was asked for


class Tracked:
    """A slab of a cache with tracks. The stacks are of start_kernel() and kernel_clone()."""

    def __init__(self, *, free: tuple[int, ...] = (), kmalloc: bool = False, depot: bool = True) -> None:
        self.fake = FakeKernel()
        self.tracks = FakeTracks(self.fake)
        if not depot:
            self.fake.struct(
                "track", 32, addr=("unsigned long", 0), addrs=("unsigned long [2]", 8), cpu=("int", 24),
                pid=("int", 28), when=("unsigned long", 0),
            )  # fmt: skip
        flags = STORE_USER | KMALLOC if kmalloc else STORE_USER
        self.slab = FakeSlab(self.fake, free=free, flags=flags, object_size=0x40, inuse=0x40, link=0x40)
        self.stack = [self.fake.machine.image + 0x20, self.fake.machine.image + 0x210]
        self.words = ["start_kernel+0x10/0x20", "kernel_clone+0x10/0x440"]

    def track(self, number: int, place: int, **values: int) -> None:
        handle = self.tracks.stack(3, self.stack)
        self.tracks.track(self.slab.object(number) + place, self.stack[1], handle, **values)

    def told(self, offset: int = 0x108) -> Layer:
        (layer,) = SlabLocator(self.fake.kernel).locate(self.slab.base + offset)
        return layer

    def problem(self) -> str:
        found: list[Layer] = []
        with pytest.raises(TargetError) as raised:
            found.extend(SlabLocator(self.fake.kernel).locate(self.slab.object(1)))
        return str(raised.value)


def test_who_allocated_an_object() -> None:
    tracked = Tracked()
    tracked.track(1, ALLOCATION)
    track: dict[str, Any] = {
        "pid": 42, "cpu": 1, "seconds": 9.0, "age": 1.0, "caller": tracked.words[1], "stack": tracked.words,
    }  # fmt: skip
    for offset in (0x100, 0x13F, 0x1FF):
        details = tracked.told(offset).details
        assert (details["allocated_by"], details["freed_by"], details["state"]) == (track, None, "allocated")
        assert "record_with" not in details
    assert list(KIND.more(tracked.told())) == [
        "allocated in kernel_clone+0x10/0x440 by task 42, CPU 1, 9.00 s after boot (1.00 s ago)",
        "  start_kernel+0x10/0x20",
        "  kernel_clone+0x10/0x440",
    ]


def test_a_call_that_is_the_last_of_its_function() -> None:
    """Its return address is after the function, where no other begins."""
    tracked = Tracked()
    tracked.stack[0] = tracked.fake.machine.image + 0x30
    tracked.track(1, ALLOCATION)
    assert tracked.told().details["allocated_by"]["stack"] == ["start_kernel+0x20/0x20", tracked.words[1]]


@pytest.mark.parametrize("free", [(), (1,)])
def test_who_freed_an_object(free: tuple[int, ...]) -> None:
    """Of an allocated one, the free is that of the object that was there before."""
    tracked = Tracked(free=free)
    tracked.track(1, ALLOCATION)
    tracked.track(1, FREE, pid=7, ago=25)
    layer = tracked.told()
    assert (layer.details["freed_by"]["pid"], layer.details["freed_by"]["age"]) == (7, 0.1)
    words = "freed in" if free else "freed before in"
    assert list(KIND.more(layer))[3].startswith(f"{words} kernel_clone+0x10/0x440 by task 7, ")


def test_an_object_that_was_never_used() -> None:
    tracked = Tracked(free=(0, 1, 2, 3))
    layer = tracked.told()
    assert (layer.details["allocated_by"], layer.details["freed_by"]) == (None, None)
    assert list(KIND.more(layer)) == []


def test_a_track_without_a_stack() -> None:
    tracked = Tracked()
    tracked.tracks.track(tracked.slab.object(1) + ALLOCATION, tracked.stack[0], 0)
    track = tracked.told().details["allocated_by"]
    assert (track["caller"], track["stack"]) == (tracked.words[0], [])


def test_a_handle_that_leads_nowhere() -> None:
    tracked = Tracked()
    tracked.tracks.track(tracked.slab.object(1) + ALLOCATION, tracked.stack[0], 0x12345)
    assert "no stack of handle 0x12345" in tracked.problem()
    layer = next(iter(SlabLocator(tracked.fake.kernel).locate(tracked.slab.object(1))))
    assert layer.details["allocated_by"]["pid"] == 42


def test_addresses_in_the_track_itself() -> None:
    """TRACK_ADDRS_COUNT of them, before 5cf909c553e9 (5.18)."""
    tracked = Tracked(depot=False)
    place = tracked.slab.object(1) + ALLOCATION
    tracked.fake.words(place, tracked.stack[1], tracked.stack[0], (1 << 64) - 1, 1 | 42 << 32)
    assert tracked.told().details["allocated_by"]["stack"] == tracked.words[:1]


@pytest.mark.parametrize("values", [{"caller": 0x6B6B6B6B6B6B6B6B}, {"cpu": 4096}, {"pid": -1}, {"pid": 1 << 23}])
def test_a_track_that_was_overwritten(values: dict[str, int]) -> None:
    tracked = Tracked()
    caller = values.pop("caller", tracked.stack[0])
    tracked.tracks.track(tracked.slab.object(1) + ALLOCATION, caller, 0, **values)
    place = tracked.slab.object(1) + ALLOCATION
    assert tracked.problem() == f"who allocated the object is not known: the track at {place:#x} is corrupted"


@pytest.mark.parametrize("ago", [-1, 2501])
def test_a_time_that_cannot_be(ago: int) -> None:
    tracked = Tracked()
    tracked.track(1, ALLOCATION, ago=ago)
    track = tracked.told().details["allocated_by"]
    assert (track["seconds"], track["age"]) == (None, None)


@pytest.mark.parametrize(("lost", "expected"), [("jiffies", (9.0, None)), ("clocksource_jiffies", (None, None))])
def test_clocks_that_are_not_known(lost: str, expected: tuple[float | None, float | None]) -> None:
    tracked = Tracked()
    tracked.fake.forget(lost)
    tracked.track(1, ALLOCATION)
    track = tracked.told().details["allocated_by"]
    assert (track["seconds"], track["age"]) == expected


def test_what_kmalloc_was_asked_for() -> None:
    tracked = Tracked(kmalloc=True, free=(2,))
    for number in range(3):
        tracked.fake.poke(tracked.slab.object(number) + REQUESTED, (0x32, 0x41, 0x32)[number].to_bytes(4, "little"))
    found = [tracked.told(number * 0x100).details.get("requested") for number in range(3)]
    assert found == [0x32, None, None]
    layer = tracked.told(8)
    assert KIND.phrase(layer, 0x31) == "slab object things+0x31"
    assert KIND.phrase(layer, 0x32) == "slab object things+0x32, past the 0x32 bytes requested"
    assert "requested 0x32" in KIND.words(layer)[0]
    assert tracked.told(REQUESTED + 3).details["part"] == "requested size"


def test_what_would_record_it() -> None:
    fake = FakeKernel()
    slab = FakeSlab(fake)
    (layer,) = SlabLocator(fake.kernel).locate(slab.base)
    assert "record_with" not in layer.details
    fake = FakeKernel()
    slab = FakeSlab(fake)
    fake.variable("slub_debug_string", "char *")
    (layer,) = SlabLocator(fake.kernel).locate(slab.base)
    assert layer.details["record_with"] == "slub_debug=U,things"
    assert list(KIND.more(layer)) == ["who allocated and freed it is not recorded (slub_debug=U,things would)"]
