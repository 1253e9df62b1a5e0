"""An image, vmlinux or a module, with everything in its file: sections, segments, symbols and regions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from kplug.arch.registry import named
from kplug.frozen import Frozen
from kplug.image.elf.file import ElfFile
from kplug.image.elf.sections import Section, Segment, section_to_segment_mapping
from kplug.image.symbols.by_address import SymbolIndex
from kplug.image.symbols.nm_letters import letter_by_region
from kplug.image.symbols.table import SymbolTable
from kplug.linker.region_builder import build_region_tree
from kplug.linker.regions import RegionTree

if TYPE_CHECKING:
    from kplug.image.symbols.symbol_list import SymbolList
    from kplug.linker.link_map import LinkMap
    from kplug.linker.script import LinkerScript

# Of DWARF; the latter is the older form of a compressed section (objcopy --compress-debug-sections=zlib-gnu).
DEBUG_INFO = (".debug_info", ".zdebug_info")
_BANNER_START = b"Linux version "
_BANNER_LIMIT = 512


class Build(Frozen):
    """What identifies one build of the kernel, as far as it is known."""

    build_id: str | None = None
    banner: bytes | None = None
    release: str | None = None


def release_of(banner: bytes | None) -> str | None:
    """The kernel release (uname -r) in a banner."""
    if banner is None or not banner.startswith(_BANNER_START):
        return None
    rest = banner[len(_BANNER_START) :]
    return None if not rest or rest[:1].isspace() else rest.split(None, 1)[0].decode("ascii", "backslashreplace")


# Bytes of each entry, of which there are kallsyms_num_syms; and whole tables.
_KALLSYMS_ENTRIES = {"kallsyms_offsets": 4, "kallsyms_seqs_of_names": 3}
_KALLSYMS_SIZES = {"kallsyms_token_index": 512}


class KernelImage:
    """One ELF image. Opening reads headers only; symbols and regions are decoded at the first question.

    `listed` are its symbols if no ELF file has them (kallsyms, System.map), or a function that reads them at the first
    question. Then `elf` may be just a header, and `sections` are those known from elsewhere, at the same addresses as
    the symbols. Without sections, `extents` are the image's ranges; for a vmlinux they come from its boundary symbols.
    `bases` places a relocatable file (a module): section index to runtime address; sections without one are not
    claimed. `script` and `link_map` refine the regions of a vmlinux that was built from them. `sections_source` says
    how its sections are known, for the user; `build` what identifies the build, if that is known from elsewhere.
    """

    def __init__(
        self,
        elf: ElfFile,
        *,
        name: str | None = None,
        symbols_from: ElfFile | None = None,
        listed: SymbolList | Callable[[], SymbolList] | None = None,
        sections: Sequence[Section] | None = None,
        extents: Sequence[Section] = (),
        bases: Mapping[int, int] | None = None,
        script: LinkerScript | None = None,
        link_map: LinkMap | None = None,
        on_disk: bool = True,
        sections_source: str = "ELF header",
        build: Build | None = None,
    ) -> None:
        self.elf = elf
        self.path = elf.path
        self.name = name or os.path.basename(elf.path)
        self.machine = elf.machine
        self.bases = bases
        self.script = script
        self.link_map = link_map
        #: Whether `path` is a file that other programs can open as well.
        self.on_disk = on_disk
        self.sections_source = sections_source
        self._build = build
        self._symbols_from = symbols_from or elf
        self._listed = listed
        self._extents = tuple(extents)
        if sections is None:
            sections = elf.sections if bases is None else elf.laid_out(bases)
        self.sections: tuple[Section, ...] = tuple(sections)
        self.segments: tuple[Segment, ...] = elf.segments

    @property
    def is_module(self) -> bool:
        return self.elf.relocatable

    @property
    def symbols_path(self) -> str:
        """The file with the symbols: this one, or its separate debug file."""
        return self._symbols_from.path

    def section_name(self, index: int) -> str:
        """The name of the section of that number, even if a symbol claims one that does not exist."""
        return self.sections[index].name if index < len(self.sections) else f"section {index}"

    @property
    def build_id(self) -> str | None:
        return self._build.build_id if self._build is not None else self._build_id_in_file

    @cached_property
    def _build_id_in_file(self) -> str | None:
        return self.elf.build_id

    @property
    def banner(self) -> bytes | None:
        """The bytes of `linux_banner` up to its newline, or None: what a running kernel's memory is compared with."""
        return self._build.banner if self._build is not None else self._banner_in_file

    @property
    def release(self) -> str | None:
        """The kernel release (uname -r)."""
        return self._build.release if self._build is not None else release_of(self.banner)

    def take_build_of(self, other: KernelImage) -> None:
        """Take over what identifies the build from an image that was found to be of the same one."""
        self._build = Build(other.build_id, other.banner, other.release)

    @cached_property
    def listed(self) -> SymbolList | None:
        """The list that its symbols come from; None if they come from an ELF file."""
        return self._listed() if callable(self._listed) else self._listed

    @property
    def has_list_at_hand(self) -> bool:
        """Whether its symbols are a list that has already been read."""
        return self._listed is not None and not callable(self._listed)

    @property
    def has_symbol_table(self) -> bool:
        """Whether an ELF file has its symbols, with their sizes."""
        return self._listed is None and bool(self.symbols)

    @property
    def has_dwarf(self) -> bool:
        """Whether it, or its separate debug file, has debug information."""
        return self.symbols_path != self.path or any(section.name in DEBUG_INFO for section in self.sections)

    @property
    def has_types(self) -> bool:
        """Whether it, or its separate debug file, has the kernel's types; or its memory, as BTF."""
        return self.has_dwarf or self.symbols.has_name("__start_BTF")

    def with_symbols(self, symbols: SymbolList) -> KernelImage:
        """The same image with the symbols of another source."""
        return KernelImage(
            self.elf,
            name=self.name,
            listed=symbols,
            sections=self.sections,
            extents=self._extents,
            on_disk=self.on_disk,
            sections_source=self.sections_source,
            build=self._build,
        )

    @cached_property
    def symbols(self) -> SymbolTable:
        """The symbol table; the separate debug file's if this one has none."""
        if self._listed is not None:
            from kplug.image.symbols.sorted_list import symbol_table_of

            assert self.listed is not None
            return symbol_table_of(self.elf, self.sections or self._extents, self.listed, self._letter_by_region)
        return SymbolTable(self._symbols_from, self.sections, self.bases, self._letter_by_region)

    def _letter_by_region(self, address: int) -> str | None:
        """nm's letter according to the region. For single symbols only: building the regions needs all of them."""
        return None if self.is_module else letter_by_region(self.regions, address)

    @property
    def extents(self) -> Sequence[Section]:
        """The ranges known to be the image's: its sections, or without any, ranges derived from its symbols."""
        return self.sections or (self.symbols.sections if self._listed is not None else ())

    @cached_property
    def regions(self) -> RegionTree:
        """The linker script's regions, by link address. A module has none."""
        boundaries = {} if self.is_module else self.symbols.boundary_candidates()
        return build_region_tree(boundaries, self.machine, self.script)

    @cached_property
    def index(self) -> SymbolIndex:
        """The symbols by address; boundary symbols hold nothing, but in a list, without sizes, the first code's."""
        regions = (*self.regions.regions, *self.regions.empty)
        markers = {name for region in regions for name in (region.start_symbol, region.end_symbol) if name}
        if self._listed is not None:
            markers.discard(named(self.machine).head_symbol or "")
        starts = {region.start_symbol for region in regions if region.start_symbol}
        return SymbolIndex(self.symbols, markers, starts, self._known_size)

    def _known_size(self, name: str) -> int | None:
        """The size of a table whose symbol has none (scripts/kallsyms.c): strings without a symbol may follow it."""
        each = _KALLSYMS_ENTRIES.get(name)
        if each is None:
            return _KALLSYMS_SIZES.get(name)
        for symbol in self.symbols.exact("kallsyms_num_syms"):
            data = self.elf.read_address(symbol.address, 4)
            return int.from_bytes(data, self.elf.word.order) * each if data is not None else None
        return None

    @cached_property
    def section_to_segment(self) -> tuple[tuple[Section, ...], ...]:
        return section_to_segment_mapping(self.sections, self.segments)

    @property
    def _banner_in_file(self) -> bytes | None:
        return self.banner_place[1] if self.banner_place is not None else None

    @cached_property
    def banner_place(self) -> tuple[int, bytes] | None:
        """The link address of the banner, and its bytes up to the newline; None if the file does not have it."""
        for symbol in self.symbols.exact("linux_banner"):
            data = self.elf.read_address(symbol.address, _BANNER_LIMIT) or b""
            if data.startswith(_BANNER_START):
                return symbol.address, data.split(b"\0", 1)[0].rstrip(b"\n")
        if self.is_module or self.symbols.has_name("linux_banner"):
            return None
        from kplug.image.banner import banners_at

        for address, data in self.elf.constants():  # kallsyms of functions only (without CONFIG_KALLSYMS_ALL)
            for position, banner in banners_at(data):
                return address + position, banner
        return None
