"""Freed memory of the image: init sections, and x86's padding between text, rodata and data; and modules' init memory.

The kernel gives these pages to the page allocator once it has booted (free_initmem(), mark_rodata_ro()); their struct
pages are reserved until then. The answer for an address there has both the linked symbol and the page's current owner.
"""

from __future__ import annotations

from kplug.arch.types.memory_map import MODULES, VMALLOC
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import try_read
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.executable_allocations import freed_init
from kplug.runtime.tables.struct_page import Page, Pages, pages_of
from kplug.runtime.tables.translation import page_tables


def is_freed(kernel: Kernel, address: int) -> bool | None:
    """Whether the kernel freed the image's page at an address. None if that is not known, or it is not in an image.

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


def was_freed(kernel: Kernel, address: int) -> bool | None:
    """Whether the kernel freed what was at an address: a page of its image, or a module's init memory, where nobody has
    memory now. None if that is not known, or it was neither. TargetError if the struct page cannot be read.
    """
    of_image = is_freed(kernel, address)
    return True if of_image is None and _is_freed_init(kernel, address) else of_image


def _is_freed_init(kernel: Kernel, address: int) -> bool:
    """Whether an address is where a module had init memory, and nobody has memory now."""
    space = space_of(kernel)
    if space is None or not space.area_at(address).name.startswith((MODULES, VMALLOC)):
        return False
    return freed_init(kernel, address) is not None


@remembered(UNTIL_RESUMED)
def _has_booted(kernel: Kernel) -> bool:
    """Whether the kernel has set up its memory: it reached SYSTEM_SCHEDULING, or that is not known."""
    place = kernel.symbol("system_state")
    state = try_read(kernel.read, place, 4) if place is not None else None
    return state is None or any(state)


def owned_address(kernel: Kernel, address: int) -> int | None:
    """The direct map's address for finding the owner of the memory at an address.

    That is the address itself in the direct map, or the alias of freed image memory; None for the rest.
    """
    tables = page_tables(kernel)
    if tables.in_direct_map(address):
        return address
    if not is_freed(kernel, address):
        return None
    physical = tables.linear_physical(address)
    return tables.direct_address(physical) if physical is not None else None


class OwnedPage(NamedTuple):
    """The page that an address is in, for finding its owner: `place` is the direct map's address of it, `base` and
    `size` are of the block of pages that the page belongs to (its own, if it is no compound page), in the direct map.
    """

    pages: Pages
    page: Page
    place: int
    base: int
    size: int


def owned_page(kernel: Kernel, address: int) -> OwnedPage | None:
    """The page of an `owned_address`; None if there is none, or no struct page. TargetError if that cannot be read."""
    tables, pages, place = page_tables(kernel), pages_of(kernel), owned_address(kernel, address)
    physical = tables.linear_physical(place) if place is not None else None
    if place is None or pages is None or tables.paging is None or physical is None:
        return None
    shift = tables.paging.page_shift
    if not pages.exists(physical >> shift):
        return None
    page = pages.page(physical >> shift)
    base = tables.direct_address(page.head << shift)
    return None if base is None else OwnedPage(pages, page, place, base, 1 << shift + (page.order or 0))
