"""Answers within a module whose load address is not known, from its file: what a line of a log states is enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from kplug import model
from kplug.errors import InputError
from kplug.frozen import replace
from kplug.image.elf.modinfo import module_fields
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import module_name, open_elf, symbols_file
from kplug.image.opening.module_files import ModuleFiles
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement
from kplug.model import Annotation
from kplug.names import of_size, symbols_named
from kplug.outputs import InModule, Problem

if TYPE_CHECKING:
    from kplug.log.lines import Mention
    from kplug.names import Match
    from kplug.resolver import LineSource

# Any address will do, as long as it is not 0, which debug information has for code that was dropped.
_BASE = 1 << 32


class UnplacedModules:
    """The files of a kernel's modules. `directories` are those that the user named; others are usual for the kernel in
    `main`. `lines` gives source lines, if they are wanted."""

    def __init__(self, directories: Sequence[str], main: PlacedImage | None, lines: LineSource | None) -> None:
        self._directories = tuple(directories)
        self._main = main
        self._lines = lines
        self._opened: dict[tuple[str, str | None], tuple[PlacedImage | None, tuple[str, ...]]] = {}

    def answers(self, mention: Mention, text: str) -> Iterator[InModule | Problem]:
        """The answers for a symbol in a module, none without a file of the module; a problem if no file will do, unless
        the line has an address as well."""
        assert mention.module is not None
        placed, refused = self._file(mention.module, mention.build_id)
        if placed is not None:
            matches, notes = self._matches(mention, placed)
            for match in matches:
                yield self._answer(match, placed, mention, text, notes)
            if matches:
                return
            refused = (f"{placed.image.path} has no symbol {mention.symbol}",)
        if refused and mention.address is None:
            yield Problem(f"{mention.text}: {'; '.join(refused)}")

    def _matches(self, mention: Mention, placed: PlacedImage) -> tuple[Sequence[Match], list[str]]:
        name = str(mention.symbol)
        found = symbols_named(name, None, [placed])
        other = None
        if mention.size is not None:
            fitting = of_size(mention.size, name, found, [placed])
            if fitting.matches:
                found = fitting
            else:
                other = f"no symbol {name} in {placed.image.path} has the size {mention.size:#x}: another build?"
        return found.matches, [note for note in (found.note, other, mention.note) if note is not None]

    def _answer(self, match: Match, placed: PlacedImage, mention: Mention, text: str, notes: Sequence[str]) -> InModule:
        assert match.symbol is not None
        section = placed.image.sections[match.symbol.section_index]
        address = match.address + (mention.offset or 0)
        piece = placed.piece(address)
        layers = placed.layers(address, piece) if piece is not None else ()
        if self._lines is not None and piece is not None:
            layers += tuple(self._lines.line_layers(address, address, placed))
        start = section.address

        def counted(layer: model.Layer) -> model.Layer:
            if layer.start is None or layer.end is None or layer.kind == model.MODULE:
                return replace(layer, start=None, end=None)
            return replace(layer, start=layer.start - start, end=layer.end - start)

        unplaced = (
            f"where module {placed.image.name} is loaded is not known: counted from the start of its {section.name}"
        )
        region_class = piece.region_class if piece is not None else model.NO_CLASS
        layers = tuple(counted(layer) for layer in layers)
        warnings = (*notes, unplaced)
        annotation = Annotation(
            text, address - start, None, region_class, layers, warnings=warnings, bits=placed.image.elf.bits
        )
        return InModule(annotation, section.name)

    def _file(self, name: str, build_id: str | None) -> tuple[PlacedImage | None, tuple[str, ...]]:
        """The module's file with each section at some place; sentences on why others of its name will not do."""
        key = name, build_id
        if key not in self._opened:
            refused: list[str] = []
            found = None
            for path in self._files.paths(name):
                try:
                    found = self._placed(path, build_id, refused)
                except InputError as error:
                    refused.append(f"not used: {error}")
                if found is not None:
                    break
            self._opened[key] = found, tuple(refused)
        return self._opened[key]

    def _placed(self, path: str, build_id: str | None, refused: list[str]) -> PlacedImage | None:
        elf = open_elf(path)
        release = self._main.image.release if self._main is not None else None
        built_for = next((field.value.split()[:1] for field in module_fields(elf) if field.key == "vermagic"), [])
        if release is not None and built_for and built_for[0] != release:
            refused.append(f"{path} is not used: it is of kernel {built_for[0]}, not {release}")
            return None
        if build_id is not None and elf.build_id is not None and elf.build_id != build_id:
            refused.append(f"{path} is not used: its build ID is {elf.build_id}, the one in the line {build_id}")
            return None
        bases: dict[int, int] = {}
        end = _BASE
        for section in elf.sections:
            if section.allocated:
                alignment = max(section.alignment, 0x1000)
                bases[section.index] = end = (end + alignment - 1) // alignment * alignment
                end += section.size
        image = KernelImage(elf, name=module_name(elf), symbols_from=symbols_file(elf), bases=bases)
        return PlacedImage(image, Placement(0, path))

    @cached_property
    def _files(self) -> ModuleFiles:
        image = self._main.image if self._main is not None else None
        return ModuleFiles(self._directories, image.release if image else None, image.path if image else None)
