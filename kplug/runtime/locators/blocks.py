"""Compound blocks of the kernel's own pages: what kmalloc gives for more than its caches have, and others.

A large kmalloc has no slab. Kernels with PGTY_large_kmalloc mark its pages; before, nothing tells it from another block
that was allocated with __GFP_COMP.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kplug.kinds import Kind, before_range, register
from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.freed import owned_page
from kplug.runtime.locators.registry import locates
from kplug.runtime.locators.vmap import backs_vmalloc
from kplug.runtime.tables.struct_page import KERNEL, LARGE_KMALLOC

SOURCE = "struct page"


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = f"{layer.name}  order {details['order']}"
    if details["large_kmalloc"] is None:
        words += "  may be a large kmalloc (a guess)"
    return before_range(words, layer), True


KIND = register(
    Kind(
        "block",
        750,
        {
            "head": "(its first page frame)",
            "order": "(it has 2**`order` pages)",
            "large_kmalloc": "(`null`: this kernel does not mark them)",
        },
        words=_words,
    )
)


class BlockLocator:
    """The compound block that holds an address of the direct map, or of the image's freed memory."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def locate(self, address: int) -> Iterable[Layer]:
        kernel, owned = self._kernel, owned_page(self._kernel, address)
        if owned is None or owned.page.state not in (KERNEL, LARGE_KMALLOC) or not owned.page.order:
            return
        pages, page, place, base, size = owned
        is_kmalloc = page.state == LARGE_KMALLOC
        if not is_kmalloc and backs_vmalloc(kernel, page.pfn, None):
            return
        start = base + address - place
        details: dict[str, Any] = {
            "head": page.head,
            "order": page.order,
            "large_kmalloc": is_kmalloc if is_kmalloc or pages.marks_large_kmalloc else None,
        }
        name = "large kmalloc" if is_kmalloc else "compound block"
        yield Layer(KIND.name, name, start, start + size, SOURCE, details)


locates(KIND, lambda kernel, user: BlockLocator(kernel))
