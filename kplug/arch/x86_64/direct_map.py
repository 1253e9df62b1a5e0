"""Where the direct map is, from the page tables that map it."""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.types.memory_map import AddressSpaceFacts
from kplug.errors import TargetError

# Entries of x86's page tables.
_PRESENT, _LARGE, _FRAME = 1, 1 << 7, 0x000FFFFFFFFFF000
_START_KERNEL_MAP = 0xFFFFFFFF80000000


def mapped_page_offset(
    root: int, facts: AddressSpaceFacts, encrypted: int, read_physical: Callable[[int, int], bytes]
) -> int | None:
    """page_offset_base, from the kernel's page tables: the direct map is the lowest area of the kernel that they map,
    and has the same distance from physical addresses everywhere. None if they cannot be read.
    """
    if facts.phys_base is None or facts.pgtable_l5_enabled is None:
        return None
    levels = 5 if facts.pgtable_l5_enabled else 4
    shift = 12 + 9 * (levels - 1)
    table, address = root - _START_KERNEL_MAP + facts.phys_base, ((1 << 64) - 1) << (shift + 9) & (1 << 64) - 1
    first = 256 + 17  # after the guard hole and the LDT remap, with 4 and with 5 levels
    while True:
        try:
            entries = memoryview(read_physical(table, 4096)).cast("Q")
        except TargetError:
            return None
        index = next((index for index in range(first, 512) if entries[index] & _PRESENT), None)
        if index is None:
            return None
        address |= index << shift
        frame = entries[index] & _FRAME & ~encrypted
        if shift == 12 or (shift < 39 and entries[index] & _LARGE):
            base = address - (frame >> shift << shift)
            return base if base % (1 << 30) == 0 else None
        table, shift, first = frame, shift - 9, 0
