"""The virtual memory map of ppc64: arch/powerpc/include/asm/book3s/64/{radix,hash,hash-4k,hash-64k,pgtable}.h.

Since 5.2 it is the same with the radix MMU and with the hashed one, but for a hashed one with pages of 4 KiB. Which one
a machine has is decided when it boots; the variables that hold the bounds tell.
"""

from __future__ import annotations

from collections.abc import Iterator

from kplug.arch.types.memory_map import (
    DIRECT_MAP,
    IOREMAP,
    NON_CANONICAL,
    TOP,
    USER,
    VMALLOC,
    VMEMMAP,
    AddressSpace,
    AddressSpaceFacts,
    Area,
    whole,
)
from kplug.named_tuples import NamedTuple

PAGE_OFFSET = 0xC000000000000000  # CONFIG_PAGE_OFFSET of all 64-bit servers
_USER_END, _USER_END_4K = 1 << 52, 1 << 46  # TASK_SIZE_USER64; the second with pages of 4 KiB
_KASAN_SHADOW = 0xC00E000000000000, 0xC00FC00000000000
_ISA_IO, _ALL_IO, _FIXADDR_SIZE = 0x10000, 0x80000000, 32 << 20


class _Bounds(NamedTuple):
    """Where vmalloc starts, and the size of each of vmalloc, I/O and vmemmap."""

    vmalloc: int
    size: int

    def area(self, number: int) -> tuple[int, int]:
        return self.vmalloc + number * self.size, self.vmalloc + (number + 1) * self.size


_WIDE = _Bounds(0xC008000000000000, 1 << 49)
_HASH_4K = _Bounds(0xC0003D0000000000, 1 << 40)


def address_space(facts: AddressSpaceFacts) -> AddressSpace:
    """The map of a ppc64 kernel."""
    bounds = _bounds(facts)
    mmu = {True: "radix MMU", False: "hashed MMU", None: "MMU not known"}[_is_radix(facts, bounds)]
    source = f"ppc64 layout of servers, {mmu}"
    warnings = facts.refused
    if bounds is None and facts.vmalloc_start is not None:
        said = f"__vmalloc_start is {facts.vmalloc_start:#x}, where no known layout has it: it is not used"
        warnings = (*warnings, said)
    areas = whole(list(_claims(facts, bounds, source)))
    return AddressSpace("ppc64", areas, f"ppc64, {mmu}", facts, None, facts.page_size, warnings)


def _bounds(facts: AddressSpaceFacts) -> _Bounds | None:
    """The layout, if it is known."""
    for bounds in (_WIDE, _HASH_4K):
        if facts.vmalloc_start == bounds.vmalloc:
            return bounds
    return _WIDE if facts.vmalloc_start is None and facts.radix else None


def _is_radix(facts: AddressSpaceFacts, bounds: _Bounds | None) -> bool | None:
    if facts.radix is not None:
        return facts.radix
    if bounds is _HASH_4K:
        return False
    return True if bounds is _WIDE and facts.page_size == 4096 else None


def _claims(facts: AddressSpaceFacts, known: _Bounds | None, source: str) -> Iterator[Area]:
    bounds = known or _WIDE
    yield Area("user", 0, _USER_END_4K if facts.page_size == 4096 else _USER_END, source, kind=USER)
    yield Area(NON_CANONICAL, _USER_END, PAGE_OFFSET, source, kind=NON_CANONICAL)
    if facts.is_server is False or (known is None and facts.vmalloc_start is not None):
        yield Area("kernel (layout not known)", PAGE_OFFSET, TOP, source)
        return
    if facts.kasan_shadow and bounds is _WIDE:
        yield Area("KASAN shadow", *_KASAN_SHADOW, source)
    known_by = source if known is None else "__vmalloc_start" if facts.vmalloc_start is not None else "RADIX_MMU"
    yield Area(VMALLOC, *bounds.area(0), known_by, details={"note": "also modules"})
    yield _io(*bounds.area(1), known_by)
    yield Area(VMEMMAP, *bounds.area(2), known_by)
    memory: dict[str, object] = {"also_called": "linear map"}
    if facts.max_pfn and facts.page_size and PAGE_OFFSET + facts.max_pfn * facts.page_size < bounds.vmalloc:
        memory["ram_end"] = f"{PAGE_OFFSET + facts.max_pfn * facts.page_size:#x}"
    # A kernel with pages of 4 KiB may find no radix MMU.
    others = tuple(
        Area(f"{name} (if the MMU is a hashed one and pages are of 4 KiB)", *_HASH_4K.area(number), source)
        for number, name in enumerate((VMALLOC, IOREMAP, VMEMMAP))
        if known is None
    )
    yield Area(DIRECT_MAP, PAGE_OFFSET, bounds.vmalloc, known_by, details=memory, parts=others)


def _io(start: int, end: int, source: str) -> Area:
    """The addresses of devices: ISA's, PCI's I/O space, ioremap(), the fixmap (arch/powerpc/.../pgtable.h)."""
    cuts = (start, start + _ISA_IO, start + _ALL_IO, end - _FIXADDR_SIZE)
    names = ("ISA I/O", "PCI I/O", "from IOREMAP_BASE")
    parts = tuple(Area(name, first, last, source) for name, first, last in zip(names, cuts, cuts[1:]))
    return Area(IOREMAP, start, end, source, details={"note": "devices; the fixmap at its end"}, parts=parts)
