"""Pages that are page tables (kplug/runtime/locators/table_pages.py): of which level, and whose.

The fake kernel's tables are real ones: where each is and what it maps is known from how they were planted.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import PGTY_SLAB, PGTY_TABLE, TOP_TABLE, FakeKernel
from support.fake_machines import AARCH64, MACHINES, PAGE, X86_64, Machine
from support.fake_tasks import FakeTasks
from support.fake_zones import FakeZones

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.table_pages import TablePageLocator, user_root

# 47 bits of address: the top table has half as many entries as a page has room for.
NARROW = replace(
    AARCH64,
    direct_map=0xFFFF800000000000,
    linked=0xFFFFC00080000000,
    notes=("NUMBER(VA_BITS)=47", "NUMBER(TCR_EL1_T1SZ)=0x11", "NUMBER(PHYS_OFFSET)=0x40000000"),
)
each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def told(fake: FakeKernel, address: int) -> Layer:
    (layer,) = TablePageLocator(fake.kernel).locate(address)
    return layer


@each_machine
def test_the_kernels_own_tables(machine: Machine) -> None:
    fake = FakeKernel(machine)
    FakeTasks(fake)
    fake.map(machine.vmalloc + 0x5000, machine.ram)
    table = fake.direct_table
    for offset in (0, 8, PAGE - 1):
        layer = told(fake, table + offset)
        assert (layer.name, layer.start, layer.end) == ("pud table of the kernel", table, table + PAGE)
        assert layer.details == {
            "level": "pud",
            "mm": "init_mm",
            "pid": None,
            "comm": None,
            "maps_from": hex(machine.direct_map),
        }
    assert list(TablePageLocator(fake.kernel).locate(table - 1)) == []


@each_machine
def test_the_levels_of_the_tables_of_one_address(machine: Machine) -> None:
    fake = FakeKernel(machine)
    FakeTasks(fake)
    before = fake.take(PAGE)
    fake.map(machine.modules, machine.ram)
    layers = []
    for place in range(before + PAGE, fake.take(PAGE), PAGE):
        layers.append(told(fake, place))
    levels = ["pud", "pmd", "pte"]
    assert levels[-len(layers) :] == [layer.details["level"] for layer in layers]
    spans = {"pud": 39, "pmd": 30, "pte": 21}
    for layer in layers:
        shift = spans[layer.details["level"]]
        assert layer.details["maps_from"] == hex(machine.modules >> shift << shift)


@each_machine
def test_the_top_table_is_in_the_image(machine: Machine) -> None:
    fake = FakeKernel(machine)
    FakeTasks(fake)
    address = machine.image + TOP_TABLE
    layer = told(fake, address + 0x800)
    assert (layer.name, layer.start, layer.end) == ("pgd table of the kernel", address, address + PAGE)
    assert told(fake, machine.direct_map + 0x100000 + TOP_TABLE).name == "pgd table of the kernel"


@each_machine
def test_a_programs_tables(machine: Machine) -> None:
    fake = FakeKernel(machine)
    tasks = FakeTasks(fake)
    root = fake.take(PAGE)
    mm = fake.make("mm_struct", {"pgd": root})
    tasks.task(7, "shell", mm=mm)
    tasks.task(5, "shell's first", mm=mm)
    first = fake.take(PAGE) + PAGE
    fake.map(0x7F0000400000, machine.ram, root=root)
    places = range(first, fake.take(PAGE), PAGE)
    for place in (root, *places):
        fake.page(fake.pfn(place), mapcount=PGTY_TABLE)
    found = [told(fake, place).details for place in (root, *places)]
    assert [each["level"] for each in found] == ["pgd", "pud", "pmd", "pte"]
    assert [each["maps_from"] for each in found] == ["0x0", "0x7f0000000000", "0x7f0000000000", "0x7f0000400000"]
    assert {(each["pid"], each["comm"], each["mm"]) for each in found} == {(5, "shell's first", hex(mm))}


@pytest.mark.parametrize("isolated", [True, False])
def test_the_top_table_of_user_mode_under_page_table_isolation(isolated: bool) -> None:
    """It is the page after the kernel's, whose entries of the user half forbid execution (pti_set_user_pgtbl())."""
    fake = FakeKernel()
    tasks = FakeTasks(fake)
    FakeZones(fake)
    root = fake.take(2 * PAGE, 2 * PAGE)
    tasks.task(7, "shell", mm=fake.make("mm_struct", {"pgd": root}))
    fake.map(0x7F0000400000, 0, root=root)
    slot = 8 * (0x7F0000400000 >> 39)
    if isolated:
        entry = int.from_bytes(fake.prog.read(root + slot, 8), "little")
        fake.words(root + slot, entry | 1 << 63)
        fake.words(root + PAGE + slot, entry)
    fake.page(fake.pfn(root + PAGE), refcount=0)
    found = list(TablePageLocator(fake.kernel).locate(root + PAGE + slot))
    assert [layer.name for layer in found] == (["pgd table of 7 (shell) for user mode"] if isolated else [])
    assert [layer.details["isolated"] for layer in found] == ([True] if isolated else [])
    assert told(fake, root).name == "pgd table of 7 (shell)"


