"""The vmap areas of vmalloc's and the modules' space: their callers, their pages, and the holes between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any

import drgn

from kplug import model
from kplug.arch.registry import named
from kplug.arch.types.memory_map import DIRECT_MAP, IOREMAP, MODULES, VMALLOC
from kplug.errors import TargetError
from kplug.kinds import Kind, Role, before_range, name_and_offset, register
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import try_read
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.registry import locates
from kplug.runtime.modules.freed_init import freed_section_at
from kplug.runtime.modules.symbol_words import symbol_words
from kplug.runtime.tables.struct_page import pages_of
from kplug.runtime.tables.translation import page_size_of, page_tables

SOURCE = "vmap areas"

_MAX_AREAS = 1 << 20
_MAX_NODES = 1 << 10
_MAX_PAGES = 1 << 22  # of all areas together, in the table from page to area

# include/linux/vmalloc.h; macros, so no debug information has them.
_ALLOC, _MAP, _IOREMAP, _NO_GUARD, _SPARSE = 0x2, 0x4, 0x1, 0x40, 0x1000
_FLAGS = {
    0x1: "VM_IOREMAP",
    0x2: "VM_ALLOC",
    0x4: "VM_MAP",
    0x8: "VM_USERMAP",
    0x10: "VM_DMA_COHERENT",
    0x20: "VM_UNINITIALIZED",
    0x40: "VM_NO_GUARD",
    0x80: "VM_KASAN",
    0x100: "VM_FLUSH_RESET_PERMS",
    0x200: "VM_MAP_PUT_PAGES",
    0x400: "VM_ALLOW_HUGE_VMAP",  # 559089e0a93d (5.18); for some releases before, VM_NO_HUGE_VMAP
    0x800: "VM_DEFER_KMEMLEAK",
    0x1000: "VM_SPARSE",  # e6f798225a31 (6.9)
}
_KINDS = {_ALLOC: "vmalloc", _MAP: "vmap", _IOREMAP: "ioremap", _SPARSE: "sparse"}


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = [layer.name]
    if details.get("pages"):
        words.append(f"{details['pages']} pages")
    words += [details.get("flags") or "", details.get("caller_words") or ""]
    words.append(f"physical {details['physical']}" if details.get("physical") else "")
    words.append(f"guard page, {details['past']:#x} bytes past its end" if details.get("guard") else "")
    return before_range("  ".join(filter(None, words)), layer), True


KIND = register(
    Kind(
        "vmap",
        200,
        {
            "caller": "(function, offset and size)",
            "caller_address": "",
            "caller_words": "(what is known of the caller, where that is no function)",
            "pages": "",
            "flags": "(`VM_ALLOC\\|...`)",
            "guard": "(the address is in the guard page)",
            "past": "(of a guard page: how many bytes the address is past the memory before it)",
            "physical": "of an ioremap",
        },
        words=_words,
        role=Role.MAPPING,
        phrase=lambda layer, offset: (
            f"guard page after {layer.name}, {layer.details['past']:#x} bytes past its end"
            if layer.details["guard"]
            else name_and_offset(layer, offset)
        ),
        object_type=lambda layer: None if layer.details["guard"] else "",
    )
)


class VmapArea(NamedTuple):
    """One area, `[start, end)`. `vm` is the address of its vm_struct, 0 without one (vm_map_ram, or lazily freed).

    `pages` counts its own pages, whose pointers are listed at `page_list`; `physical` is what an ioremap maps.
    """

    start: int
    end: int
    vm: int
    flags: int
    caller: int
    pages: int
    page_list: int
    physical: int
    lazy: bool


class VmapAreas:
    """All areas at one moment, sorted. `problem` says what could not be read, None if everything was."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._word = kernel.word
        self.memo = kernel.memo
        self.problem: str | None = None
        found: dict[int, VmapArea] = {}
        with kernel.reading("the vmap areas"):
            self._layout(kernel.prog)
            for head, lazy in self._heads(kernel):
                self._walk(head, lazy, found)
        self.areas = [found[start] for start in sorted(found)]
        self._starts = [area.start for area in self.areas]

    def _layout(self, prog: drgn.Program) -> None:
        area, vm = prog.type("struct vmap_area"), prog.type("struct vm_struct")
        self._list = drgn.offsetof(area, "list")
        self._area_size, self._vm_size = area.size or 0, vm.size or 0
        self._in_area = [drgn.offsetof(area, name) for name in ("va_start", "va_end", "vm")]
        self._in_vm = [drgn.offsetof(vm, name) for name in ("flags", "caller", "pages", "phys_addr")]
        self._page_count = drgn.offsetof(vm, "nr_pages")

    def _heads(self, kernel: Kernel) -> Iterator[tuple[int, bool]]:
        """The heads of the lists of areas, and whether each list has lazily freed areas."""
        prog = kernel.prog
        try:
            nodes = prog["vmap_nodes"]  # d093602919ad (6.9)
        except KeyError:
            for name, lazy in (("vmap_area_list", False), ("purge_vmap_area_list", True)):  # the latter: 96e2db456135
                try:
                    yield prog[name].address_of_().value_(), lazy
                except KeyError:
                    if not lazy:
                        raise
            return
        try:
            count, first = prog["nr_vmap_nodes"].value_(), nodes.value_()
        except drgn.ObjectAbsentError:  # without SMP both are constants, which compilers leave out
            count, first = 1, prog.variable("single", "mm/vmalloc.c").address_of_().value_()
        node = prog.type("struct vmap_node")
        busy, lazy_list = drgn.offsetof(node, "busy.head"), drgn.offsetof(node, "lazy.head")
        if not 0 < count <= _MAX_NODES:
            raise TargetError(f"the vmap areas: there are said to be {count} nodes of them")
        for number in range(count):
            yield first + number * (node.size or 0) + busy, False
            yield first + number * (node.size or 0) + lazy_list, True

    def _walk(self, head: int, lazy: bool, found: dict[int, VmapArea]) -> None:
        """One list. If it cannot be followed, it ends there and `problem` says so."""
        place, seen = head, set()
        try:
            place = self._kernel.prog.read_word(head)
            while place != head:
                if place in seen or len(found) >= _MAX_AREAS:
                    raise TargetError(f"the list of vmap areas loops at {place:#x}")
                seen.add(place)
                data = self._kernel.prog.read(place - self._list & self._word.mask, self._area_size)
                area = self._area(data, lazy)
                if area.end <= area.start:
                    raise TargetError(f"the list of vmap areas is invalid at {place:#x}")
                found.setdefault(area.start, area)
                place = self._word.at(data, self._list)
        except drgn.FaultError as error:
            self.problem = f"the list of vmap areas could not be read at {place:#x}: {self._kernel.fault_words(error)}"
        except TargetError as error:
            self.problem = str(error)

    def _area(self, data: bytes, lazy: bool) -> VmapArea:
        start, end, vm = (self._word.at(data, offset) for offset in self._in_area)
        if lazy or not vm:
            return VmapArea(start, end, 0, 0, 0, 0, 0, 0, lazy)
        data = self._kernel.prog.read(vm, self._vm_size)
        flags, caller, page_list, physical = (self._word.at(data, offset) for offset in self._in_vm)
        count = self._word.unsigned(data, self._page_count, 4)
        return VmapArea(start, end, vm, flags, caller, count, page_list, physical, False)

    def at(self, address: int) -> VmapArea | None:
        """The area that holds an address."""
        number = bisect_right(self._starts, address) - 1
        area = self.areas[number] if number >= 0 else None
        return area if area is not None and address < area.end else None

    def is_free(self, address: int) -> bool:
        """Whether no area is at an address, or one that is freed and not yet given back."""
        area = self.at(address)
        return area is None or area.lazy

    def around(self, address: int) -> tuple[VmapArea | None, VmapArea | None]:
        """The areas below and above an address that none holds."""
        number = bisect_right(self._starts, address)
        above = self.areas[number] if number < len(self.areas) else None
        return self.areas[number - 1] if number else None, above

    def name(self, area: VmapArea) -> str:
        """An area in words: how it was made, and by which caller."""
        if area.lazy:
            return "lazily freed area"
        if not area.vm:
            return "vm_map_ram area"
        kind = next((word for flag, word in _KINDS.items() if area.flags & flag), "vmap")
        caller = self.caller(area)
        return f"{kind} of {caller.partition('+')[0]}" if caller else f"{kind} area"

    @remembered(UNTIL_RESUMED)
    def caller(self, area: VmapArea) -> str | None:
        """Its caller, as the kernel prints it: `kernel_clone+0x9a/0x440`."""
        return symbol_words(self._kernel, area.caller)

    def is_guard(self, area: VmapArea, address: int) -> bool:
        """Whether an address is in the unmapped page that most areas have at their end.

        The areas of the per-CPU allocator have none, and no flag that says so (pcpu_get_vm_areas()).
        """
        if not area.vm or area.flags & _NO_GUARD or area.caller == self._kernel.symbol("pcpu_get_vm_areas"):
            return False
        return address >= area.end - page_size_of(self._kernel)

    def mapping(self, pfn: int) -> tuple[VmapArea, int] | None:
        """The area that has a page frame among its own pages, and the address where it maps it."""
        starts = self._page_owners()
        address = starts.get(pfn)
        area = self.at(address) if address is not None else None
        return (area, address) if area is not None and address is not None else None

    @remembered(UNTIL_RESUMED)
    def _page_owners(self) -> dict[int, int]:
        pages = pages_of(self._kernel)
        found: dict[int, int] = {}
        if pages is None:
            return found
        page_size = page_size_of(self._kernel)
        for area in self.areas:
            if not area.pages or not area.page_list or area.pages > (area.end - area.start) // page_size:
                continue
            if len(found) + area.pages > _MAX_PAGES:
                break
            data = try_read(self._kernel.read, area.page_list, area.pages * self._word.size)
            for number, pointer in enumerate(self._word.numbers(data or b"")):
                if pointer >= pages.base:
                    found[(pointer - pages.base) // pages.size] = area.start + number * page_size
        return found


class VmapLocator:
    """The vmap area of an address, or the hole between two."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def locate(self, address: int) -> Iterable[Layer]:
        paging = page_tables(self._kernel).paging
        if not self._kernel.has_types or paging is None or paging.is_user(address):
            return
        space = space_of(self._kernel)
        held = space.area_at(address) if space is not None else None
        also = (DIRECT_MAP,) if named(self._kernel.machine).vmaps_in_direct_map else ()
        if held is not None and not held.name.startswith((VMALLOC, MODULES, IOREMAP, *also)):
            return
        areas = vmap_areas(self._kernel)
        area = areas.at(address)
        if area is not None:
            yield self._layer(areas, area, address)
        elif areas.problem is not None:
            raise TargetError(areas.problem)
        elif held is not None and held.name.startswith(VMALLOC) and not self._is_known_otherwise(address):
            below, above = areas.around(address)
            start = below.end if below is not None and below.end > held.start else held.start
            end = above.start if above is not None and above.start < held.end else held.end
            details = {
                "after": _neighbour(areas, below) if start != held.start else f"start of {held.name}",
                "before": _neighbour(areas, above) if end != held.end else f"end of {held.name}",
                "why": "no vmap area is here",
            }
            yield Layer(model.GAP, "hole", start, end, SOURCE, details)

    def _is_known_otherwise(self, address: int) -> bool:
        """Whether an address that no area has is the image's, or was a module's init memory, of which more is said."""
        return page_tables(self._kernel).in_image(address) or freed_section_at(self._kernel, address) is not None

    def _layer(self, areas: VmapAreas, area: VmapArea, address: int) -> Layer:
        guard, caller = areas.is_guard(area, address), areas.caller(area) if area.vm else None
        details: dict[str, Any] = {
            "caller": caller,
            "caller_address": hex(area.caller) if area.caller else None,
            "pages": area.pages or None,
            "flags": flag_words(area.flags) if area.vm else None,
            "guard": guard,
        }
        if area.caller and caller is None:
            freed = freed_section_at(self._kernel, area.caller)
            details["caller_words"] = f"caller {area.caller:#x}{f' in {freed.words}' if freed is not None else ''}"
        if guard:
            details["past"] = address - (area.end - page_size_of(self._kernel))
        if area.flags & _IOREMAP and area.physical:
            details["physical"] = hex(area.physical)
        return Layer(KIND.name, areas.name(area), area.start, area.end, SOURCE, details)


def flag_words(flags: int) -> str:
    """The flags of a vm_struct by name; bits without one as a number."""
    words = [name for bit, name in _FLAGS.items() if flags & bit]
    rest = flags & ~sum(_FLAGS)
    return "|".join(words + ([hex(rest)] if rest else []))


@remembered(UNTIL_RESUMED)
def vmap_areas(kernel: Kernel) -> VmapAreas:
    """The vmap areas of a kernel with types. TargetError if none of them can be read."""
    return VmapAreas(kernel)


def backs_vmalloc(kernel: Kernel, pfn: int, address: int | None) -> bool:
    """Whether a vmap area has the page frame: at `address`, or if that is None, anywhere."""
    areas = vmap_areas(kernel)
    return areas.at(address) is not None if address is not None else areas.mapping(pfn) is not None


def _neighbour(areas: VmapAreas, area: VmapArea | None) -> str:
    return f"{areas.name(area)} at {area.start:#x}" if area is not None else ""


locates(KIND, lambda kernel, user: VmapLocator(kernel))
