"""Who allocated and freed a page, where page_owner recorded it (kplug/runtime/tables/page_owner.py), and what is said
where it did not."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import PG_RESERVED, PGTY_BUDDY, PGTY_SLAB, FakeKernel
from support.fake_page_owner import ALLOCATED, ENTRY, OFFSET, OWNER, FakePageOwner
from support.fake_tracks import FakeTracks
from support.fake_vmap import FakeVmap

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.pages import KIND, PageLocator

NEEDS = "CONFIG_PAGE_OWNER=y and page_owner=on"


class Owned:
    """A kernel whose page `pfn` may have a record. The stacks are of start_kernel() and kernel_clone()."""

    def __init__(self, *, sparse: bool = True, **options: bool) -> None:
        self.fake = FakeKernel(sparse=sparse)
        FakeVmap(self.fake)
        self.tracks = FakeTracks(self.fake)
        self.owners = FakePageOwner(self.fake, sparse=sparse, **options)
        self.pfn = self.fake.first_pfn + 0x31
        image = self.fake.machine.image
        self.handle = self.tracks.stack(3, [image + 0x20, image + 0x210])
        self.words = ["start_kernel+0x10/0x20", "kernel_clone+0x10/0x440"]

    def record(self, flags: int = OWNER | ALLOCATED, **values: int | bytes) -> None:
        self.owners.record(self.pfn, flags, **{"handle": self.handle, **values})

    def told(self) -> Layer:
        (layer,) = PageLocator(self.fake.kernel).locate(self.fake.machine.direct_map + 0x31123)
        return layer

    def problem(self) -> tuple[Layer, str]:
        found: list[Layer] = []
        with pytest.raises(TargetError) as raised:
            found.extend(PageLocator(self.fake.kernel).locate(self.fake.machine.direct_map + 0x31123))
        return found[0], str(raised.value)


def lines(layer: Layer) -> list[str]:
    assert KIND.more is not None
    return list(KIND.more(layer))


def test_who_allocated_a_page() -> None:
    owned = Owned()
    owned.record(order=2, gfp_mask=0xCC0, ts_nsec=9 * 10**9, pid=42, tgid=42, comm=b"busybox")
    details = owned.told().details
    track: dict[str, Any] = {
        "pid": 42, "tgid": None, "comm": "busybox", "cpu": None, "seconds": 9.0, "age": 1.0, "order": 2, "gfp": "0xcc0",
        "caller": owned.words[0], "stack": owned.words,
    }  # fmt: skip
    assert (details["recorded_as"], details["allocated_by"], details["freed_by"]) == ("allocated", track, None)
    assert "record_with" not in details
    assert lines(owned.told()) == [
        "allocated in start_kernel+0x10/0x20 by task 42 (busybox), 9.00 s after boot (1.00 s ago), order 2, gfp 0xcc0",
        *(f"  {words}" for words in owned.words),
    ]


@pytest.mark.parametrize("flags", [OWNER, OWNER | ALLOCATED])
def test_who_freed_a_page(flags: int) -> None:
    """Of an allocated one, the free is what was before."""
    owned = Owned()
    owned.record(flags, free_handle=owned.handle, free_ts_nsec=8 * 10**9, free_pid=8, free_tgid=7)
    layer = owned.told()
    freed = layer.details["freed_by"]
    assert (freed["pid"], freed["tgid"], freed["comm"], freed["age"]) == (8, 7, None, 2.0)
    words = "freed before in" if flags & ALLOCATED else "freed in"
    assert lines(layer)[3] == f"{words} {owned.words[0]} by task 8 of process 7, 8.00 s after boot (2.00 s ago)"


def test_a_record_without_times_and_tasks() -> None:
    """Before "mm/page_owner: record timestamp and pid" (5.11). The size of an entry is a sum before 5556cfe8d994."""
    owned = Owned(old=True)
    owned.record(order=1, gfp_mask=0xDC0)
    track = owned.told().details["allocated_by"]
    assert {key: track[key] for key in ("pid", "tgid", "comm", "seconds", "age")} == dict.fromkeys(
        ("pid", "tgid", "comm", "seconds", "age")
    )
    assert lines(owned.told())[0] == f"allocated in {owned.words[0]}, order 1, gfp 0xdc0"


def test_a_record_of_before_freed_pages_kept_theirs() -> None:
    """Before "mm, page_owner: keep owner info when freeing the page" (5.4) a page with a record is allocated."""
    owned = Owned(old=True, oldest=True)
    owned.record(flags=1 << 1)
    assert owned.told().details["recorded_as"] == "allocated"


def test_without_sparse_memory() -> None:
    owned = Owned(sparse=False)
    owned.record(pid=42, tgid=42)
    assert owned.told().details["allocated_by"]["pid"] == 42


def test_a_clock_that_stood_still() -> None:
    """No CPU has read it since."""
    owned = Owned()
    owned.record(ts_nsec=11 * 10**9)
    track = owned.told().details["allocated_by"]
    assert (track["seconds"], track["age"]) == (11.0, None)


@pytest.mark.parametrize(("handle", "words"), [(0xD0, "page_owner itself"), (0xD1, "no memory"), (0xD2, "before")])
def test_handles_that_stand_for_no_stack(handle: int, words: str) -> None:
    owned = Owned()
    owned.record(handle=handle, pid=1, tgid=1)
    track = owned.told().details["allocated_by"]
    assert (track["caller"], track["stack"]) == (None, [])
    assert words in track["no_stack"]
    assert lines(owned.told())[1] == f"  no stack: {track['no_stack']}"


def test_a_page_without_a_record() -> None:
    owned = Owned()
    assert not {"recorded_as", "allocated_by", "record_with"} & owned.told().details.keys()
    owned.record(flags=ALLOCATED)
    assert "allocated_by" not in owned.told().details


@pytest.mark.parametrize("planted", [{"flags": PG_RESERVED}, {"mapcount": PGTY_SLAB}, {"mapcount": PGTY_BUDDY}])
def test_kinds_of_pages(planted: dict[str, int]) -> None:
    """A slab's pages have an owner too; what the allocator never had, has none."""
    owned = Owned()
    owned.fake.page(owned.pfn, **planted)
    owned.record()
    assert ("allocated_by" in owned.told().details) == ("flags" not in planted)


