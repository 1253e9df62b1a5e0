"""arm64 page tables (stage 1): pages of 4, 16 and 64 KiB, blocks, 36 to 52 bits of virtual address.

Layout of the entries: Arm Architecture Reference Manual, D8.3 "Translation table descriptor formats". The contiguous
hint changes no translation; a run of entries with it is reported as single pages.
"""

from __future__ import annotations

from functools import cached_property

from kplug.arch.types.page_tables import ReadEntry, Translation
from kplug.frozen import Frozen

_ENTRY_BYTES = 8
_VALID, _TABLE_OR_PAGE = 1 << 0, 1 << 1
_READ_ONLY, _DIRTY_MANAGED = 1 << 7, 1 << 51  # AP[2], DBM: a clean, writable page
_PRIVILEGED_NO_EXECUTE, _USER_NO_EXECUTE = 1 << 53, 1 << 54
# Permissions that an upper table's entry removes from everything below it.
_TABLE_PRIVILEGED_NO_EXECUTE, _TABLE_USER_NO_EXECUTE, _TABLE_READ_ONLY = 1 << 59, 1 << 60, 1 << 62


class Tables(Frozen):
    """One set of page tables: the top one's physical address, the number of address bits that they translate, the page
    size as a shift, and whether execution is meant for user or kernel mode.

    `wide`: 52-bit physical addresses in tables of 4 and 16 KiB pages (FEAT_LPA2), which the kernel uses if and only if
    it has 52 bits of virtual address with them.
    """

    root: int
    address_bits: int
    page_shift: int
    user: bool = False

    entry_size = _ENTRY_BYTES

    @property
    def wide(self) -> bool:
        return self.page_shift < 16 and self.address_bits > 48

    @property
    def levels(self) -> int:
        per_level = self.page_shift - 3
        return -(-(self.address_bits - self.page_shift) // per_level)

    @property
    def entries(self) -> int:
        return 1 << self.page_shift - 3

    @property
    def top_entries(self) -> int:
        return 1 << self.address_bits - self.page_shift - (self.page_shift - 3) * (self.levels - 1)

    @cached_property
    def _lowest_address_mask(self) -> int:
        top = 50 if self.wide else 48
        return (1 << top) - (1 << self.page_shift)

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None if it is not mapped."""
        per_level = self.page_shift - 3
        # The bits above choose between the program's tables and the kernel's.
        if address >> self.address_bits != (0 if self.user else (1 << 64 - self.address_bits) - 1):
            return None
        address &= (1 << self.address_bits) - 1
        table, writable, executable = self.root, True, True
        for level in range(self.levels - 1, -1, -1):
            shift = self.page_shift + per_level * level
            # The top table may be shorter than the others, if the address has fewer bits for it.
            entry = read(table + (address >> shift & (1 << per_level) - 1) * _ENTRY_BYTES)
            if not entry & _VALID:
                return None
            if self._is_page(entry, level):
                no_execute = _USER_NO_EXECUTE if self.user else _PRIVILEGED_NO_EXECUTE
                writable = writable and (not entry & _READ_ONLY or bool(entry & _DIRTY_MANAGED))
                executable = executable and not entry & no_execute
                size = 1 << shift
                offset = address & (size - 1)
                rights = f"r{'w' if writable else '-'}{'x' if executable else '-'}"
                return Translation(self._output(entry) & ~(size - 1) | offset, size - offset, rights, size, level)
            below = self.table_below(entry, level)
            if below is None:
                return None
            no_execute = _TABLE_USER_NO_EXECUTE if self.user else _TABLE_PRIVILEGED_NO_EXECUTE
            writable = writable and not entry & _TABLE_READ_ONLY
            executable = executable and not entry & no_execute
            table = below
        return None

    def table_below(self, entry: int, level: int) -> int | None:
        """The table that an entry points to, or None."""
        if not entry & _VALID or not entry & _TABLE_OR_PAGE or level == 0:
            return None
        return self._output(entry)

    def page_at(self, entry: int, level: int) -> int | None:
        """The physical address of the page that an entry maps, or None."""
        if not entry & _VALID or not self._is_page(entry, level):
            return None
        return self._output(entry) & -(1 << self.page_shift + (self.page_shift - 3) * level)

    def _is_page(self, entry: int, level: int) -> bool:
        """Whether a valid entry maps memory. At the lowest level only with both bits: 0b01 is reserved there."""
        if level == 0:
            return bool(entry & _TABLE_OR_PAGE)
        # D8.3: blocks exist at these levels; at the topmost ones only with 52-bit physical addresses.
        most = {12: 2, 14: 1, 16: 2}.get(self.page_shift, 1) + self.wide
        return not entry & _TABLE_OR_PAGE and level <= most

    def _output(self, entry: int) -> int:
        physical = entry & self._lowest_address_mask
        if self.wide:
            physical |= (entry >> 8 & 0x3) << 50
        elif self.page_shift == 16:
            physical |= (entry >> 12 & 0xF) << 48
        return physical
