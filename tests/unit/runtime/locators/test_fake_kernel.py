"""Page tables, pages and slab objects of a kernel in made-up memory: each test plants the bytes that it asks about."""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import (
    DIRECT_MAP,
    DIRECT_TABLE,
    LARGE,
    NO_EXECUTE,
    PG_RESERVED,
    PGTY_SLAB,
    PGTY_TABLE,
    PRESENT,
    TOP_TABLE,
    WRITE,
    FakeKernel,
)

from kplug.arch.types.page_tables import Translation
from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.pages import PageLocator
from kplug.runtime.locators.slab import SlabLocator
from kplug.runtime.locators.table_pages import TablePageLocator
from kplug.runtime.tables.translation import page_tables

CACHE, NAME, SLAB_PFN, SECRET = 0x8000, 0x8800, 0x20, 0x1122334455667788


def test_the_direct_map_is_found_by_its_page_tables() -> None:
    tables = page_tables(FakeKernel().kernel)
    assert tables.paging is not None
    assert (tables.paging.direct_offset, tables.paging.root) == (DIRECT_MAP, TOP_TABLE)
    assert tables.linear_physical(DIRECT_MAP + 0x1234) == 0x1234
    assert tables.translate(DIRECT_MAP + 0x1234) == Translation(0x1234, (1 << 30) - 0x1234, "rw-", 1 << 30, 2)
    assert tables.translate(DIRECT_MAP + (1 << 30)) is None


def test_page_tables_that_cannot_be_read() -> None:
    fake = FakeKernel()
    tables = page_tables(fake.kernel)
    assert tables.paging is not None
    fake.lost[DIRECT_TABLE] = DIRECT_TABLE + 0x1000
    with pytest.raises(TargetError, match="the page table entry at physical 0x2000 cannot be read"):
        tables.translate(DIRECT_MAP)


@pytest.mark.parametrize(
    ("planted", "state", "name"),
    [
        ({"flags": PG_RESERVED}, "reserved", "reserved page"),
        ({"mapping": DIRECT_MAP | 1}, "anon", "anonymous page"),
        ({"mapcount": PGTY_TABLE}, "pagetable", "page-table page"),
        ({"mapcount": PGTY_SLAB}, "slab", "slab page"),
        ({}, "kernel", "kernel page"),
    ],
)
def test_what_a_page_is(monkeypatch: pytest.MonkeyPatch, planted: dict[str, int], state: str, name: str) -> None:
    monkeypatch.setattr("kplug.runtime.locators.pages.backs_vmalloc", lambda *_: False)
    fake = FakeKernel()
    fake.page(0x30, **planted)
    (layer,) = PageLocator(fake.kernel).locate(DIRECT_MAP + 0x30123)
    assert (layer.start, layer.end, layer.name) == (DIRECT_MAP + 0x30000, DIRECT_MAP + 0x31000, name)
    assert (layer.details["pfn"], layer.details["physical"], layer.details["state"]) == (0x30, "0x30000", state)


def test_the_kernels_own_page_table() -> None:
    fake = FakeKernel()
    fake.page(DIRECT_TABLE >> 12, mapcount=PGTY_TABLE)
    (layer,) = TablePageLocator(fake.kernel).locate(DIRECT_MAP + DIRECT_TABLE + 8)
    assert layer.name == "pud table of the kernel"
    assert layer.details == {
        "level": "pud",
        "mm": "init_mm",
        "pid": None,
        "comm": None,
        "maps_from": hex(DIRECT_MAP),
    }


def slab(*free: int, hardened: bool = True) -> FakeKernel:
    """A slab of four objects of 0x100 bytes, 0xf0 of them used; the free list links those of these numbers."""
    fake, base = FakeKernel(), DIRECT_MAP + SLAB_PFN * 4096
    secret = SECRET if hardened else 0
    fake.ram[NAME : NAME + 6] = b"things"
    fake.word(CACHE, DIRECT_MAP + NAME)
    fake.word(CACHE + 8, 0x100 | 0xF0 << 32)
    fake.word(CACHE + 16, 0x40 | 1 << 32)
    fake.word(CACHE + 32, secret)
    places = [base + number * 0x100 for number in free]
    for place, following in reversed(
        [*zip(places, [*places[1:], 0])]
    ):  # of a number given twice, the first counts: a loop
        link = place + 0x40  # freelist_ptr_encode(): ptr ^ s->random ^ swab(ptr_addr)
        fake.word(link - DIRECT_MAP, following ^ secret ^ int.from_bytes(link.to_bytes(8, "little"), "big"))
    first = places[0] if places else 0
    fake.page(SLAB_PFN, mapcount=PGTY_SLAB, slab_cache=DIRECT_MAP + CACHE, freelist=first, counters=4 << 16)
    return fake


def told(fake: FakeKernel, offset: int) -> Layer:
    (layer,) = SlabLocator(fake.kernel).locate(DIRECT_MAP + SLAB_PFN * 4096 + offset)
    return layer


def test_slab_objects() -> None:
    fake, base = slab(2, 0), DIRECT_MAP + SLAB_PFN * 4096
    states = [told(fake, number * 0x100 + 8).details["state"] for number in range(4)]
    assert states == ["free", "allocated", "free", "allocated"]
    layer = told(fake, 0x1F8)
    assert (layer.name, layer.start, layer.end) == ("things", base + 0x100, base + 0x200)
    assert layer.details == {
        "cache": "things",
        "object": hex(base + 0x100),
        "state": "allocated",
        "object_size": 0xF0,
        "padding": True,
    }


def test_behind_the_last_slab_object() -> None:
    assert told(slab(), 0x400).details["object"] is None


def test_a_free_list_that_loops() -> None:
    assert told(slab(2, 0, 2), 0x100).details["state"] == "corrupted"


def test_a_slab_that_cannot_be_read() -> None:
    fake = slab(2)
    fake.lost[SLAB_PFN << 12] = (SLAB_PFN + 1) << 12
    found = SlabLocator(fake.kernel).locate(DIRECT_MAP + (SLAB_PFN << 12))
    assert next(iter(found)).details["state"] is None
    with pytest.raises(TargetError, match="whether the slab object at 0xffff888000020000 is allocated"):
        list(SlabLocator(fake.kernel).locate(DIRECT_MAP + (SLAB_PFN << 12)))


def test_entries_of_the_direct_map_follow_the_page_table() -> None:
    fake = FakeKernel()
    fake.word(DIRECT_TABLE + 8, 0x40000000 | PRESENT | LARGE | NO_EXECUTE)
    found = page_tables(fake.kernel).translate(DIRECT_MAP + (1 << 30))
    assert found is not None
    assert (found.physical, found.permissions) == (0x40000000, "r--")
    fake.word(TOP_TABLE + 273 * 8, DIRECT_TABLE | WRITE)
    assert page_tables(fake.kernel).translate(DIRECT_MAP) is None