def test_a_section_that_goes_offline() -> None:
    owned = Owned()
    owned.owners.go_offline()
    owned.record()
    assert "allocated_by" not in owned.told().details


def test_a_handle_that_leads_nowhere() -> None:
    owned = Owned()
    owned.record(handle=0x12345, pid=42, tgid=42)
    layer, problem = owned.problem()
    assert "no stack of handle 0x12345" in problem
    assert layer.details["allocated_by"]["pid"] == 42


def test_a_corrupted_record() -> None:
    owned = Owned()
    owned.record(order=99)
    layer, problem = owned.problem()
    assert problem.startswith("who allocated the page is not known: page_owner's record of page frame ")
    assert "corrupted" in problem
    assert layer.details["state"] == "kernel"


def test_a_record_that_cannot_be_read() -> None:
    owned = Owned()
    owned.record()
    owned.fake.lose(owned.owners.entry(owned.pfn), ENTRY - OFFSET)
    assert "cannot be read" in owned.problem()[1]


def test_a_kernel_that_was_not_told_to_record() -> None:
    owned = Owned(on=False)
    assert owned.told().details["record_with"] == "page_owner=on"
    assert lines(owned.told()) == ["who allocated and freed it is not recorded (page_owner=on would)"]


@pytest.mark.parametrize(
    ("planted", "said"), [({}, NEEDS), ({"mapcount": PGTY_BUDDY}, NEEDS), ({"mapcount": PGTY_SLAB}, None)]
)
def test_a_kernel_that_cannot_record(planted: dict[str, int], said: str | None) -> None:
    """It is said of a free page, and of the kernel's own; whose others are is known by what they are."""
    fake = FakeKernel()
    FakeVmap(fake)
    fake.page(fake.first_pfn + 0x31, **planted)
    (layer,) = PageLocator(fake.kernel).locate(fake.machine.direct_map + 0x31123)
    assert layer.details.get("record_with") == said