def test_top_tables_that_share_a_page() -> None:
    """arm64's are objects of pgd_cache, where they have few entries (arch/arm64/mm/pgd.c)."""
    fake = FakeKernel(NARROW)
    tasks = FakeTasks(fake)
    first = fake.take(PAGE)
    roots = first, first + 0x800
    for pid, root in enumerate(roots, 5):
        tasks.task(pid, "shell", mm=fake.make("mm_struct", {"pgd": root}))
    fake.page(fake.pfn(roots[0]), mapcount=PGTY_SLAB)
    below = fake.take(PAGE) + PAGE
    fake.map(0x7F0000400000, NARROW.ram, root=roots[1])
    fake.page(fake.pfn(below), mapcount=PGTY_TABLE)
    layers = [told(fake, place + 8) for place in roots]
    assert [(layer.name, layer.start, layer.end) for layer in layers] == [
        (f"pgd table of {pid} (shell)", root, root + 0x800) for pid, root in enumerate(roots, 5)
    ]
    layer = told(fake, below)
    assert (layer.name, layer.details["maps_from"]) == ("pud table of 6 (shell)", "0x7f0000000000")


def test_a_page_of_the_kernels_that_is_no_table() -> None:
    fake = FakeKernel()
    FakeTasks(fake)
    assert list(TablePageLocator(fake.kernel).locate(fake.take(PAGE))) == []
    assert list(TablePageLocator(fake.kernel).locate(X86_64.vmemmap)) == []


def test_tables_that_cannot_be_read_are_passed_over() -> None:
    fake = FakeKernel()
    FakeTasks(fake)
    fake.lose(fake.direct_table, PAGE)
    assert told(fake, fake.direct_table).details["level"] == "pud"  # the table above says so
    fake = FakeKernel()
    FakeTasks(fake)
    fake.lose(X86_64.direct_map + 0x100000 + TOP_TABLE, PAGE)
    assert list(TablePageLocator(fake.kernel).locate(fake.direct_table)) == []


def test_an_mm_that_cannot_be_read_has_no_tables() -> None:
    fake = FakeKernel()
    FakeTasks(fake)
    mm = fake.make("mm_struct", {"pgd": fake.take(PAGE)})
    assert user_root(fake.kernel, mm) is not None
    fake.lose(mm, 8)
    assert user_root(fake.kernel, mm) is None


def test_a_struct_page_that_cannot_be_read() -> None:
    fake = FakeKernel()
    FakeTasks(fake)
    fake.lose_pages(0x1F0)
    with pytest.raises(TargetError, match="the struct page of page frame 0x1f0"):
        list(TablePageLocator(fake.kernel).locate(X86_64.direct_map + 0x1F0000))
