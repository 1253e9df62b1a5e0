"""The loaded modules as images in their places, each made when it is first asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kplug import model
from kplug.arch.types.memory_map import MODULES
from kplug.errors import InputError, TargetError
from kplug.frozen import replace
from kplug.image.elf.file import ElfFile
from kplug.image.elf.sections import Section
from kplug.image.images import LazyImages
from kplug.image.kernel_image import Build, KernelImage
from kplug.image.opening.files import symbols_file
from kplug.image.opening.module_files import ModuleFiles
from kplug.image.placed import Piece, PlacedImage
from kplug.image.placement import Placement
from kplug.image.symbols.extents import Extent
from kplug.image.symbols.table import SymbolTable
from kplug.lifetimes import FOR_EVER, UNTIL_RESUMED, remembered
from kplug.model import Layer
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.modules.kallsyms import (
    NAMELESS,
    ModuleKallsyms,
    NamedRange,
    memory_elf,
    section_bases,
    sections_in_memory,
    symbol_names,
)
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.modules.parts import INIT, MemoryRange
from kplug.runtime.modules.struct_module import Module

if TYPE_CHECKING:
    from kplug.runtime.kernel.kernel import Kernel

FROM_FILE, FROM_MEMORY = "debug file", "kallsyms in memory"
_LIST = "the kernel's list of modules"
# The class of memory without a more specific section (bss): as for sections of a vmlinux with the same use.
_CLASSES = {"text": model.TEXT, "rodata": model.RODATA}


class ModuleImage(KernelImage):
    """A loaded module: the sections and symbols of its debug file, or those in the kernel's memory, in their places."""

    def __init__(
        self,
        module: Module,
        elf: ElfFile,
        bases: Mapping[int, int],
        symbols_from: str,
        symbols_elf: ElfFile | None = None,
    ) -> None:
        in_memory = symbols_from == FROM_MEMORY
        super().__init__(
            elf,
            name=module.name,
            bases=bases,
            symbols_from=symbols_elf,
            sections=_in_memory(elf.laid_out(bases)) if in_memory else _as_loaded(elf.laid_out(bases)),
            on_disk=not in_memory,
            sections_source=_GUESSED if in_memory else "ELF header",
            build=Build(module.build_id),
        )
        #: FROM_FILE or FROM_MEMORY.
        self.symbols_from = symbols_from

    @cached_property
    def symbols(self) -> SymbolTable:
        source = "the module's kallsyms in memory" if self.symbols_from == FROM_MEMORY else None
        return SymbolTable(self._symbols_from, self.sections, self.bases, source=source)


_GUESSED = "section addresses in memory; one ends where the next begins"


def _in_memory(sections: Sequence[Section]) -> Sequence[Section]:
    return [replace(each, type="NOTE") if each.name.startswith(".note") else each for each in sections]


def _as_loaded(sections: Sequence[Section]) -> Sequence[Section]:
    """A separate debug file has no bytes of loaded sections, and has all of them as NOBITS."""
    if not any(section.executable and section.type == "NOBITS" for section in sections):
        return sections
    return [
        replace(each, type="PROGBITS") if each.type == "NOBITS" and not each.name.startswith(".bss") else each
        for each in sections
    ]


