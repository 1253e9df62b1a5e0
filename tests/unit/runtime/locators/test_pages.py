"""The page of an address (kplug/runtime/locators/pages.py, tables/struct_page.py): what its struct page says.

What is expected is what was planted in the struct pages; flags and types are include/linux/page-flags.h's of 6.12.
"""

from __future__ import annotations

from typing import cast

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import (
    IMAGE,
    PG_HEAD,
    PG_RESERVED,
    PGTY_BUDDY,
    PGTY_SLAB,
    PGTY_TABLE,
    RAM,
    STRUCT_PAGE,
    FakeKernel,
)
from support.fake_machines import AARCH64, MACHINES, PAGE, X86_64, Machine
from support.fake_vmap import FakeVmap
from support.fake_zones import FakeZones

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.kernel.kernel import TRUNCATED_PAGE
from kplug.runtime.locators.pages import KIND, PageLocator
from kplug.runtime.threads.user_space import UserSpace

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def made(machine: Machine = X86_64) -> FakeKernel:
    fake = FakeKernel(machine)
    FakeVmap(fake)
    return fake


def told(fake: FakeKernel, address: int) -> Layer:
    (layer,) = PageLocator(fake.kernel).locate(address)
    return layer


@each_machine
@pytest.mark.parametrize(
    ("planted", "state", "name"),
    [
        ({"flags": PG_RESERVED}, "reserved", "reserved page"),
        ({"mapping": X86_64.direct_map | 1}, "anon", "anonymous page"),
        ({"mapping": X86_64.direct_map | 2}, "movable", "movable page"),
        ({"mapcount": PGTY_TABLE}, "pagetable", "page-table page"),
        ({"mapcount": PGTY_SLAB}, "slab", "slab page"),
        ({"mapcount": PGTY_BUDDY}, "free", "free page"),
        ({}, "kernel", "kernel page"),
    ],
)
def test_what_a_page_is(machine: Machine, planted: dict[str, int], state: str, name: str) -> None:
    fake = made(machine)
    pfn, start = fake.first_pfn + 0x30, machine.direct_map + 0x30000
    fake.page(pfn, **planted)
    for offset in (0, 0x123, 0xFFF):
        layer = told(fake, start + offset)
        assert (layer.start, layer.end, layer.name) == (start, start + PAGE, name)
    details = layer.details
    assert (details["pfn"], details["physical"], details["state"]) == (pfn, hex(machine.ram + 0x30000), state)
    assert details["struct_page"] == hex(fake.struct_page(pfn))


@pytest.mark.parametrize(("machine", "sparse"), [(X86_64, True), (X86_64, False), (AARCH64, True)])
def test_the_first_and_the_last_page_of_ram(machine: Machine, sparse: bool) -> None:
    fake = FakeKernel(machine, sparse=sparse)
    FakeVmap(fake)
    assert told(fake, machine.direct_map).details["pfn"] == fake.first_pfn
    assert told(fake, fake.ram_end - 1).details["pfn"] == fake.first_pfn + RAM // PAGE - 1
    for place in (machine.direct_map - 1, machine.vmalloc):
        assert list(PageLocator(fake.kernel).locate(place)) == []


@each_machine
def test_beyond_ram(machine: Machine) -> None:
    """In the direct map and in vmemmap: its number, and that no RAM has it."""
    fake = made(machine)
    end = fake.first_pfn + RAM // PAGE
    for pfn, direct in ((end, fake.ram_end), (end + 0x1000, fake.ram_end + 0x1000 * PAGE)):
        layer = told(fake, direct + 0x10)
        assert (layer.start, layer.end) == (direct, direct + PAGE)
        assert layer.details == {"pfn": pfn, "physical": hex(pfn * PAGE), "state": None, "in_ram": False}
        assert KIND.phrase(layer, 0x10) == f"pfn {pfn:#x}+0x10 (beyond RAM, which ends at pfn {end:#x})"
    layer = told(fake, fake.struct_page(end + 2) + 8)
    assert (layer.name, layer.start) == (f"struct page of pfn {end + 2:#x}", fake.struct_page(end + 2))
    assert (layer.details["pfn"], layer.details["in_ram"]) == (end + 2, False)
    assert layer.details["describes"] == f"beyond RAM, which ends at pfn {end:#x}"


