"""x86_64 page tables, walked in physical memory: 4 and 5 levels, pages of 4 KiB, 2 MiB and 1 GiB.

Layout of the entries: Intel SDM vol. 3, 4.5 "4-Level Paging and 5-Level Paging".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_PRESENT, _WRITABLE, _LARGE, _NO_EXECUTE = 1 << 0, 1 << 1, 1 << 7, 1 << 63
_ADDRESS = 0x000FFFFFFFFFF000


@dataclass(frozen=True)
class Tables:
    """One set of page tables: the physical address of the top one, its depth, and whether NX means anything."""

    root: int
    levels: int
    no_execute: bool = True


@dataclass(frozen=True)
class Translation:
    """Where an address leads: the physical address, how many bytes lie behind it in its page, the page's rights."""

    physical: int
    room: int
    permissions: str


def translate(read: Callable[[int], int], tables: Tables, address: int) -> Translation | None:
    """The translation of a virtual address, or None where nothing is mapped.

    `read` gives the 8 bytes of an entry at a physical address as a number. Memory that is no page table can be walked
    too: the walk is at most 5 reads long, whatever they say.
    """
    table = tables.root & _ADDRESS
    writable = executable = True
    for level in range(tables.levels - 1, -1, -1):
        shift = 12 + 9 * level
        entry = read(table + (address >> shift & 0x1FF) * 8)
        if not entry & _PRESENT:
            return None
        writable = writable and bool(entry & _WRITABLE)
        executable = executable and not (tables.no_execute and entry & _NO_EXECUTE)
        if level == 0 or (entry & _LARGE and level in (1, 2)):
            size = 1 << shift
            base = entry & _ADDRESS & ~(size - 1)
            offset = address & (size - 1)
            rights = f"r{'w' if writable else '-'}{'x' if executable else '-'}"
            return Translation(base | offset, size - offset, rights)
        table = entry & _ADDRESS
    return None