class PlacedModule(PlacedImage):
    """A loaded module in its memory. Parts of it outside sections are explained, too."""

    image: ModuleImage

    def __init__(
        self, module: Module, image: ModuleImage, tables: Sequence[NamedRange], warnings: Sequence[str]
    ) -> None:
        self.module = module
        self._tables = tuple(tables)
        super().__init__(image, Placement(0, _LIST), warnings=warnings)

    def why_unplaced(self, section: str) -> str | None:
        starts = [each.start for each in self.module.all_sections if each.name == section]
        if starts and all(self.module.part_at(start) is None for start in starts):
            return "whose memory the kernel freed after init"
        return "whose address is not in memory"

    @cached_property
    def _bounds(self) -> list[int]:
        bounds = {bound for part in self.module.memory for bound in (part.start, part.end)}
        for extent in (*self._held_sections_extents(), *self._tables):
            bounds.update((extent.start, extent.end))
        return sorted(bounds)

    def _held_sections_extents(self) -> Iterator[NamedRange]:
        """The sections in its memory; the per-CPU section is elsewhere, and its addresses are offsets."""
        for section in self._held_sections:
            if self.module.part_at(section.address) is not None:
                yield NamedRange(section.name, section.address, section.end)

    def _make_piece(self, number: int) -> Piece | None:
        start, end = self._bounds[number], self._bounds[number + 1]
        part = self.module.part_at(start)
        if part is None:
            return None
        held = super()._make_piece(number)
        layers: tuple[Layer, ...] = (self._module_layer(part),)
        region_class = model.INIT if part.type.startswith(INIT) else _CLASSES.get(part.type, model.DATA)
        if held is None or held.section is None:
            layers += (self._gap(start, part),)
            return Piece(layers, region_class, start, end, None, None, None, None)
        if region_class == model.DATA and held.section.type == "NOBITS":
            region_class = model.BSS
        own = (self._section_layer(layer) if layer.kind == model.SECTION else layer for layer in held.layers[1:])
        return held._replace(layers=(*layers, *own), region_class=region_class)

    def _section_layer(self, layer: Layer) -> Layer:
        """Memory has where a section starts, not its size."""
        if self.image.symbols_from != FROM_MEMORY:
            return layer
        return replace(layer, details={**layer.details, "sizeless": True})

    def _module_layer(self, part: MemoryRange) -> Layer:
        module, image = self.module, self.image
        details: dict[str, Any] = {
            "release": None,
            "build_id": module.build_id,
            "slide": None,
            "path": image.path,
            "memory": part.type,
            "state": module.state,
            "taints": module.taints or None,
            "version": module.version,
            "symbols_from": image.symbols_from if image.symbols else None,
        }
        return Layer(model.MODULE, module.name, part.start, part.end, _LIST, details)

    def _gap(self, address: int, part: MemoryRange) -> Layer:
        """What an address outside sections is: a table of symbols, alignment, or the rest of a page."""
        sections = sorted(
            (s for s in self._held_sections_extents() if part.start <= s.start < part.end), key=lambda s: s.start
        )
        extents = sorted(
            (*sections, *(t for t in self._tables if part.start <= t.start < part.end)), key=lambda e: e.start
        )
        before = max((e for e in extents if e.end <= address), key=lambda e: e.end, default=None)
        after = next((e for e in extents if e.start > address), None)
        table = next((t for t in self._tables if t.start <= address < t.end), None)
        start = table.start if table else max(part.start, before.end if before else 0)
        end = table.end if table else min(part.end, after.start if after else part.end)
        if table is not None:
            name, why = "kallsyms", f"the module's {table.name}, kept for kallsyms"
        elif after is None and before is not None:
            name, why = "padding", "the rest of the pages of this memory"
        else:
            name, why = "padding", "no section holds it: alignment between two sections"
        details = {
            "after": before.name if before else f"start of its {part.type} memory",
            "before": after.name if after else f"end of its {part.type} memory",
            "why": why,
        }
        return Layer(model.GAP, name, start, end, self.image.sections_source, details)


