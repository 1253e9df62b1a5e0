"""i386 page tables: PAE's three levels with pages of 4 KiB and 2 MiB, and the older two with 4 KiB and 4 MiB.

Layout of the entries: Intel SDM vol. 3, 4.3 "32-Bit Paging" and 4.4 "PAE Paging".
"""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.types.page_tables import Paging, PagingSources, ReadEntry, Translation
from kplug.frozen import Frozen

_PRESENT, _WRITABLE, _LARGE, _NO_EXECUTE = 1 << 0, 1 << 1, 1 << 7, 1 << 63
_MOST = (1 << 32) - 1


class Tables(Frozen):
    """One set of page tables: the physical address of the top one, and whether its entries are PAE's."""

    root: int
    pae: bool
    no_execute: bool = True

    @property
    def levels(self) -> int:
        return 3 if self.pae else 2

    @property
    def entries(self) -> int:
        return 512 if self.pae else 1024

    @property
    def top_entries(self) -> int:
        return 4 if self.pae else 1024

    @property
    def entry_size(self) -> int:
        return 8 if self.pae else 4

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None if it is not mapped."""
        if address > _MOST:
            return None
        table, writable, executable = self.root, True, True
        for level in range(self.levels - 1, -1, -1):
            shift = self._shift(level)
            entry = read(table + (address >> shift & self.entries - 1) * self.entry_size)
            if not entry & _PRESENT:
                return None
            if level < 2:  # the four entries at PAE's top have no permissions
                writable = writable and bool(entry & _WRITABLE)
                executable = executable and not (self.pae and self.no_execute and entry & _NO_EXECUTE)
            page = self.page_at(entry, level)
            if page is not None:
                offset = address & (1 << shift) - 1
                rights = f"r{'w' if writable else '-'}{'x' if executable else '-'}"
                return Translation(page | offset, (1 << shift) - offset, rights, 1 << shift, level)
            table = entry & self._in_address
        return None

    def table_below(self, entry: int, level: int) -> int | None:
        """The table that an entry points to, or None."""
        return entry & self._in_address if entry & _PRESENT and not _is_page(entry, level) else None

    def page_at(self, entry: int, level: int) -> int | None:
        """The physical address of the page that an entry maps, or None."""
        if not entry & _PRESENT or not _is_page(entry, level):
            return None
        page = entry & self._in_address & -(1 << self._shift(level))
        if level and not self.pae:
            page |= (entry >> 13 & 0xFF) << 32  # PSE-36
        return page

    def _shift(self, level: int) -> int:
        return 12 + (9 if self.pae else 10) * level

    @property
    def _in_address(self) -> int:
        return 0x000FFFFFFFFFF000 if self.pae else 0xFFFFF000


def _is_page(entry: int, level: int) -> bool:
    return level == 0 or (level == 1 and bool(entry & _LARGE))


PAGE_OFFSET = 0xC0000000  # CONFIG_PAGE_OFFSET; rarely something else (CONFIG_VMSPLIT_...)


def paging(sources: PagingSources) -> Paging:
    """See `Architecture.paging`. The image is in the direct map, and KASLR moves it by the same in both."""
    pae = sources.others.get("CONFIG_X86_PAE") == "y"
    top = sources.symbol("swapper_pg_dir")
    low = sources.variable("max_low_pfn", image_offset=PAGE_OFFSET)
    return Paging(
        page_shift=12,
        address_bits=32,
        image=sources.image,
        image_offset=PAGE_OFFSET,
        direct_map=range(PAGE_OFFSET, min(PAGE_OFFSET + (low << 12), 1 << 32)) if low else None,
        direct_offset=PAGE_OFFSET,
        root=None if top is None else top - PAGE_OFFSET,
        tables=lambda root, _user: Tables(root, pae),
        upper_half=PAGE_OFFSET,
        kernel_start=PAGE_OFFSET,
    )


# Control register bits (Intel SDM vol. 3, 2.5 "Control Registers"; EFER: 2.2.1).
_CR0_PAGING, _CR4_PAE, _EFER_NO_EXECUTE = 1 << 31, 1 << 5, 1 << 11
# The user's page tables are the page after the kernel's (PTI_SWITCH_MASK, arch/x86/entry/entry_32.S).
_CR3_USER_TABLES = 1 << 12


def cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    """See `Architecture.cpu_tables`."""
    cr0, cr3, cr4, efer = (register(name) for name in ("cr0", "cr3", "cr4", "efer"))
    if cr0 is None or cr3 is None or cr4 is None or not cr0 & _CR0_PAGING:
        return None
    pae = bool(cr4 & _CR4_PAE)
    root = cr3 & (0xFFFFFFE0 if pae else 0xFFFFF000)
    return Tables(root & ~_CR3_USER_TABLES if kernel else root, pae, efer is None or bool(efer & _EFER_NO_EXECUTE))