@each_machine
def test_memory_of_a_device(machine: Machine) -> None:
    fake = made(machine)
    fake.map(machine.vmalloc, 0xFEE00000)
    layer = told(fake, machine.vmalloc + 0x20)
    assert (layer.details["pfn"], layer.details["physical"], layer.details["in_ram"]) == (0xFEE00, "0xfee00000", False)


def test_the_zone_of_a_page() -> None:
    """Where zones overlap it is not certain; where none is, or they cannot be read, not known."""
    fake = made()
    zones = FakeZones(fake)
    zones.span(0x10, 0x20, "Normal")
    expected = {0x0F: (None, None), 0x10: (0, "Normal"), 0x2F: (0, "Normal"), 0x30: (None, None)}
    found = {pfn: told(fake, X86_64.direct_map + pfn * PAGE).details for pfn in expected}
    assert {pfn: (details["node"], details["zone"]) for pfn, details in found.items()} == expected
    assert "  node 0 zone Normal  " in KIND.words(told(fake, X86_64.direct_map + 0x10000))[0]
    overlapping = made()
    FakeZones(overlapping, zones=2)
    details = told(overlapping, X86_64.direct_map).details
    assert (details["node"], details["zone"]) == (None, None)
    unread = made()
    zones = FakeZones(unread)
    zones.span(0, 0x200, "Normal")
    unread.lose(X86_64.direct_map + IMAGE + zones.node - X86_64.image, 0x100)
    assert told(unread, X86_64.direct_map).details["zone"] is None


def test_the_counts_and_flags_of_a_page() -> None:
    fake = made()
    fake.page(0x30, flags=1, refcount=3, mapcount=1, mapping=X86_64.direct_map | 1)
    details = told(fake, X86_64.direct_map + 0x30000).details
    assert (details["flags"], details["refcount"], details["mapcount"]) == ("locked", 3, 2)
    assert told(fake, X86_64.direct_map + 0x31000).details["mapcount"] == 0


def compound(fake: FakeKernel, head: int, order: int, **planted: int) -> None:
    fake.page(head, flags=PG_HEAD, **planted)
    for tail in range(1, 1 << order):
        flags = order if tail == 1 else 0
        fake.page(head + tail, flags=flags, slab_cache=fake.struct_page(head) | 1, refcount=0)


@each_machine
def test_the_pages_of_a_compound_page(machine: Machine) -> None:
    fake = made(machine)
    head = fake.first_pfn + 0x40
    compound(fake, head, 2, mapping=X86_64.direct_map | 1, refcount=7)
    for number in range(4):
        details = told(fake, machine.direct_map + 0x40000 + number * PAGE).details
        assert (details["head"], details["order"], details["state"], details["refcount"]) == (head, 2, "anon", 7)
        assert details["flags"] == "head"
        assert details.get("tail", 0) == number
    layer = told(fake, machine.direct_map + 0x43000)
    assert KIND.phrase(layer, 8) == f"anonymous page+0x8 (tail 3 of the block at pfn {head:#x})"
    assert "  the block's flags head" in KIND.words(layer)[0]
    described = told(fake, fake.struct_page(head + 3))
    assert KIND.phrase(described, 0x13).endswith(f"(anonymous page, tail 3 of the block at pfn {head:#x}, misaligned)")
    assert "head" not in told(fake, machine.direct_map + 0x44000).details
    assert "head" not in told(fake, machine.direct_map + 0x3FFFF).details


