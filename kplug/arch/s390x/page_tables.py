"""s390x page tables (dynamic address translation), and how a kernel maps its memory by them.

Layout of the entries: z/Architecture Principles of Operation, "Translation Tables".
"""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.types.page_tables import Paging, PagingSources, ReadEntry, Translation
from kplug.frozen import Frozen

_SHIFTS = (12, 20, 31, 42, 53)  # of page, segment, and the three region tables
_INVALID, _PAGE_INVALID = 1 << 5, 1 << 10
_LARGE = 1 << 10  # FC: in segment tables pages of 1 MiB, in those of region 3 of 2 GiB
_PROTECTED, _NO_EXECUTE = 1 << 9, 1 << 8
_PAGE_TABLE, _TABLE = (1 << 64) - (1 << 11), (1 << 64) - (1 << 12)


class Tables(Frozen):
    """One set of page tables: the physical address of the top one, and how many levels there are."""

    root: int
    levels: int

    entry_size = 8
    entries = top_entries = 1 << 11

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None if it is not mapped."""
        if address >> _SHIFTS[self.levels - 1] + 11:
            return None
        table, writable, executable = self.root, True, True
        for level in range(self.levels - 1, -1, -1):
            shift = _SHIFTS[level]
            entry = read(table + (address >> shift & (self.entries - 1 if level else 255)) * self.entry_size)
            writable = writable and not entry & _PROTECTED
            page = self.page_at(entry, level)
            if page is not None:
                executable = executable and not entry & _NO_EXECUTE
                within = address & (1 << shift) - 1
                rights = f"r{'w' if writable else '-'}{'x' if executable else '-'}"
                return Translation(page | within, (1 << shift) - within, rights, 1 << shift, level)
            below = self.table_below(entry, level)
            if below is None:
                return None
            table = below
        return None

    def table_below(self, entry: int, level: int) -> int | None:
        """The table that an entry points to, or None."""
        if not level or entry & _INVALID or (level <= 2 and entry & _LARGE):
            return None
        return entry & (_PAGE_TABLE if level == 1 else _TABLE)

    def page_at(self, entry: int, level: int) -> int | None:
        """The physical address of the page that an entry maps, or None."""
        if level == 0:
            return None if entry & _PAGE_INVALID else entry & _TABLE
        if level > 2 or entry & _INVALID or not entry & _LARGE:
            return None
        return entry & -(1 << _SHIFTS[level])


def paging(sources: PagingSources) -> Paging:
    """See `Architecture.paging`. Programs have address spaces of their own: no address is theirs alone."""

    def noted(name: str) -> int | None:
        text = sources.others.get(name, "")
        return int(text, 16) if text else None

    # c98d2ecae08f (6.10) moved the kernel apart from the memory that is mapped as it is; before, all of it was.
    moved, physical = noted("KERNELOFFSET"), noted("KERNELOFFPHYS")
    offset = moved - physical if moved is not None and physical is not None else 0
    identity = noted("IDENTITYBASE") or 0
    max_pfn = sources.facts.max_pfn or sources.variable("max_pfn", image_offset=offset)
    top = sources.symbol("swapper_pg_dir")
    highest = max(top or 0, sources.numbers.get("VMALLOC_START", 0))
    levels = 3 if highest < 1 << _SHIFTS[3] else 4  # the kernel is near the end of what its tables translate
    return Paging(
        page_shift=12,
        address_bits=_SHIFTS[levels],
        image=sources.image,
        image_offset=offset,
        direct_map=range(identity, identity + (max_pfn << 12)) if max_pfn else None,
        direct_offset=identity,
        root=None if top is None else top - offset,
        tables=lambda root, _user: Tables(root, levels),
        upper_half=0,
        kernel_start=0,
        tables_start=0,
        shifts=_SHIFTS,
        lowest_entries=256,
    )


_REAL_SPACE = 1 << 5
# The control register of the address space that bits 16 and 17 of the PSW select: the primary, secondary and home one
# (Principles of Operation, "Translation Modes"); not the one that is chosen by access registers.
_SPACES = {0: "cr1", 2: "cr7", 3: "cr13"}
_HOME = 3


def cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    """See `Architecture.cpu_tables`: the kernel's are of the home space; programs run in the primary one."""
    mask = register("pswm")
    space = _SPACES.get(_HOME if kernel else 0 if mask is None else mask >> 46 & 3)
    control = register(space) if space is not None else None
    if control is None or control & _REAL_SPACE:
        return None
    return Tables(control & _TABLE, 2 + (control >> 2 & 3))


_LOWCORE = 8192


def absolute(prefix: int, real: int, room: int) -> tuple[int, int]:
    """See `Architecture.absolute`: the first 8 KiB of memory and a CPU's prefix area change places (Principles of
    Operation, "Prefixing"). `real` and the bytes after it are of one page.
    """
    area = real // _LOWCORE * _LOWCORE
    room = min(room, area + _LOWCORE - real) if prefix else room
    if area == 0:
        return real + prefix, room
    return (real - prefix if area == prefix else real), room
