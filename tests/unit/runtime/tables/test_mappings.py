"""Where the page tables map a page (kplug/runtime/tables/mappings.py): what the fake kernel planted in its tables."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import IMAGE_SIZE, TOP_TABLE, FakeKernel
from support.fake_machines import MACHINES, PAGE, X86_64, Machine
from support.fake_tasks import FakeTasks

from kplug.errors import ExpressionError, TargetError
from kplug.frozen import replace
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.records import records_of
from kplug.runtime.tables import mappings
from kplug.runtime.tables.mappings import addresses_of, mappings_of
from kplug.runtime.tables.translation import page_tables
from kplug.session import Session

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


@each_machine
def test_the_mappings_of_a_page(machine: Machine) -> None:
    fake = FakeKernel(machine)
    frame = fake.physical(fake.take(PAGE))
    places = [machine.vmalloc + PAGE, machine.vmalloc + 0x400000]
    for place in places:
        fake.map(place, frame)
    found = mappings_of(fake.kernel)
    assert [found.of(frame + offset) for offset in (0, 0xFFF)] == [places, [place + 0xFFF for place in places]]
    assert found.of(frame + PAGE) == found.of(frame - 1) == []
    assert found.problem is None


@each_machine
def test_the_image_and_the_direct_map_are_not_among_them(machine: Machine) -> None:
    fake = FakeKernel(machine)
    found = mappings_of(fake.kernel)
    assert all(found.of(fake.image_physical + place) == [] for place in range(0, IMAGE_SIZE, PAGE))


def test_a_large_page() -> None:
    fake = FakeKernel()
    place = X86_64.vmalloc + 0x200000 & -0x200000
    fake.map(place, 0)
    table = _top(fake)
    for shift in (39, 30):
        entry = table + (place >> shift & 0x1FF) * 8
        table = int.from_bytes(fake.ram[entry : entry + 8], "little") & 0xFFFFFFFFF000
    entry = table + (place >> 21 & 0x1FF) * 8
    fake.ram[entry : entry + 8] = X86_64.page_entry(0x40000000, "rw-", True).to_bytes(8, "little")
    assert mappings_of(fake.kernel).of(0x40012345) == [place + 0x12345]


def _top(fake: FakeKernel) -> int:
    return fake.image_physical + TOP_TABLE


def test_tables_that_are_lost_and_too_many_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKernel()
    fake.map(X86_64.vmalloc, 0x30000)
    monkeypatch.setattr(mappings, "_MAX_TABLES", 2)
    assert mappings_of(fake.kernel).problem == "the kernel has over 2 page tables, and no more were searched"
    monkeypatch.undo()
    lost = FakeKernel()
    lost.map(X86_64.vmalloc, 0x30000)
    lost.lose(X86_64.direct_map + _top(lost), PAGE)
    found = mappings_of(lost.kernel)
    assert (found.of(0x30000), found.problem) == ([], "some of the kernel's page tables cannot be read")
    with pytest.raises(TargetError, match="no RAM, and the kernel's page tables, as far as they can be read, do not"):
        addresses_of(lost.kernel, 1 << 52)


@each_machine
def test_the_addresses_of_a_physical_address(machine: Machine) -> None:
    fake = FakeKernel(machine)
    direct = fake.take(PAGE)
    fake.map(machine.vmalloc, fake.physical(direct))
    fake.map(machine.vmalloc + PAGE, 0xFEE00000)
    assert list(addresses_of(fake.kernel, fake.physical(direct) + 5)) == [direct + 5]
    assert list(addresses_of(fake.kernel, 0xFEE00020)) == [machine.vmalloc + PAGE + 0x20]
    beyond = fake.physical(fake.ram_end) + 0x10
    assert list(addresses_of(fake.kernel, beyond)) == [fake.ram_end + 0x10]
    with pytest.raises(TargetError, match="no RAM, and the kernel's page tables do not map it"):
        addresses_of(fake.kernel, 1 << 52)


def test_where_the_direct_map_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKernel()
    paging = page_tables(fake.kernel).paging
    assert paging is not None
    unknown = SimpleNamespace(
        paging=replace(paging, direct_map=None, direct_offset=None), direct_address=lambda _: None
    )
    monkeypatch.setattr(mappings, "page_tables", lambda kernel: unknown)
    with pytest.raises(TargetError, match=r"^where the direct map is, is not known, and the kernel's page tables do"):
        addresses_of(fake.kernel, 1 << 52)


def test_an_expression_that_means_a_physical_address() -> None:
    fake = FakeKernel()
    (frame,) = FakeTasks(fake).vmap.area(X86_64.vmalloc, 1)
    kernel = fake.kernel
    records = records_of(kernel)
    session = Session(
        records.images, target=DrgnTarget(kernel, "a test"), locators=records.locators, virtual=records.virtual
    )
    (answer,) = session.where(f"phys:{frame * PAGE:#x}+0x10")
    assert (answer.input, answer.address) == (f"phys:{frame * PAGE:#x}+0x10", X86_64.direct_map + frame * PAGE + 0x10)
    assert [layer.details["of"] for layer in answer.layers if layer.kind == "alias"] == [hex(X86_64.vmalloc + 0x10)]
    with pytest.raises(TargetError, match="phys:0xfffffffffffff000: no RAM"):
        list(session.where("phys:0xfffffffffffff000"))
    with pytest.raises(ExpressionError, match=r"phys:0xffffffffffffffff\+1: more than 64 bits"):
        list(session.where("phys:0xffffffffffffffff+1"))
    with pytest.raises(ExpressionError, match="phys:0x1000: where a physical address is mapped is known from page"):
        list(Session(records.images).where("phys:0x1000"))
