"""Freed memory of the image: init sections, and x86's padding between text, rodata and data.

The kernel gives these pages to the page allocator once it has booted (free_initmem(), mark_rodata_ro()); their struct
pages are reserved up to then. An address there is answered as linked and as what has the page now.
"""

from __future__ import annotations

from kplug.lifetimes import UNTIL_MOVED, remembered
from kplug.memory.reading import try_read
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.tables.struct_page import pages_of
from kplug.runtime.tables.translation import page_tables


def is_freed(kernel: Kernel, address: int) -> bool | None:
    """Whether the kernel freed the image's page at an address. None where that is not known, or it is no image's.

    TargetError if the struct page cannot be read.
    """
    tables = page_tables(kernel)
    if kernel.image is None or not tables.in_image(address):
        return None
    piece = kernel.image.piece(address)
    if piece is not None and piece.freed_after_boot is False:
        return False
    pages, physical = pages_of(kernel), tables.linear_physical(address)
    if pages is None or physical is None or tables.paging is None:
        return None
    pfn = physical >> tables.paging.page_shift
    if not pages.exists(pfn):
        return None
    if pages.is_reserved(pfn):
        return False
    # Early in boot a struct page may just not be set up yet.
    return True if _has_booted(kernel) else None


@remembered(UNTIL_MOVED)
def _has_booted(kernel: Kernel) -> bool:
    """Whether the kernel came so far that its memory is set up: to SYSTEM_SCHEDULING at least, or nothing tells."""
    place = kernel.symbol("system_state")
    state = try_read(kernel.read, place, 4) if place is not None else None
    return state is None or any(state)


def owned_address(kernel: Kernel, address: int) -> int | None:
    """The direct map's address under which the owner of the memory at an address is to be sought.

    That is the address itself in the direct map, and the other one of freed memory of the image; None for the rest.
    """
    tables = page_tables(kernel)
    if tables.in_direct_map(address):
        return address
    if not is_freed(kernel, address):
        return None
    physical = tables.linear_physical(address)
    return tables.direct_address(physical) if physical is not None else None
