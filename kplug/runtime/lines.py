"""Source lines and inlined callers from DWARF, through drgn (its libdw reads 600 MB of it in milliseconds)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kplug import model
from kplug.errors import InputError, UsageError
from kplug.image.elf import ElfFile
from kplug.image.opening import find_debug_file
from kplug.image.placed import PlacedImage
from kplug.model import Layer

if TYPE_CHECKING:
    import drgn

SOURCE = "DWARF, read by drgn"


class DrgnLines:
    """Source lines of images, asked by link address (of a module: by runtime address). Implements `LineSource`.

    Each image is opened at the first question about it. Raises UsageError if drgn is not installed.
    """

    def __init__(self, images: Sequence[PlacedImage]) -> None:
        try:
            import drgn
        except ImportError:
            raise UsageError(
                "source lines (-l) are read through drgn, which is not installed: pip install 'kplug[drgn]'"
            ) from None
        self._drgn = drgn
        self._programs: dict[int, drgn.Program | None] = {}

    def without_dwarf(self, images: Sequence[PlacedImage]) -> list[str]:
        """The paths of the images that have no DWARF, neither themselves nor in a separate debug file."""
        return [placed.image.path for placed in images if self._dwarf_file(placed) is None]

    @staticmethod
    def _dwarf_file(placed: PlacedImage) -> ElfFile | None:
        elf = placed.image.elf
        if elf.section(".debug_info"):
            return elf
        found = find_debug_file(elf)
        return found if found is not None and found.section(".debug_info") else None

    def line_layers(self, address: int, link_address: int, placed: PlacedImage) -> Iterable[Layer]:
        """The source line of a code address; nothing where the DWARF has none (data, assembly without it)."""
        number = id(placed.image)
        if number not in self._programs:
            self._programs[number] = self._program(placed)
        program = self._programs[number]
        if program is None:
            return
        try:
            locations = program.source_location(link_address)
        except LookupError:
            return
        yield line_layer([(place.name(), place.filename, place.line) for place in locations], SOURCE)

    def _program(self, placed: PlacedImage) -> drgn.Program | None:
        """A drgn program that holds the image's DWARF at its link addresses; None if there is no DWARF."""
        image, elf = placed.image, self._dwarf_file(placed)
        if elf is None:
            return None
        program = self._drgn.Program()
        if image.is_module:
            module = program.relocatable_module(image.name, min((image.bases or {}).values(), default=0), create=True)
        else:
            module = program.extra_module(image.name, create=True)
        if isinstance(module, tuple):  # (module, whether it is new): drgn 0.0.31 to 0.2
            module = module[0]
        held = [section for section in image.sections if section.occupies_addresses]
        if image.is_module:
            for section in held:
                module.section_addresses[section.name] = section.address
        if held:
            code = [section for section in held if section.address]
            module.address_range = (min(s.address for s in code), max(s.end for s in code))
        try:
            module.try_file(elf.path)
        except Exception as error:  # drgn raises bare Exception for what libdw rejects
            raise InputError(f"{elf.path}: its DWARF cannot be read: {error}") from None
        return program if module.debug_file_status.name == "HAVE" else None


def line_layer(chain: Sequence[tuple[str, str, int]], source: str) -> Layer:
    """The `line` layer for the functions at an address, innermost first: (function, file, line) each.

    With one entry nothing is inlined; with more, all but the last are, and the last is the function that holds them.
    """
    _, file, line = chain[0]
    inlined = [{"function": f, "file": p, "line": n} for f, p, n in chain] if len(chain) > 1 else []
    return Layer(model.LINE, f"{file}:{line}", None, None, source, {"file": file, "line": line, "inlined": inlined})
