"""The modules of the running kernel as images in their places, each made when it is first asked for.

For root, /sys/module has each section's address, and the module's own file (/lib/modules, or its debug file) has the
rest, if its build ID is the same. Without a file there are the symbols of /proc/kallsyms.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from kplug.errors import InputError
from kplug.image.elf.file import ElfFile
from kplug.image.elf.sections import PERCPU_SECTION
from kplug.image.images import LazyImages
from kplug.image.kallsyms_modules import PlacedListing, listed_module
from kplug.image.kernel_image import KernelImage
from kplug.image.module_sections import section_addresses
from kplug.image.opening.files import symbols_file
from kplug.image.opening.module_files import ModuleFiles
from kplug.image.placed import Piece, PlacedImage
from kplug.image.placement import Placement
from kplug.image.symbols.listings import NO_MODULES
from kplug.image.symbols.symbol_list import SymbolList
from kplug.live.machine import Machine, SectionName
from kplug.named_tuples import NamedTuple


class _Wanted(NamedTuple):
    """What identifies a module's file."""

    name: str
    build_id: str | None
    all_sections: Sequence[SectionName]


class LiveImages(LazyImages):
    """The kernel's image, if there is one, then its loaded modules by name."""

    def __init__(self, machine: Machine, main: PlacedImage | None) -> None:
        super().__init__([main] if main is not None else [])
        self._machine = machine
        self._placed: dict[str, PlacedImage] = {}
        self._files = ModuleFiles((), machine.release, main.image.path if main is not None else None, machine.root)

    @cached_property
    def _listed(self) -> dict[str, SymbolList]:
        """What /proc/kallsyms has about each module and the kernel's generated code."""
        listing = self._machine.kallsyms
        try:
            return dict(listing.modules) if listing is not None and not listing.hidden else {}
        except InputError:
            return {}

    @cached_property
    def _spans(self) -> tuple[list[int], list[str]]:
        """The pages with symbols of modules, sorted, and the module of each. A page of several is there for each."""
        pages = {(address >> 12, name) for name, symbols in self._listed.items() for address in symbols.addresses}
        for module in self._machine.modules:
            if module.base:
                pages.add((module.base >> 12, module.name))
        ordered = sorted(pages)
        return [page for page, _ in ordered], [name for _, name in ordered]

    @cached_property
    def _names(self) -> Sequence[str]:
        loaded = [module.name for module in self._machine.modules if module.base]
        return [name for name in dict.fromkeys((*loaded, *self._listed)) if name not in NO_MODULES]

    # -- as a sequence: all are made -----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[PlacedImage]:
        yield from self._images
        yield from map(self.module, self._names)

    def __len__(self) -> int:
        return len(self._images) + len(self._names)

    def __bool__(self) -> bool:
        return bool(self._images) or len(self) > 0

    # -- one by one ----------------------------------------------------------------------------------------------------

    def holding(self, address: int) -> tuple[PlacedImage, Piece] | None:
        found = super().holding(address)
        if found is not None:
            return found
        for name in self._near(address):
            placed = self.module(name)
            piece = placed.piece(address)
            if piece is not None:
                return placed, piece
        return None

    def _near(self, address: int) -> Sequence[str]:
        """The modules that may hold the address: those with a symbol on its page, else the nearest ones around it."""
        pages, names = self._spans
        position = bisect_right(pages, address >> 12)
        around = names[max(position - 8, 0) : position + 1]
        return list(dict.fromkeys(reversed(around)))

    def named(self, name: str) -> PlacedImage | None:
        return self.module(name) if name in self._names else None

    def candidates_for_symbol(self, name: str) -> Sequence[PlacedImage]:
        if self._images and self._images[0].image.symbols.has_name(name) and not self._lists(name):
            return self._images
        encoded = name.encode("utf-8", "surrogateescape") + b"\0"
        defining = [module for module, symbols in self._listed.items() if encoded in symbols.strings]
        return (*self._images, *map(self.module, defining))

    def candidates_for_source_name(self, name: str) -> Sequence[PlacedImage]:
        from kplug.image.symbols.source_names import may_have  # few questions need it

        having = [module for module, symbols in self._listed.items() if may_have(symbols.strings, name)]
        return (*self._images, *map(self.module, having))

    def _lists(self, name: str) -> bool:
        """Whether /proc/kallsyms has the name for a module, without decoding the other names."""
        listing = self._machine.kallsyms
        return listing is not None and listing.has_owned(name)

    def candidates_for_addresses(self, addresses: Iterable[int]) -> Sequence[PlacedImage]:
        wanted = dict.fromkeys(name for address in set(addresses) for name in self._near(address))
        return (*self._images, *map(self.module, wanted))

    def module(self, name: str) -> PlacedImage:
        """The image of a loaded module in its place."""
        made = self._placed.get(name)
        if made is None:
            made = self._placed[name] = self._place(name)
        return made

    def _place(self, name: str) -> PlacedImage:
        sections = [] if name in NO_MODULES else self._machine.module_sections(name)
        warnings: tuple[str, ...] = ()
        if sections:
            found, warnings = self._of_file(name, sections)
            if found is not None:
                return found
        symbols = self._listed.get(name)
        path = self._machine.path("/proc/kallsyms")
        if symbols is None:
            from kplug.image.symbols.symbol_list import no_symbols

            symbols = no_symbols(path)
        main = self._images[0].image.machine if self._images else self._machine.architecture or ""
        starts = [section.address for section in sections]
        image = listed_module(name, symbols, main, path, starts=starts)
        return PlacedListing(image, Placement(0, path), warnings=warnings)

    def _of_file(self, name: str, sections: Sequence[SectionName]) -> tuple[PlacedImage | None, tuple[str, ...]]:
        """The module from its file, at the addresses of /sys; None, with the reasons, if there is no such file."""
        build_id = self._machine.module_build_id(name)
        elf, refused = self._files.find(_Wanted(name, build_id, sections))
        if elf is None:
            return None, refused
        image = KernelImage(elf, name=name, symbols_from=symbols_file(elf), bases=_bases(elf, sections))
        return PlacedImage(image, Placement(0, self._machine.path(f"/sys/module/{name}/sections"))), ()


def _bases(elf: ElfFile, sections: Sequence[SectionName]) -> dict[int, int]:
    """The address of each section of a module's file, by its number. For per-CPU sections, /sys has no CPU's copy."""
    loaded = ((section.name, section.address) for section in sections if section.name != PERCPU_SECTION)
    return section_addresses(elf.sections, loaded)