@each_machine
def test_the_pages_of_a_free_block(machine: Machine) -> None:
    fake = made(machine)
    head = fake.first_pfn + 0x40
    fake.page(head, mapcount=PGTY_BUDDY, refcount=0, private=2)
    for number in range(1, 4):
        fake.page(head + number, refcount=0)
    for number in range(4):
        details = told(fake, machine.direct_map + 0x40000 + number * PAGE).details
        assert (details["head"], details["order"], details["free_list"]) == (head, 2, "buddy")
        assert (details["state"], details["mapcount"]) == ("free", None)
    layer = told(fake, machine.direct_map + 0x43000)
    assert KIND.phrase(layer, 0) == f"free page+0x0 (page 3 of the free block at pfn {head:#x})"


@each_machine
@pytest.mark.parametrize(
    ("number", "order", "old"),
    [(0, 0, True), (0, 0, False), (2, 0, False), (4, 1, False), (11, 3, False), (13, 9, False)],
)
def test_free_pages_on_a_cpus_list(machine: Machine, number: int, order: int, old: bool) -> None:
    """Lists of three migrate types for each order (44042b449872, 5.14), the last two for huge pages."""
    fake = made(machine)
    zones = FakeZones(fake, old=old)
    head = fake.first_pfn + (0 if order > 3 else 0x40)
    last = head + min((1 << order) - 1, 0xFF)
    for pfn in range(head, last + 2):
        fake.page(pfn, refcount=0)
    zones.add(1, number, head + 0x30)
    zones.add(1, number, head)
    for pfn in (head, last):
        details = told(fake, machine.direct_map + pfn * PAGE - machine.ram).details
        assert (details["state"], details["free_list"]) == ("free", "per-CPU list")
        assert (details.get("head", head), details.get("order", 0)) == (head, order)
    behind = told(fake, machine.direct_map + (last + 1) * PAGE - machine.ram).details
    assert (behind["state"], behind.get("free_list")) == ((None, None) if order < 9 else ("free", "per-CPU list"))


@pytest.mark.parametrize("lead", ["loops", "is lost", "is no page"])
def test_a_cpus_list_of_free_pages_that_leads_astray(lead: str) -> None:
    """What was read of it stands; of other pages that nobody holds nothing is certain."""
    fake = made()
    zones = FakeZones(fake)
    zones.add(0, 0, 0x40)
    zones.add(1, 1, 0x44)
    link = fake.struct_page(0x40) + 8
    following = {"loops": link, "is lost": X86_64.vmemmap + (1 << 30) + 8, "is no page": X86_64.vmemmap + 12}[lead]
    fake.page(0x40, refcount=0, slab_cache=following)
    fake.page(0x48, refcount=0)
    states = [told(fake, X86_64.direct_map + pfn * PAGE).details["state"] for pfn in (0x40, 0x44, 0x48)]
    assert states == ["free", "free", None]


def test_a_head_that_is_no_struct_page() -> None:
    fake = made()
    fake.page(0x41, slab_cache=(fake.struct_page(0x40) + 8) | 1)
    with pytest.raises(TargetError, match="the struct page of page frame 0x41 is corrupted"):
        told(fake, X86_64.direct_map + 0x41000)
    fake.page(0x41, slab_cache=fake.struct_page(0x50) | 1)  # a head behind its tail
    with pytest.raises(TargetError, match="the struct page of page frame 0x41 is corrupted"):
        told(fake, X86_64.direct_map + 0x41000)