class LoadedImages(LazyImages):
    """The vmlinux, if there is one, and then the modules in the order of the kernel's list."""

    def __init__(self, kernel: Kernel, module_directories: Sequence[str] = ()) -> None:
        super().__init__([kernel.image] if kernel.image is not None else [])
        self._kernel = kernel
        vmlinux = kernel.image.image.path if kernel.image is not None else None
        self._files = ModuleFiles(module_directories, kernel.vmcoreinfo.release, vmlinux)
        self.memo = kernel.memo
        self._made: dict[object, PlacedModule] = {}

    # -- as a sequence: all are made -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[PlacedImage]:
        yield from self._images
        yield from map(self.placed, self._modules())

    def __len__(self) -> int:
        return len(self._images) + len(self._modules())

    def __bool__(self) -> bool:
        return bool(self._images) or len(self) > 0

    def _modules(self) -> Sequence[Module]:
        """The modules; none if the debug information does not have the types to read them."""
        return modules_of(self._kernel).all if self._kernel.has_types else ()

    # -- one by one ----------------------------------------------------------------------------------------------------

    def holding(self, address: int) -> tuple[PlacedImage, Piece] | None:
        """As for any images. TargetError for an address in the modules area if the list is incomplete."""
        found = super().holding(address)
        if found is not None or not self._kernel.word.is_kernel(address):
            return found
        if not self._kernel.has_types:
            if self._in_modules_area(address):
                raise TargetError(
                    "it is not known whether a module is here: that needs the kernel's types (DWARF or BTF)"
                )
            return None
        held = modules_of(self._kernel).holding(address)
        if held is not None:
            placed = self.placed(held[0])
            piece = placed.piece(address)
            return (placed, piece) if piece is not None else None
        problem = modules_of(self._kernel).problem
        if problem is not None and self._in_modules_area(address):
            raise TargetError(problem)
        return None

    def _in_modules_area(self, address: int) -> bool:
        space = space_of(self._kernel)
        return space is not None and space.area_at(address).name == MODULES

    def named(self, name: str) -> PlacedImage | None:
        if not self._kernel.has_types:
            return None
        module = modules_of(self._kernel).named(name)
        return self.placed(module) if module is not None else None

    def candidates_for_symbol(self, name: str) -> Sequence[PlacedImage]:
        if not self._kernel.has_types:
            return self._images
        ending = name.encode("utf-8", "surrogateescape") + b"\0"
        return (*self._images, *(self.placed(module) for module in self._modules() if ending in self._names(module)))

    def candidates_for_source_name(self, name: str) -> Sequence[PlacedImage]:
        if not self._kernel.has_types:
            return self._images
        from kplug.image.symbols.source_names import may_have  # few questions need it

        having = (module for module in self._modules() if may_have(self._names(module), name))
        return (*self._images, *map(self.placed, having))

    def _names(self, module: Module) -> bytes:
        """The names of a module's symbols in memory, each followed by a NUL. Cheap to read."""
        return _symbol_names(self._kernel, module)

    def candidates_for_addresses(self, addresses: Iterable[int]) -> Sequence[PlacedImage]:
        if not self._kernel.has_types:
            return self._images
        modules = modules_of(self._kernel)
        starts = sorted({part.start for module in modules for part in module.memory})
        pages = {bisect_right(starts, address) for address in addresses}
        wanted = {held[0].address: held[0] for n in pages if n and (held := modules.holding(starts[n - 1]))}
        return (*self._images, *map(self.placed, wanted.values()))

    def placed(self, module: Module) -> PlacedModule:
        """The image of a module. If its symbols cannot be read, its warnings say why."""
        key = module.identity
        made = self._made.get(key) or self._lacking().get(key)
        if made is None:
            made = self._place(module)
            kept = self._lacking() if made.warnings else self._made
            kept[key] = made
        return made

    @remembered(UNTIL_RESUMED)
    def _lacking(self) -> dict[object, PlacedModule]:
        """Modules that could only be read in part: after the kernel ran, the rest may be there."""
        return {}

    def _place(self, module: Module) -> PlacedModule:
        warnings: list[str] = []
        elf, refused = self._files.find(module)
        kallsyms = self._kallsyms(module, warnings, needed=elf is None)
        image = None
        if elf is not None:
            try:
                image = ModuleImage(module, elf, section_bases(elf, module, kallsyms), FROM_FILE, symbols_file(elf))
            except (InputError, TargetError) as error:
                warnings.append(str(error))
        if image is None:
            try:
                sections = sections_in_memory(module, kallsyms.tables)
            except TargetError as error:
                warnings.append(str(error))
                sections = ()
            made, bases = memory_elf(self._kernel, module, kallsyms, sections)
            image = ModuleImage(module, made, bases, FROM_MEMORY)
        if any(section.name == NAMELESS for section in image.sections):
            warnings.append(f"not all names of the sections of module {module.name} could be read")
        return PlacedModule(module, image, kallsyms.tables, tuple(dict.fromkeys((*refused, *warnings))))

    def _kallsyms(self, module: Module, warnings: list[str], needed: bool) -> ModuleKallsyms:
        """The symbols in memory; none, with a warning where they are `needed`, if they cannot be read."""
        try:
            return ModuleKallsyms(self._kernel, module)
        except TargetError as error:
            if needed:
                warnings.append(str(error))
            return ModuleKallsyms(self._kernel)


@remembered(FOR_EVER)
def images_of(kernel: Kernel) -> LoadedImages:
    """The vmlinux of a kernel and its loaded modules; a module's is made when an address in it is asked about."""
    return LoadedImages(kernel, kernel.module_directories)


@remembered(UNTIL_RESUMED)
def _symbol_names(kernel: Kernel, module: Module) -> bytes:
    return symbol_names(kernel, module)


def symbol_extent(kernel: Kernel, address: int) -> tuple[PlacedImage, Extent] | None:
    """The image or module that has an address, and the innermost symbol there; None if none is known to hold it."""
    try:
        found = images_of(kernel).holding(address)
    except TargetError:  # the modules cannot be read; the answer does without the symbol
        return None
    extent = found[0].image.index.innermost(found[0].placement.link(address)) if found is not None else None
    return (found[0], extent) if found is not None and extent is not None else None
