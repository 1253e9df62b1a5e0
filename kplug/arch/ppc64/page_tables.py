"""ppc64 page tables of the radix MMU, and how a kernel maps its memory by them; a hashed page table is no tree.

Layout of the entries: Power ISA, Book III, "Radix Tree Page Table"; the kernel's radix tree is of 52 bits
(arch/powerpc/include/asm/book3s/64/radix-{4k,64k}.h).
"""

from __future__ import annotations

from kplug.arch.types.page_tables import Paging, PagingSources, ReadEntry, Translation
from kplug.frozen import Frozen

PAGE_OFFSET = 0xC000000000000000  # CONFIG_PAGE_OFFSET, and where every kernel for servers runs
_BITS = 52
_SHIFTS = (21, 30, 39)  # of the levels above the lowest
_VALID, _LEAF = 1 << 63, 1 << 62
_READ, _WRITE, _EXECUTE = 1 << 2, 1 << 1, 1 << 0
_PAGE, _TABLE = (1 << 53) - (1 << 12), (1 << 60) - (1 << 8)


class Tables(Frozen):
    """One set of page tables: the physical address of the top one, the page size as a shift, and whether the kernel is
    little-endian: entries are big-endian always.
    """

    root: int
    page_shift: int
    swapped: bool

    levels = 4
    entry_size = 8
    entries = 1 << 9
    top_entries = 1 << _BITS - _SHIFTS[-1]

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None if it is not mapped."""
        address &= (1 << _BITS) - 1
        table = self.root
        for level in range(self.levels - 1, -1, -1):
            shift = self._shift(level)
            above = _BITS if level == self.levels - 1 else self._shift(level + 1)
            raw = read(table + (address >> shift & (1 << above - shift) - 1) * self.entry_size)
            page = self.page_at(raw, level)
            if page is not None:
                size, entry = 1 << shift, self._entry(raw)
                within = address & size - 1
                rights = "".join(
                    letter if entry & bit else "-" for letter, bit in zip("rwx", (_READ, _WRITE, _EXECUTE))
                )
                return Translation(page | within, size - within, rights, size, level)
            below = self.table_below(raw, level)
            if below is None:
                return None
            table = below
        return None

    def table_below(self, raw: int, level: int) -> int | None:
        """The table that an entry points to, or None."""
        entry = self._entry(raw)
        return entry & _TABLE if level and entry & _VALID and not entry & _LEAF else None

    def page_at(self, raw: int, level: int) -> int | None:
        """The physical address of the page that an entry maps, or None."""
        entry = self._entry(raw)
        if not entry & _VALID or not entry & _LEAF:
            return None
        return entry & _PAGE & -(1 << self._shift(level))

    def _shift(self, level: int) -> int:
        return (self.page_shift, *_SHIFTS)[level]

    def _entry(self, raw: int) -> int:
        return int.from_bytes(raw.to_bytes(8, "little"), "big") if self.swapped else raw


def paging(sources: PagingSources) -> Paging:
    """See `Architecture.paging`. The image is in the direct map."""
    shift = (sources.page_size or 4096).bit_length() - 1
    max_pfn = sources.facts.max_pfn or sources.variable("max_pfn", image_offset=PAGE_OFFSET)
    # 36e826b568e4 (6.7): before, VMCOREINFO does not say which MMU it is.
    top = sources.symbol("swapper_pg_dir") if sources.numbers.get("RADIX_MMU") else None
    little_endian = sources.little_endian
    return Paging(
        page_shift=shift,
        address_bits=_BITS,
        image=sources.image,
        image_offset=PAGE_OFFSET,
        direct_map=range(PAGE_OFFSET, PAGE_OFFSET + (max_pfn << shift)) if max_pfn else None,
        direct_offset=PAGE_OFFSET,
        root=None if top is None else top - PAGE_OFFSET,
        tables=lambda root, _user: Tables(root, shift, little_endian),
        upper_half=PAGE_OFFSET,
        tables_start=PAGE_OFFSET,
        shifts=(shift, *_SHIFTS),
        lowest_entries=1 << _SHIFTS[0] - shift,
    )
