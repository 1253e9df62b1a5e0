"""Second addresses of the same memory: the image's and vmalloc's pages in the direct map, and vice versa."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kplug import model
from kplug.kinds import Kind, register
from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.freed import is_freed
from kplug.runtime.locators.registry import locates
from kplug.runtime.locators.stacks import stacks_of
from kplug.runtime.locators.vmap import vmap_areas
from kplug.runtime.tables.struct_page import pages_of
from kplug.runtime.tables.translation import page_size_of, page_tables

DIRECT_MAP, OF_IMAGE, OF_VMAP = "direct map", "direct map of the image", "direct map of a vmap area"

SOURCE = "page tables"


def _words(layer: Layer) -> tuple[str, bool]:
    why = layer.details.get("why") or ""
    return f"{layer.details.get('of') or ''}  {layer.name}{f'  ({why})' if why != layer.name else ''}", True


KIND = register(
    Kind(
        "alias",
        600,
        {"of": "(the other virtual address)", "why": "(direct map, ...)", "region": "of the image there"},
        words=_words,
        needs_extent=True,  # otherwise it is a second address of what is already named
        phrase=lambda layer, offset: f"alias of {layer.name}+{offset:#x}",
    )
)


class AliasLocator:
    """The other addresses at which the memory at an address is mapped."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def locate(self, address: int) -> Iterable[Layer]:
        tables = page_tables(self._kernel)
        paging = tables.paging
        if paging is None or paging.is_user(address):
            return
        if tables.in_direct_map(address):
            physical = tables.linear_physical(address)
            assert physical is not None
            image_address = tables.image_address(physical)
            if image_address is not None:
                yield self._of_image(address, image_address)
            else:
                yield from self._of_vmap(address, physical >> paging.page_shift)
            return
        if tables.in_image(address):
            physical = tables.linear_physical(address)
        elif self._kernel.has_types and vmap_areas(self._kernel).at(address) is not None:
            physical = tables.physical(address)
        else:
            return
        other = tables.direct_address(physical) if physical is not None else None
        if other is not None:
            yield self._layer("direct map", None, None, other, DIRECT_MAP)

    def _of_image(self, address: int, image_address: int) -> Layer:
        """The image's address for one in the direct map, named by what the image has, or had before it was freed."""
        image = self._kernel.image
        assert image is not None
        freed = is_freed(self._kernel, image_address)
        why = f"{OF_IMAGE}, freed since" if freed else OF_IMAGE
        shift = address - image_address
        piece = image.piece(image_address)
        named = [
            layer
            for layer in (image.layers(image_address, piece) if piece is not None else ())
            if layer.kind in (model.REGION, model.SECTION, model.SYMBOL) and layer.start is not None
            if layer.start != layer.end  # a symbol that only marks a place
        ]
        regions = " > ".join(layer.name for layer in named if layer.kind == model.REGION) or None
        symbols = [layer for layer in named if layer.kind == model.SYMBOL]
        narrowest = symbols[-1] if symbols else named[-1] if named else None
        name = narrowest.name if narrowest is not None else "kernel image"
        if freed:  # the memory has another owner now
            return self._layer(name, None, None, image_address, why, region=regions)
        if narrowest is None or narrowest.start is None or narrowest.end is None:
            page_size = page_size_of(self._kernel)
            start = address & -page_size
            return self._layer(name, start, start + page_size, image_address, why, region=regions)
        start, end = narrowest.start + shift, narrowest.end + shift
        return self._layer(name, start, end, image_address, why, region=regions)

    def _of_vmap(self, address: int, pfn: int) -> Iterable[Layer]:
        """The address in a vmap area, or in a stack there, for a page of the direct map."""
        pages = pages_of(self._kernel)
        if pages is None or not pages.exists(pfn) or pages.page(pfn).state != "kernel":
            return
        areas = vmap_areas(self._kernel)
        found = areas.mapping(pfn)
        if found is None:
            return
        area, mapped = found
        page_size = page_size_of(self._kernel)
        other = mapped + address % page_size
        stack = stacks_of(self._kernel).at(other)
        start = address & -page_size
        name = stack.name if stack is not None else areas.name(area)
        yield self._layer(name, start, start + page_size, other, OF_VMAP)

    def _layer(self, name: str, start: int | None, end: int | None, of: int, why: str, **more: Any) -> Layer:
        return Layer(KIND.name, name, start, end, SOURCE, {"of": hex(of), "why": why, **more})


locates(KIND, lambda kernel, user: AliasLocator(kernel))
