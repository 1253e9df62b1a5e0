"""riscv64 page tables: Sv39, Sv48 and Sv57, and how a kernel maps its memory by them.

Layout of the entries: RISC-V privileged architecture, "Sv39: Page-Based 39-bit Virtual-Memory System", and Svnapot for
64 KiB in 16 entries of the lowest level.
"""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.types.page_tables import Paging, PagingSources, ReadEntry, Translation
from kplug.frozen import Frozen

_VALID, _READ, _WRITE, _EXECUTE = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_LEAF = _READ | _WRITE | _EXECUTE
_NAPOT = 1 << 63
_NAPOT_SIZE = 64 << 10
_PAGE_NUMBERS = (1 << 44) - 1  # from bit 10 on
_PER_LEVEL, _PAGE_SHIFT = 9, 12


class Tables(Frozen):
    """One set of page tables: the physical address of the top one, and how many levels there are."""

    root: int
    levels: int

    entry_size = 8
    entries = top_entries = 1 << _PER_LEVEL

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None if it is not mapped."""
        top = _PAGE_SHIFT + _PER_LEVEL * self.levels - 1
        if address >> top not in (0, (1 << 64 - top) - 1):
            return None
        table = self.root
        for level in range(self.levels - 1, -1, -1):
            shift = _PAGE_SHIFT + _PER_LEVEL * level
            entry = read(table + (address >> shift & self.entries - 1) * self.entry_size)
            page = self.page_at(entry, level)
            if page is not None:
                size = _NAPOT_SIZE if entry & _NAPOT and level == 0 else 1 << shift
                within = address & size - 1
                rights = "".join(
                    letter if entry & bit else "-" for letter, bit in zip("rwx", (_READ, _WRITE, _EXECUTE))
                )
                return Translation(page & -size | within, size - within, rights, size, level)
            below = self.table_below(entry, level)
            if below is None:
                return None
            table = below
        return None

    def table_below(self, entry: int, level: int) -> int | None:
        """The table that an entry points to, or None."""
        return _output(entry) if level and entry & _VALID and not entry & _LEAF else None

    def page_at(self, entry: int, level: int) -> int | None:
        """The physical address of the page that an entry maps, or None."""
        if not entry & _VALID or not entry & _LEAF:
            return None
        return _output(entry) & -(1 << _PAGE_SHIFT + _PER_LEVEL * level)


def _output(entry: int) -> int:
    return (entry >> 10 & _PAGE_NUMBERS) << _PAGE_SHIFT


def paging(sources: PagingSources) -> Paging:
    """See `Architecture.paging`."""
    numbers = sources.numbers
    bits = sources.facts.va_bits or 39
    offset = sources.facts.kimage_voffset
    start, physical_start = sources.facts.page_offset_base, numbers.get("phys_ram_base")
    direct_map = direct_offset = None
    max_pfn = sources.facts.max_pfn or sources.variable("max_pfn", image_offset=offset)
    if start is not None and physical_start is not None:
        direct_offset = start - physical_start
        end = start + (1 << bits - 2)
        direct_map = range(start, min(end, (max_pfn << _PAGE_SHIFT) + direct_offset) if max_pfn else end)
    top = sources.symbol("swapper_pg_dir")
    levels = (bits - _PAGE_SHIFT) // _PER_LEVEL
    return Paging(
        page_shift=_PAGE_SHIFT,
        address_bits=bits,
        image=sources.image,
        image_offset=offset,
        direct_map=direct_map,
        direct_offset=direct_offset,
        root=None if top is None or offset is None else top - offset,
        tables=lambda root, _user: Tables(root, levels),
        upper_half=(1 << 64) - (1 << bits - 1),
    )


_LEVELS_OF_MODE = {8: 3, 9: 4, 10: 5}  # satp's MODE: Sv39, Sv48, Sv57


def cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    """See `Architecture.cpu_tables`. The kernel is in every program's tables."""
    satp = register("satp")
    levels = _LEVELS_OF_MODE.get(satp >> 60) if satp is not None else None
    return None if satp is None or levels is None else Tables((satp & _PAGE_NUMBERS) << _PAGE_SHIFT, levels)
