"""Other addresses of the same memory: the image's and vmalloc's pages in the direct map, and vice versa."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kplug import model
from kplug.arch.types.memory_map import IMAGE_MAPPING, MODULES, VMALLOC
from kplug.errors import TargetError
from kplug.kinds import Kind, Role, kind_of, register
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.model import Annotation, Layer
from kplug.resolver import Resolver
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.freed import is_freed
from kplug.runtime.locators.registry import locates, locators
from kplug.runtime.locators.vmap import vmap_areas
from kplug.runtime.modules.images import images_of
from kplug.runtime.tables.mappings import mappings_of
from kplug.runtime.tables.struct_page import FREE, KERNEL, PAGE_TABLE, SLAB, pages_of
from kplug.runtime.tables.translation import page_size_of, page_tables
from kplug.summary import summarize

DIRECT_MAP, OF_IMAGE, OF_VMAP = "direct map", "direct map of the image", "direct map of a vmap area"

# What names an address, and is not another address or the page of it.
_NAMING = frozenset((Role.PLACE, Role.SECTION, Role.REGION, Role.OWNER, Role.MAPPING, Role.INSTANCE))
# Pages that are mapped in the direct map alone: the tables need not be searched for others.
_ONLY_DIRECT = frozenset((SLAB, FREE, PAGE_TABLE))

SOURCE = "page tables"


def _words(layer: Layer) -> tuple[str, bool]:
    why = layer.details.get("why") or ""
    if layer.details.get("there"):
        details, extent = layer.details, ""
        if details["start"] is not None and details["end"] is not None:
            extent = f"  {int(details['start'], 16):#018x}-{int(details['end'], 16):#018x}"
        return f"{details['of']}  {details['there']}  ({why}){extent}", False
    return f"{layer.details.get('of') or ''}  {layer.name}{f'  ({why})' if why != layer.name else ''}", True


def _phrase(layer: Layer, offset: int) -> str:
    there: str = layer.details.get("there") or f"{layer.name}+{offset:#x}"
    # A gap has no name: its one-line answer is where it is.
    return f"alias of {'what is ' if there.startswith('between ') else ''}{there}"


KIND = register(
    Kind(
        "alias",
        600,
        {
            "of": "(the other virtual address)",
            "why": "(direct map, ...)",
            "region": "of the image there",
            "there": "(the one-line answer for the other address, where that is not in the image)",
            "start": "",
            "end": "(of what is there, by its addresses there)",
        },
        words=_words,
        needs_extent=True,  # otherwise it is a second address of what is already named
        phrase=_phrase,
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
        if tables.in_direct_map(address):  # on machines of 32 bits the image is part of it
            physical = tables.linear_physical(address)
            assert physical is not None
            image_address = tables.image_address(physical)
            if image_address is not None and image_address != address:
                yield self._of_image(address, image_address)
            yield from self._mapped(address, physical)
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
            if is_freed(self._kernel, address):
                assert physical is not None
                yield from self._mapped(address, physical)

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

    def _mapped(self, address: int, physical: int) -> Iterable[Layer]:
        """What the other mappings of a page of the direct map, or of memory that the image freed, are part of."""
        pages, page_size = pages_of(self._kernel), page_size_of(self._kernel)
        pfn = physical // page_size
        if pages is None or not pages.exists(pfn):
            return
        state = pages.page(pfn).state
        if state in _ONLY_DIRECT:
            return
        others = mappings_of(self._kernel).of(physical)
        if not others and state == KERNEL:  # tables that are not in the dump; the area's own list of pages may be
            listed = vmap_areas(self._kernel).mapping(pfn)
            others = [listed[1] + physical % page_size] if listed is not None else ()
        for other in others:
            yield self._resolved(address, other)
        problem = mappings_of(self._kernel).problem
        if problem is not None:
            raise TargetError(f"other mappings of the page may be missing: {problem}")

    def _resolved(self, address: int, other: int) -> Layer:
        """The answer for another address of the same memory, as the resolver has it."""
        space = space_of(self._kernel)
        area = space.area_at(other).name if space is not None else VMALLOC
        why = OF_VMAP if area.startswith((VMALLOC, MODULES)) else f"also mapped in {area}"
        if area == IMAGE_MAPPING:  # its last large page maps what follows the image, too
            return self._layer(area, None, None, other, why)
        there = _resolver(self._kernel).where(other)
        summary = summarize(there)
        words = " ".join((summary.head, *(part for part in summary.tail if part in _owners(there))))
        shown = next((layer for layer in reversed(there.layers) if kind_of(layer).role in _NAMING), None)
        if shown is None:  # a slot of the fixmap, for one: it says less than the page does
            return self._layer(words, None, None, other, why, there=words, start=None, end=None)
        first, end = (hex(bound) if bound is not None else None for bound in (shown.start, shown.end))
        page_size = page_size_of(self._kernel)
        start = address & -page_size
        return self._layer(shown.name, start, start + page_size, other, why, there=words, start=first, end=end)

    def _layer(self, name: str, first: int | None, stop: int | None, of: int, why: str, /, **more: Any) -> Layer:
        return Layer(KIND.name, name, first, stop, SOURCE, {"of": hex(of), "why": why, **more})


def _owners(there: Annotation) -> tuple[str, ...]:
    """The module and the CPU as the one-line answer has them after the name."""
    module, cpu = there.last(model.MODULE), there.first(model.PERCPU)
    return f"[{module.name}]" if module is not None else "", f"({cpu.name})" if cpu is not None else ""


@remembered(UNTIL_RESUMED)
def _resolver(kernel: Kernel) -> Resolver:
    """What answers for the other address: all but this locator, which would come back to the first one."""
    return Resolver(images_of(kernel), space_of(kernel), locators=locators(kernel, without=KIND))


locates(KIND, lambda kernel, user: AliasLocator(kernel))
