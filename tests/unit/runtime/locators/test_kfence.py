"""KFENCE (kplug/runtime/locators/kfence.py): its objects, their canaries, and the guard pages between them.

What is expected is what was planted in the records of a pool of three objects, and mm/kfence/core.c: the pool is pairs
of pages, of which the first are guards, and each object has the first page of its pair.
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import FakeKernel
from support.fake_kfence import ALLOCATED, FREED, POOL_OBJECTS, RCU_FREEING, RECORD, FakeKfence
from support.fake_machines import MACHINES, PAGE, X86_64, Machine

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.kfence import KfenceLocator

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def found(kfence: FakeKfence, address: int) -> list[Layer]:
    return list(KfenceLocator(kfence.fake.kernel).locate(address))


def told(kfence: FakeKfence, address: int) -> Layer:
    (layer,) = found(kfence, address)
    return layer


@each_machine
@pytest.mark.parametrize("pointer", [True, False])
def test_an_object_from_its_first_byte_to_its_last(machine: Machine, pointer: bool) -> None:
    kfence = FakeKfence(FakeKernel(machine), pointer=pointer)
    start = kfence.object(1, 0xF00, 0x60)
    for address in (start, start + 0x30, start + 0x5F):
        layer = told(kfence, address)
        assert (layer.kind, layer.name, layer.start, layer.end) == ("kfence", "things", start, start + 0x60)
    details = dict(layer.details)
    track = details.pop("allocated_by")
    assert details == {
        "number": 1,
        "cache": "things",
        "object": hex(start),
        "size": 0x60,
        "state": "allocated",
        "freed_by": None,
        "guard": False,
        "below": None,
        "above": None,
    }
    stack = ["start_kernel+0x10/0x20", "kernel_clone+0x10/0x440"]
    assert track == {"pid": 42, "cpu": 1, "seconds": 1.5, "caller": stack[0], "stack": stack}


@each_machine
def test_the_canaries_on_both_sides_of_an_object(machine: Machine) -> None:
    kfence = FakeKfence(FakeKernel(machine))
    start = kfence.object(0, 0x800, 0x100)
    page = kfence.page(0)
    for address in (page, start - 1):
        layer = told(kfence, address)
        assert layer.name == f"canary of KFENCE object things, {start - address:#x} bytes before it"
        assert (layer.start, layer.end) == (page, start)
    for address in (start + 0x100, page + PAGE - 1):
        layer = told(kfence, address)
        assert layer.name == f"canary of KFENCE object things, {address - start - 0x100:#x} bytes past its end"
        assert (layer.start, layer.end) == (start + 0x100, page + PAGE)


def test_an_object_that_fills_its_page() -> None:
    kfence = FakeKfence(FakeKernel())
    start = kfence.object(2, 0, PAGE)
    assert (told(kfence, start).name, told(kfence, start + PAGE - 1).name) == ("things", "things")


@each_machine
def test_the_guard_pages(machine: Machine) -> None:
    kfence = FakeKfence(FakeKernel(machine))
    first = kfence.object(0, 0x10, 0x20)
    kfence.object(1, 0x30, 0x20)
    pool = kfence.pool
    names = [told(kfence, pool + number * PAGE).name for number in (0, 1, 3, 5, 7)]
    one, two = f"things at {first:#x}", f"things at {kfence.page(1) + 0x30:#x}"
    assert names == [
        "KFENCE guard page",
        f"KFENCE guard page between the start of the pool and {one}",
        f"KFENCE guard page between {one} and {two}",
        f"KFENCE guard page between {two} and unused #2",
        "KFENCE guard page between unused #2 and the end of the pool",
    ]
    layer = told(kfence, pool + 4 * PAGE - 1)
    assert (layer.start, layer.end) == (pool + 3 * PAGE, pool + 4 * PAGE)
    assert (layer.details["guard"], layer.details["below"], layer.details["above"]) == (True, one, two)
    assert layer.details["object"] is None


@each_machine
def test_where_the_pool_ends(machine: Machine) -> None:
    kfence = FakeKfence(FakeKernel(machine))
    end = kfence.pool + 2 * PAGE * (POOL_OBJECTS + 1)
    assert found(kfence, kfence.pool - 1) == []
    assert told(kfence, end - 1).details["guard"] is True
    assert [found(kfence, end + number * PAGE) for number in range(3)] == [[], [], []]


def test_a_page_that_no_object_uses() -> None:
    kfence = FakeKfence(FakeKernel())
    layer = told(kfence, kfence.page(1) + 5)
    assert (layer.name, layer.start, layer.end) == ("page for a KFENCE object", kfence.page(1), kfence.page(1) + PAGE)
    assert (layer.details["state"], layer.details["number"], layer.details["object"]) == ("unused", 1, None)


@pytest.mark.parametrize(("state", "word"), [(FREED, "freed"), (RCU_FREEING, "rcu_freeing"), (9, "9")])
def test_a_freed_object(state: int, word: str) -> None:
    kfence = FakeKfence(FakeKernel())
    start = kfence.object(0, 0x10, 0x20, state)
    kfence.track(kfence.records + 112, 43, [X86_64.image + 0x200])
    details = told(kfence, start).details
    assert details["state"] == word
    assert (details["allocated_by"]["pid"], details["freed_by"]["pid"]) == (42, 43)
    assert details["freed_by"]["caller"] == "kernel_clone+0x0/0x440"


def test_of_an_allocated_object_the_last_free_is_another_objects() -> None:
    kfence = FakeKfence(FakeKernel())
    start = kfence.object(0, 0x10, 0x20, ALLOCATED)
    kfence.track(kfence.records + 112, 43, [X86_64.image + 0x200])
    assert told(kfence, start).details["freed_by"] is None


def test_a_cache_that_is_gone() -> None:
    kfence = FakeKfence(FakeKernel())
    start = kfence.object(0, 0x10, 0x20, FREED, cache="")
    assert told(kfence, start).details["cache"] == "destroyed cache"


def test_a_stack_without_symbols() -> None:
    kfence = FakeKfence(FakeKernel())
    start = kfence.object(0, 0x10, 0x20)
    kfence.track(kfence.records + 48, 42, [0xFFFFC90000001234])
    track = told(kfence, start).details["allocated_by"]
    assert (track["stack"], track["caller"]) == (["0xffffc90000001234"], "0xffffc90000001234")


def test_a_kernel_without_kfence() -> None:
    assert list(KfenceLocator(FakeKernel().kernel).locate(X86_64.direct_map + 0x30000)) == []
    fake = FakeKernel()
    fake.variable("__kfence_pool", "char *", 0)  # it is off
    assert list(KfenceLocator(fake.kernel).locate(X86_64.direct_map + 0x30000)) == []


# -- what cannot be read -----------------------------------------------------------------------------------------------


def test_a_record_that_cannot_be_read() -> None:
    kfence = FakeKfence(FakeKernel())
    kfence.object(1, 0x10, 0x20)
    place = kfence.records + RECORD
    kfence.fake.lose(place, 8)
    with pytest.raises(TargetError, match=f"KFENCE's record at {place:#x} cannot be read"):
        found(kfence, kfence.page(1))


def test_an_object_larger_than_its_page() -> None:
    kfence = FakeKfence(FakeKernel())
    start = kfence.object(1, 0xF00, 0x101)
    with pytest.raises(TargetError, match="is corrupted: an object of 0x101 bytes"):
        found(kfence, start)


@pytest.mark.parametrize("by", [-1, PAGE])
def test_a_record_of_another_page_is_none(by: int) -> None:
    kfence = FakeKfence(FakeKernel())
    start = kfence.object(1, 0xF00, 0x20)
    kfence.record(1, addr=kfence.page(1) + by)
    assert found(kfence, start) == []


def test_a_name_of_a_cache_that_cannot_be_read() -> None:
    kfence = FakeKfence(FakeKernel())
    start = kfence.object(1, 0xF00, 0x20)
    kfence.record(1, cache=0xFFFF123456789000)
    with pytest.raises(TargetError, match="the slab cache at 0xffff123456789000"):
        found(kfence, start)


def test_a_count_of_stack_entries_that_cannot_be() -> None:
    kfence = FakeKfence(FakeKernel())
    start = kfence.object(1, 0xF00, 0x20)
    kfence.fake.put("kfence_track", kfence.records + RECORD + 48, {"num_stack_entries": -1})
    assert told(kfence, start).details["allocated_by"] is None
    kfence.fake.put("kfence_track", kfence.records + RECORD + 48, {"num_stack_entries": 1 << 30})
    assert len(told(kfence, start).details["allocated_by"]["stack"]) == 4


def test_where_the_pool_is_cannot_be_read() -> None:
    kfence = FakeKfence(FakeKernel())
    kfence.fake.lose(X86_64.direct_map + 0x108000, PAGE)
    with pytest.raises(TargetError, match="where KFENCE's pool is cannot be read"):
        found(kfence, kfence.pool)