@each_machine
def test_the_page_that_a_struct_page_describes(machine: Machine) -> None:
    fake = made(machine)
    pfn = fake.first_pfn + 0x30
    fake.page(pfn, mapcount=PGTY_SLAB)
    start = fake.struct_page(pfn)
    for offset in (0, STRUCT_PAGE - 1):
        layer = told(fake, start + offset)
        assert (layer.name, layer.start, layer.end) == (f"struct page of pfn {pfn:#x}", start, start + STRUCT_PAGE)
        assert (layer.details["describes"], layer.details["pfn"]) == ("slab page", pfn)
    assert told(fake, start + STRUCT_PAGE).details["pfn"] == pfn + 1
    assert list(PageLocator(fake.kernel).locate(fake.struct_page(fake.first_pfn - 1))) == []
    assert told(fake, fake.struct_page(fake.first_pfn + RAM // PAGE)).details["in_ram"] is False


@each_machine
def test_a_page_of_vmallocs_by_both_its_addresses(machine: Machine) -> None:
    fake = FakeKernel(machine)
    (frame, last) = FakeVmap(fake).area(machine.vmalloc, 2)
    direct = machine.direct_map + frame * PAGE - machine.ram
    for place in (machine.vmalloc, machine.vmalloc + PAGE - 1, direct, direct + PAGE - 1):
        layer = told(fake, place)
        assert (layer.name, layer.start) == ("vmalloc page", place & -PAGE)
        assert (layer.details["pfn"], layer.details["state"]) == (frame, "vmalloc")
    assert told(fake, machine.vmalloc + PAGE).details["pfn"] == last
    assert list(PageLocator(fake.kernel).locate(machine.vmalloc + 2 * PAGE)) == []  # the guard page


@each_machine
def test_a_page_of_the_image(machine: Machine) -> None:
    fake = made(machine)
    layer = told(fake, machine.image + 0x1234)
    assert (layer.name, layer.start) == ("reserved page", machine.image + 0x1000)
    assert layer.details["physical"] == hex(fake.image_physical + 0x1000)


@each_machine
def test_a_page_of_a_program(machine: Machine) -> None:
    fake = made(machine)
    root = fake.take(PAGE)
    fake.map(0x400000, machine.ram + 0x30000, root=root)
    fake.page(fake.first_pfn + 0x30, mapping=X86_64.direct_map | 1)

    class Program:
        def root(self, address: int) -> int:
            return fake.physical(root)

    locator = PageLocator(fake.kernel, cast(UserSpace, Program()))
    (layer,) = locator.locate(0x400FFF)
    assert (layer.name, layer.start, layer.end) == ("anonymous page", 0x400000, 0x401000)
    assert [list(locator.locate(place)) for place in (0x3FFFFF, 0x401000)] == [[], []]
    assert list(PageLocator(fake.kernel).locate(0x400000)) == []


# -- files -------------------------------------------------------------------------------------------------------------


def with_a_file(fake: FakeKernel) -> tuple[int, int]:
    """A page of a file, and the inode: /etc/passwd on sda1; include/linux/fs.h, dcache.h."""
    fake.struct("hlist_head", 8, first=("struct hlist_node *", 0))
    fake.struct("hlist_node", 16, next=("struct hlist_node *", 0), pprev=("void *", 8))
    fake.struct("address_space", 64, host=("struct inode *", 0))
    fake.struct("super_block", 64, s_id=("char [32]", 8))
    fake.struct(
        "inode", 64, i_ino=("unsigned long", 0), i_sb=("struct super_block *", 8), i_dentry=("struct hlist_head", 16)
    )
    fake.struct("qstr", 16, name=("char *", 8))
    fake.struct(
        "dentry", 64, d_parent=("struct dentry *", 0), d_name=("struct qstr", 8), d_alias=("struct hlist_node", 24)
    )
    root = fake.make("dentry")
    fake.words(root, root)
    etc = fake.make("dentry", {"d_parent": root, "d_name.name": fake.text("etc")})
    passwd = fake.make("dentry", {"d_parent": etc, "d_name.name": fake.text("passwd")})
    block = fake.make("super_block", {"s_id": b"sda1"})
    inode = fake.make("inode", {"i_ino": 4711, "i_sb": block, "i_dentry.first": passwd + 24})
    fake.page(0x30, mapping=fake.make("address_space", {"host": inode}))
    return inode, passwd


def test_the_file_of_a_page_cache_page() -> None:
    fake = made()
    with_a_file(fake)
    layer = told(fake, X86_64.direct_map + 0x30000)
    assert layer.name == "page-cache page"
    found = {key: layer.details[key] for key in ("inode", "device", "path")}
    assert found == {"inode": 4711, "device": "sda1", "path": "/etc/passwd"}


def test_a_file_without_a_name_or_with_one_that_cannot_be_read() -> None:
    fake = made()
    inode, passwd = with_a_file(fake)
    fake.lose(passwd, 64)
    details = told(fake, X86_64.direct_map + 0x30000).details
    assert (details["inode"], details["device"], details["path"]) == (4711, "sda1", None)
    fake.lost.clear()
    fake.put("inode", inode, {"i_dentry.first": 0})
    assert told(fake, X86_64.direct_map + 0x30000).details["path"] is None
    fake.lose(inode, 64)
    details = told(fake, X86_64.direct_map + 0x30000).details
    assert (details["inode"], details["device"], details["path"]) == (None, None, None)


# -- what is not in the dump, and what cannot be read ------------------------------------------------------------------


def test_a_page_that_the_dump_lacks() -> None:
    fake = made()
    fake.lose(X86_64.direct_map + 0x30000, PAGE)
    assert told(fake, X86_64.direct_map + 0x30000).details["in_dump"] is False
    assert "in_dump" not in told(fake, X86_64.direct_map + 0x31000).details
    fake.kernel.is_zero_filled = lambda physical: physical == 0x31000
    assert told(fake, X86_64.direct_map + 0x31000).details["in_dump"] is None


def test_a_page_where_the_dump_is_truncated_was_not_excluded() -> None:
    fake = made()
    fake.lose(X86_64.direct_map + 0x30000, PAGE, why=TRUNCATED_PAGE)
    layer = told(fake, X86_64.direct_map + 0x30000)
    assert (layer.details["in_dump"], layer.details["truncated"]) == (False, True)
    words, _ = KIND.words(layer)
    assert "the dump is truncated or incomplete there" in words
    assert "excluded" not in words


def test_a_page_in_a_part_of_the_dump_that_is_missing_was_not_excluded() -> None:
    fake = made()
    fake.lose(X86_64.direct_map + 0x30000, PAGE, why="Excluded page: 0x30000")
    fake.missing.append(range(0x30000, 0x40000))
    layer = told(fake, X86_64.direct_map + 0x30000)
    assert (layer.details["in_dump"], layer.details["missing_part"]) == (False, True)
    words, _ = KIND.words(layer)
    assert "in a part of the split dump that is missing" in words
    assert "excluded" not in words


def test_a_struct_page_that_cannot_be_read() -> None:
    fake = made()
    fake.lose_pages(0x1F0)
    with pytest.raises(TargetError, match="the struct page of page frame 0x1f0 at 0xffffea0000007c00 cannot be read"):
        told(fake, X86_64.direct_map + 0x1F0000)
    assert told(fake, X86_64.direct_map + 0x1EFFFF).details["pfn"] == 0x1EF


def test_a_type_that_nobody_knows_is_no_count() -> None:
    fake = made()
    fake.page(0x30, mapcount=0xF1000000)
    layer = told(fake, X86_64.direct_map + 0x30000)
    assert (layer.name, layer.details["mapcount"]) == ("type 0xf1 page", None)
    fake.page(0x31, mapcount=0xFF000000)  # PGTY_mapcount_underflow: a count
    assert told(fake, X86_64.direct_map + 0x31000).details["mapcount"] == 0xFF000000 - (1 << 32) + 1
    fake.page(0x32, mapcount=0x7FFFFFFE)
    assert told(fake, X86_64.direct_map + 0x32000).details["mapcount"] == 0x7FFFFFFF
