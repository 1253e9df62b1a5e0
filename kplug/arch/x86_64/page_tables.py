"""x86_64 page tables: 4 and 5 levels, pages of 4 KiB, 2 MiB and 1 GiB.

Layout of the entries: Intel SDM vol. 3, 4.5 "4-Level Paging and 5-Level Paging".
"""

from __future__ import annotations

from kplug.arch.types.page_tables import ReadEntry, Translation
from kplug.frozen import Frozen

_ENTRY_BYTES = 8
_PRESENT, _WRITABLE, _LARGE, _NO_EXECUTE = 1 << 0, 1 << 1, 1 << 7, 1 << 63
_ADDRESS = 0x000FFFFFFFFFF000


class Tables(Frozen):
    """One set of page tables: the physical address of the top one, its depth, and whether NX means anything.

    `encryption` is the bit that marks encrypted memory (AMD SME), which is not part of an address; 0 if there is none.
    """

    root: int
    levels: int
    no_execute: bool = True
    encryption: int = 0

    entries = top_entries = 512
    entry_size = _ENTRY_BYTES

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None if it is not mapped."""
        above = address >> 11 + 9 * self.levels  # the highest bit that is translated, and those above, which repeat it
        if above and above != (1 << 64 - 11 - 9 * self.levels) - 1:
            return None
        in_address = _ADDRESS & ~self.encryption
        table = self.root & in_address
        writable = executable = True
        for level in range(self.levels - 1, -1, -1):
            shift = 12 + 9 * level
            entry = read(table + (address >> shift & 0x1FF) * _ENTRY_BYTES)
            if not entry & _PRESENT:
                return None
            writable = writable and bool(entry & _WRITABLE)
            executable = executable and not (self.no_execute and entry & _NO_EXECUTE)
            if _is_page(entry, level):
                size = 1 << shift
                base = entry & in_address & ~(size - 1)
                offset = address & (size - 1)
                rights = f"r{'w' if writable else '-'}{'x' if executable else '-'}"
                return Translation(base | offset, size - offset, rights, size, level)
            table = entry & in_address
        return None

    def table_below(self, entry: int, level: int) -> int | None:
        """The table that an entry points to, or None."""
        if not entry & _PRESENT or _is_page(entry, level):
            return None
        return entry & _ADDRESS & ~self.encryption

    def page_at(self, entry: int, level: int) -> int | None:
        """The physical address of the page that an entry maps, or None."""
        if not entry & _PRESENT or not _is_page(entry, level):
            return None
        return entry & _ADDRESS & ~self.encryption & -(1 << 12 + 9 * level)


def _is_page(entry: int, level: int) -> bool:
    return level == 0 or bool(entry & _LARGE and level in (1, 2))
