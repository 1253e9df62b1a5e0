"""arm page tables of the short-descriptor format: pages of 4 KiB and 64 KiB, sections of 1 MiB and 16 MiB.

Layout of the descriptors: Arm Architecture Reference Manual ARMv7-A, B3.5 "Short-descriptor translation table format".
"""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.aarch64.page_tables import Tables as LongTables
from kplug.arch.types.page_tables import Paging, PagingSources, ReadEntry, Translation
from kplug.frozen import Frozen

_MOST = (1 << 32) - 1
_SUPERSECTION = 1 << 18
_SHIFTS = (12, 20)


class Tables(Frozen):
    """One set of page tables: the physical address of the first-level table, and of that for addresses whose upper
    `split` bits are not all 0 (TTBR1), which there is if `split` is not 0.
    """

    root: int
    upper_root: int = 0
    split: int = 0

    levels = 2
    entries, top_entries = 256, 4096
    entry_size = 4

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None if it is not mapped."""
        if address > _MOST:
            return None
        is_upper = bool(self.split and address >> 32 - self.split)
        entry = read((self.upper_root if is_upper else self.root) + (address >> 20) * 4)
        level = 1
        if entry & 3 == 1:
            entry, level = read((entry & 0xFFFFFC00) + (address >> 12 & 0xFF) * 4), 0
        page = self.page_at(entry, level)
        if page is None:
            return None
        size = _size(entry, level)
        if level:
            read_only, never_executed = entry >> 15 & 1, entry >> 4 & 1
        else:
            read_only, never_executed = entry >> 9 & 1, entry >> (0 if entry & 2 else 15) & 1
        rights = f"r{'-' if read_only else 'w'}{'-' if never_executed else 'x'}"
        within = address & size - 1
        return Translation(page | within, size - within, rights, size, level)

    def table_below(self, entry: int, level: int) -> int | None:
        """The table that an entry points to, or None."""
        return entry & 0xFFFFFC00 if level == 1 and entry & 3 == 1 else None

    def page_at(self, entry: int, level: int) -> int | None:
        """The physical address of the page that an entry maps, or None."""
        if entry & 3 == 0 or (level == 1 and not entry & 2):
            return None
        page = entry & -_size(entry, level) & _MOST
        if level and entry & _SUPERSECTION:
            page |= (entry >> 20 & 0xF) << 32 | (entry >> 5 & 0xF) << 36
        return page


def _size(entry: int, level: int) -> int:
    if level:
        return 16 << 20 if entry & _SUPERSECTION else 1 << 20
    return 4 << 10 if entry & 2 else 64 << 10


PAGE_OFFSET = 0xC0000000  # CONFIG_PAGE_OFFSET; rarely something else (CONFIG_VMSPLIT_...)
_MODULES = PAGE_OFFSET - (16 << 20)  # TASK_SIZE: modules are right below the kernel (arch/arm/include/asm/memory.h)


def paging(sources: PagingSources) -> Paging:
    """See `Architecture.paging`. The image is in the direct map, which begins with memory itself (PHYS_OFFSET)."""
    start = sources.ram_start
    if start is None:
        page = sources.variable("__pv_phys_pfn_offset")  # none in a kernel for one kind of board only
        start = None if page is None else page << 12
    offset = None if start is None else PAGE_OFFSET - start
    top = sources.symbol("swapper_pg_dir")
    low = sources.variable("max_low_pfn", image_offset=offset) if offset is not None else None
    direct_map = None
    if low and offset is not None:
        direct_map = range(PAGE_OFFSET, min((low << 12) + offset, 1 << 32))
    long = sources.others.get("CONFIG_ARM_LPAE") == "y"
    return Paging(
        page_shift=12,
        address_bits=32,
        image=sources.image,
        image_offset=offset,
        direct_map=direct_map,
        direct_offset=offset,
        root=None if top is None or offset is None else top - offset,
        # The long descriptors are those of arm64, with 32 bits of virtual address and one bit against execution.
        tables=lambda root, _user: LongTables(root, 32, 12, user=True) if long else Tables(root),
        upper_half=_MODULES,
        kernel_start=_MODULES,
        shifts=() if long else _SHIFTS,
    )


# ARMv7-A, B4.1.130 "SCTLR": M; B4.1.153 "TTBCR": EAE (the long-descriptor format), N.
_SCTLR_MMU, _TTBCR_LONG, _TTBCR_SPLIT = 1 << 0, 1 << 31, 7


def cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    """See `Architecture.cpu_tables`. The kernel is in every task's tables."""
    control, low, high, how = (register(name) for name in ("SCTLR", "TTBR0", "TTBR1", "TTBCR"))
    if control is None or low is None or high is None or how is None or not control & _SCTLR_MMU or how & _TTBCR_LONG:
        return None
    split = how & _TTBCR_SPLIT
    return Tables(low & -(1 << 14 - split) & _MOST, high & 0xFFFFC000, split)
