"""Addresses that cannot be read because they are in a part of a split dump that is not there.

Where kplug opens the dump, it has drgn say so. A Program that somebody else opened calls such a page excluded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kplug.errors import TargetError
from kplug.memory.reading import MissingPartError, entry_reader
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.tables.translation import noted_paging


def in_missing_parts(missing: Sequence[range]) -> Callable[[Kernel, int], bool]:
    """Whether an address that cannot be read is in one of these ranges of physical memory. A virtual one is, too, if
    a page table that leads to it is there.
    """

    def is_there(physical: int) -> bool:
        return any(physical in each for each in missing)

    def is_missing(kernel: Kernel, address: int) -> bool:
        if not kernel.word.is_kernel(address):
            return is_there(address)
        # What memory tells of the mappings may be what could not be read.
        paging = noted_paging(kernel) if missing else None
        if paging is None or paging.root is None:
            return False
        in_image = paging.image is not None and address in paging.image
        if in_image and paging.image_offset is not None and is_there(address - paging.image_offset):
            return True
        entry = entry_reader(kernel.read_physical, paging.entry_size, kernel.word.order)
        try:
            found = paging.tables(paging.root, False).translate(entry, address)
        except TargetError as error:
            return isinstance(error, MissingPartError)
        return found is not None and is_there(found.physical)

    return is_missing
