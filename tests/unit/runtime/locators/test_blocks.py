"""Compound blocks of the kernel's own pages, and what kmalloc gave without a slab (locators/blocks.py)."""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import MAPCOUNT_NONE, PG_HEAD, PGTY_SLAB, STRUCT_PAGE, FakeKernel
from support.fake_machines import MACHINES, PAGE, Machine
from support.fake_vmap import FakeVmap

from kplug.model import Layer
from kplug.runtime.locators.blocks import KIND, BlockLocator

PGTY_LARGE_KMALLOC = 0xF8 << 24


def planted(fake: FakeKernel, order: int = 2, mapcount: int = MAPCOUNT_NONE, mapping: int = 0) -> int:
    """A compound block, and where it is."""
    FakeVmap(fake)
    base = fake.take(PAGE << order, PAGE << order)
    head = fake.pfn(base)
    fake.page(head, flags=PG_HEAD if order else 0, mapcount=mapcount, mapping=mapping)
    if order:
        fake.pages[(head - fake.first_pfn + 1) * STRUCT_PAGE] = order
    for number in range(1, 1 << order):
        flags = order if number == 1 else 0
        fake.page(head + number, flags=flags, slab_cache=fake.struct_page(head) | 1, mapcount=MAPCOUNT_NONE, refcount=0)
    return base


def told(fake: FakeKernel, address: int) -> Layer:
    (layer,) = BlockLocator(fake.kernel).locate(address)
    return layer


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_a_block_that_may_be_a_kmalloc(machine: Machine) -> None:
    fake = FakeKernel(machine)
    base = planted(fake)
    for offset in (0, PAGE, 4 * PAGE - 1):
        layer = told(fake, base + offset)
        assert (layer.kind, layer.name, layer.start, layer.end) == ("block", "compound block", base, base + 4 * PAGE)
        assert layer.details == {"head": fake.pfn(base), "order": 2, "large_kmalloc": None}
    assert KIND.words(layer)[0].startswith("compound block  order 2  may be a large kmalloc (a guess) ")
    assert KIND.phrase(layer, 0x2345) == "compound block+0x2345"
    assert list(BlockLocator(fake.kernel).locate(base + 4 * PAGE)) == []


def test_a_kernel_that_marks_them() -> None:
    fake = FakeKernel()
    fake.enum("pagetype", PGTY_buddy=0xF0, PGTY_slab=0xF5, PGTY_large_kmalloc=0xF8, PGTY_mapcount_underflow=0xFF)
    base, other = planted(fake, mapcount=PGTY_LARGE_KMALLOC), planted(fake)
    layer = told(fake, base + 0x2345)
    assert (layer.name, layer.details["large_kmalloc"]) == ("large kmalloc", True)
    assert KIND.phrase(layer, 0x2345) == "large kmalloc+0x2345"
    layer = told(fake, other)
    assert (layer.name, layer.details["large_kmalloc"]) == ("compound block", False)
    assert "guess" not in KIND.words(layer)[0]


@pytest.mark.parametrize("values", [{"order": 0}, {"mapcount": PGTY_SLAB}, {"mapping": 1}, {"mapping": 0x1000}])
def test_pages_of_others(values: dict[str, int]) -> None:
    """A single page, a slab, anonymous memory, a file's."""
    fake = FakeKernel()
    assert list(BlockLocator(fake.kernel).locate(planted(fake, **values))) == []
