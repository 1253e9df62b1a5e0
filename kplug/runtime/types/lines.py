"""Source lines and inlined callers from DWARF, through drgn (its libdw reads 600 MB of it in milliseconds)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kplug import model
from kplug.errors import InputError, UsageError
from kplug.image.elf.file import ElfFile
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.debug_files import NO_DWARF, dwarf_file, supplement_of, why_no_dwarf
from kplug.image.placed import PlacedImage
from kplug.image.source_paths import in_tree
from kplug.model import Layer

if TYPE_CHECKING:
    import drgn

# A log may have a million distinct addresses.
_MOST_KEPT = 50_000

SOURCE = "DWARF, read by drgn"


class DrgnLines:
    """Source lines of images, by link address (in a module: by runtime address). Implements `LineSource`.

    `warnings` report which of the `images` have no DWARF; others may be asked about as well. Each image's DWARF is
    opened at the first question about it. Raises UsageError if drgn is not installed, or too old.
    """

    def __init__(self, images: Sequence[PlacedImage]) -> None:
        try:
            import drgn
        except ImportError:
            raise UsageError(
                "source lines (-l) are read through drgn, which is not installed: pip install drgn"
            ) from None
        if not hasattr(drgn.Program, "source_location"):  # 0.1.0
            raise UsageError("source lines (-l) need drgn 0.1.0 or newer: pip install --upgrade drgn")
        self._drgn = drgn
        self._dwarf: dict[int, tuple[PlacedImage, ElfFile | None]] = {}
        self._programs: dict[int, drgn.Program] = {}
        self._layers: dict[tuple[int, int], Layer | None] = {}
        # Warnings for images without DWARF, both in themselves and in a separate debug file, or without a part of it.
        self.warnings = [f"no source lines: {why}" for placed in images if (why := _why_no_dwarf(placed)) is not None]

    def line_layers(self, address: int, link_address: int, placed: PlacedImage) -> Iterable[Layer]:
        """The source line of a code address; nothing if the DWARF has none (data, assembly without it)."""
        key = id(placed.image), link_address
        if key not in self._layers:
            if len(self._layers) >= _MOST_KEPT:
                self._layers.clear()
            self._layers[key] = self._layer(link_address, placed)
        layer = self._layers[key]
        return () if layer is None else (layer,)

    def _dwarf_of(self, placed: PlacedImage) -> ElfFile | None:
        key = id(placed.image)
        if key not in self._dwarf:
            self._dwarf[key] = placed, _dwarf_file(placed)  # the image is kept, so that its id stays its own
        return self._dwarf[key][1]

    def _layer(self, link_address: int, placed: PlacedImage) -> Layer | None:
        elf = self._dwarf_of(placed)
        if elf is None:
            return None
        try:
            program = self._program(elf, placed)
            chain = [(place.name(), place.filename, place.line) for place in program.source_location(link_address)]
        except LookupError:
            return None
        except Exception as error:  # drgn raises bare Exception for what libdw rejects
            raise InputError(f"{elf.path}: its DWARF cannot be read: {error}") from None
        # A broken line table gives places without a file.
        return line_layer(chain, SOURCE) if chain and chain[0][1] and chain[0][2] else None

    def _program(self, elf: ElfFile, placed: PlacedImage) -> drgn.Program:
        """A drgn program with the image's DWARF at its link addresses."""
        image = placed.image
        if id(image) not in self._programs:
            program, module = self._loaded(elf, image)
            bias = module.debug_file_bias
            if bias and not image.is_module:
                # drgn takes the address range to begin at the lowest segment of a file that it does not know for a
                # vmlinux, as one of `objcopy --only-keep-debug`: on x86 that is the per-CPU segment, at 0.
                program, _ = self._loaded(elf, image, bias)
            self._programs[id(image)] = program
        return self._programs[id(image)]

    def _loaded(self, elf: ElfFile, image: KernelImage, bias: int = 0) -> tuple[drgn.Program, drgn.Module]:
        """A program with the image's DWARF, `bias` bytes lower than drgn takes it to be."""
        program = self._drgn.Program()
        module: drgn.Module
        if image.is_module:
            relocatable = program.relocatable_module(
                image.name, min((image.bases or {}).values(), default=0), create=True
            )
            module = relocatable[0] if isinstance(relocatable, tuple) else relocatable  # a tuple up to 0.2
            for section in image.sections:
                if section.occupies_addresses:
                    module.section_addresses[section.name] = section.address
        else:
            extra = program.extra_module(image.name, create=True)
            module = extra[0] if isinstance(extra, tuple) else extra
        code = [section for section in image.sections if section.occupies_addresses and section.address]
        if image.is_module:  # the addresses of its per-CPU section are offsets, and no part of it
            code = [section for section in code if section.executable]
        if code:
            module.address_range = (min(s.address for s in code) - bias, max(s.end for s in code))
        module.try_file(elf.path)
        supplement = supplement_of(elf)
        if supplement is not None and supplement.path is not None:
            module.try_file(supplement.path)
        return program, module


def _dwarf_file(placed: PlacedImage) -> ElfFile | None:
    """The file with the image's DWARF: its own, or its separate debug file; None if it cannot be read."""
    found = dwarf_file(placed.image.elf) if placed.image.on_disk else None
    return None if found is not None and _is_too_old(found) else found


def _is_too_old(elf: ElfFile) -> bool:
    """Whether it is a module whose DWARF is compressed in the older form: libdw does not relocate that."""
    return elf.relocatable and elf.section(".zdebug_info") is not None


def _why_no_dwarf(placed: PlacedImage) -> str | None:
    """Why there are no lines, for the user; None if there may be."""
    image = placed.image
    found = dwarf_file(image.elf) if image.on_disk else None
    if found is not None and _is_too_old(found):
        return (
            f"the DWARF of {found.path} is compressed as .zdebug_info, which libdw does not read in a module "
            "(`objcopy --decompress-debug-sections` makes one that it reads)"
        )
    return why_no_dwarf(image.elf) if image.on_disk else NO_DWARF.format(path=image.path)


def line_layer(chain: Sequence[tuple[str, str, int]], source: str) -> Layer:
    """The `line` layer for the functions at an address, innermost first: (function, file, line) each.

    With one entry nothing is inlined; with more, all but the last are inlined, into the last one.
    """
    places = [{"function": function, "file": in_tree(path), "line": line} for function, path, line in chain]
    file, line = places[0]["file"], places[0]["line"]
    inlined = places if len(places) > 1 else []
    return Layer(model.LINE, f"{file}:{line}", None, None, source, {"file": file, "line": line, "inlined": inlined})
