"""An image in its place: which of its layers hold a runtime address.

The image's link addresses are divided into pieces at every bound of a segment, section or region. Within a piece these
layers are the same for every address, so they are made once. Only the symbol is looked up for each address.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kplug import model
from kplug.arch.types.word import WIDEST_MASK
from kplug.frozen import replace
from kplug.image import layer_kinds as layer_kinds  # importing this declares the kinds of these layers
from kplug.image.elf.sections import Section, Segment
from kplug.image.kernel_image import KernelImage
from kplug.image.placement import Placement
from kplug.image.symbols.extents import Extent
from kplug.image.symbols.symbol import SHN_ABS, Symbol
from kplug.model import Annotation, Layer
from kplug.named_tuples import NamedTuple

if TYPE_CHECKING:
    from kplug.image.symbols.bulk_lookup import SymbolIntervals

# Up to this many bytes between symbols are alignment; more is data without a symbol (string literals, constants).
_ALIGNMENT_BYTES = 64


class Piece(NamedTuple):
    """A range of link addresses with its layers (which have runtime addresses) and a summary of them."""

    layers: tuple[Layer, ...]
    region_class: str
    start: int
    end: int
    section: Section | None
    segment: Segment | None
    region: str | None
    freed_after_boot: bool | None

    @property
    def may_be_code(self) -> bool:
        """Whether there can be code: not in a data section, not even in one of the init region's."""
        return self.region_class in (model.TEXT, model.INIT) and (self.section is None or self.section.executable)


class PlacedImage:
    """A `KernelImage` with its `Placement`. All answers are for runtime addresses.

    `warnings` are what the user should know of where its symbols come from, and go with the answers for its addresses.
    `disputed` is what another source says about a symbol, in words, by name: shown in the answers for these symbols.
    """

    def __init__(
        self,
        image: KernelImage,
        placement: Placement,
        *,
        warnings: Sequence[str] = (),
        disputed: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.image = image
        self.warnings = tuple(warnings)
        self.disputed = disputed
        mask = image.elf.word.mask
        narrow = placement.mask != mask
        self.placement = (
            replace(placement, kaslr_offset=placement.kaslr_offset & mask, mask=mask) if narrow else placement
        )
        self._held_sections = sorted((s for s in image.sections if s.occupies_addresses), key=_by_width)
        self._held_segments = sorted((s for s in image.segments if s.memory_size), key=_by_width)
        self._pieces: dict[int, Piece | None] = {}
        self._symbol_layers: dict[int, Layer] = {}
        self._gap_layers: dict[int, Layer] = {}

    @cached_property
    def _bare_extents(self) -> list[Section]:
        """The ranges known to be the image's, if it has no sections."""
        return [] if self.image.sections else [extent for extent in self.image.extents if extent.occupies_addresses]

    @cached_property
    def _bounds(self) -> list[int]:
        bounds = set(self.image.regions.boundaries())
        for section in (*self._held_sections, *self._bare_extents):
            bounds.update((section.address, section.end))
        for segment in self._held_segments:
            bounds.update((segment.address, segment.end))
        return sorted(bounds)

    # -- many addresses at once ----------------------------------------------------------------------------------------

    def links(self, addresses: Sequence[int]) -> Sequence[int]:
        """The link addresses of many runtime addresses: `Placement.link` without a call for each."""
        placement = self.placement
        kaslr_offset, mask, unmoved = placement.kaslr_offset, placement.mask, placement.unmoved
        if not kaslr_offset:
            return addresses
        if mask != WIDEST_MASK:
            return [placement.link(address) for address in addresses]
        if unmoved is None:
            return [address - kaslr_offset & mask for address in addresses]
        end = unmoved.stop  # it starts at 0
        return [
            address if address < end or (link := address - kaslr_offset & mask) < end else link for address in addresses
        ]

    def pieces(self, link_addresses: Sequence[int]) -> list[Piece | None]:
        """The piece of each link address, None where the image holds nothing."""
        numbers = list(map(bisect_right, repeat(self._bounds), link_addresses))
        pieces = {number: self._piece(number - 1) for number in set(numbers)}
        return list(map(pieces.__getitem__, numbers))

    @cached_property
    def symbol_intervals(self) -> SymbolIntervals:
        """The look-up of symbols for many link addresses."""
        from kplug.image.symbols.bulk_lookup import SymbolIntervals  # few ask about many

        def holds(link_address: int) -> bool:
            return self._piece(bisect_right(self._bounds, link_address) - 1) is not None

        return SymbolIntervals(self.image.index, holds)

    # -- layers --------------------------------------------------------------------------------------------------------

    def piece(self, address: int) -> Piece | None:
        """The piece that holds a runtime address; None if the image does not."""
        return self._piece(bisect_right(self._bounds, self.placement.link(address)) - 1)

    def _piece(self, number: int) -> Piece | None:
        if number not in self._pieces:
            self._pieces[number] = self._make_piece(number) if 0 <= number < len(self._bounds) - 1 else None
        return self._pieces[number]

    def layers(self, address: int, piece: Piece) -> tuple[Layer, ...]:
        """The layers that hold a runtime address of `piece`, from the image to the symbol."""
        link_address = self.placement.link(address)
        if self.image.link_map is not None:
            return (
                piece.layers
                + self._input_section_layers(link_address)
                + self.symbol_layers(link_address, piece.section)
            )
        return piece.layers + self.symbol_layers(link_address, piece.section)

    def stretch(self, address: int) -> tuple[Piece, int, int, int, tuple[Layer, ...]] | None:
        """The addresses around one that have the same layers: their piece, start and end, how far they were
        moved, and the layers that come after the piece's. None where that is not seen at once, and outside the image.
        """
        link_address = self.placement.link(address)
        piece = self._piece(bisect_right(self._bounds, link_address) - 1)
        found = self.image.index.stretch(link_address) if piece is not None and self.image.link_map is None else None
        if piece is None or found is None:
            return None
        (start, end, extent), moved, layer = found, address - link_address, None
        if extent is not None:
            layer = self._symbol_layers.get(extent.start) or self._symbol_layer(extent)
        elif piece.section is not None:
            layer = self._padding_layer(link_address, piece.section)
        # As max() and min(), for less: a long log has thousands of stretches.
        start, end = piece.start if start < piece.start else start, piece.end if end > piece.end else end
        return piece, start + moved, end + moved, moved, () if layer is None else (layer,)

    def forget_symbols(self) -> None:
        """Give back the memory of the layers of the symbols that were asked about."""
        self._symbol_layers.clear()
        self._gap_layers.clear()

    def symbol_layers(self, link_address: int, section: Section | None) -> tuple[Layer, ...]:
        """The symbols that hold a link address, widest first, or the gap between two of them in its section."""
        chain = self.image.index.chain(link_address)
        layers = tuple([self._symbol_layers.get(extent.start) or self._symbol_layer(extent) for extent in chain])
        if section is not None and not (chain and chain[-1].end > link_address):
            gap = self._padding_layer(link_address, section)
            if gap is not None:
                layers += (gap,)
        return layers

    def _input_section_layers(self, link_address: int) -> tuple[Layer, ...]:
        """The input section that the linker put there, and its object file, from the link map."""
        link_map = self.image.link_map
        entry = link_map.at(link_address) if link_map is not None else None
        if entry is None or link_map is None:
            return ()
        start, end = self.placement.runtime(entry.start), self.placement.runtime(entry.end)
        details = {"type": "input", "flags": "", "link_start": hex(entry.start), "object": entry.object_file}
        return (Layer(model.SECTION, entry.input_section, start, end, f"link map {link_map.path}", details),)

    def symbol_address(self, symbol: Symbol) -> int:
        """The runtime address of a symbol of this image; an absolute number is not changed.

        Absolute symbols with a value inside the image (x86's init_per_cpu__*) are addresses, and the kernel relocates
        them (arch/x86/tools/relocs.c).
        """
        if symbol.section_index == SHN_ABS and not self._holds_link_address(symbol.address):
            return symbol.address
        return self.placement.runtime(symbol.address)

    def disagreements(self, annotation: Annotation) -> tuple[str, ...]:
        """Warnings for the symbols of an answer about which another source says something else."""
        if not self.disputed:
            return ()
        names = (layer.name for layer in annotation.layers if layer.kind == model.SYMBOL)
        return tuple(self.disputed[name] for name in names if name in self.disputed)

    def link_address(self, address: int) -> int | None:
        """The link address for a runtime address; None for a module (it has none), or if it is not known."""
        return None if self.image.is_module or not self.placement.link_known else self.placement.link(address)

    def knows_end(self, link_address: int) -> bool:
        """Whether the end of a symbol at that link address is known."""
        return True

    @property
    def is_packed(self) -> bool:
        """Whether a symbol without a size reaches to the next one, as functions do: not generated code."""
        return True

    def is_placed(self, section_index: int) -> bool:
        """Whether the addresses of that section are known: not for a module's section without an address."""
        return self.image.bases is None or section_index in self.image.bases or section_index == SHN_ABS

    def why_unplaced(self, section: str) -> str | None:
        """Why the address of a section is not known, in words that follow its name; None if giving it would help."""
        return None

    def _holds_link_address(self, link_address: int) -> bool:
        root = self.image.regions.root
        return root is not None and root.start <= link_address <= root.end

    def _make_piece(self, number: int) -> Piece | None:
        start, end = self._bounds[number], self._bounds[number + 1]
        image = self.image
        sections = [s for s in self._held_sections if s.address <= start < s.end]
        segments = [s for s in self._held_segments if s.address <= start < s.end]
        regions = image.regions.chain(start)
        root = image.regions.root
        in_root = root is not None and root.start <= start < root.end
        bare = any(extent.address <= start < extent.end for extent in self._bare_extents)
        if not (sections or segments or regions or in_root or bare):
            return None
        layers = [self._image_layer(in_root)]
        runtime = self.placement.runtime
        delta = runtime(start) - start
        for segment in segments:
            details: dict[str, Any] = {
                "type": segment.type,
                "flags": segment.flag_letters,
                "index": segment.index,
            }
            layers.append(
                Layer(model.SEGMENT, segment.name, segment.address + delta, segment.end + delta, "ELF header", details)
            )
        for section in sections:
            details = {"type": section.type, "flags": section.flag_letters, "link_start": None}
            if not image.is_module:
                details["link_start"] = hex(section.address)
            layers.append(
                Layer(
                    model.SECTION,
                    section.name,
                    section.address + delta,
                    section.end + delta,
                    image.sections_source,
                    details,
                )
            )
        for region in regions:
            details = {
                "start_symbol": region.start_symbol,
                "end_symbol": region.end_symbol,
                "freed_after_boot": region.freed_after_boot,
                "read_only_after_init": region.read_only_after_init,
            }
            layers.append(
                Layer(model.REGION, region.name, region.start + delta, region.end + delta, region.source, details)
            )
        gap = None if regions else image.regions.gap(start)
        if gap is not None:
            details = {"after": gap.after, "before": gap.before, "why": gap.why}
            layers.append(
                Layer(
                    model.GAP,
                    f"{gap.after} .. {gap.before}",
                    gap.start + delta,
                    gap.end + delta,
                    "boundary symbols",
                    details,
                )
            )
        section_here = sections[-1] if sections else None
        read_only = gap is not None and bool(gap.read_only_after_init)
        region_class = image.regions.region_class(start) or _class_of_section(section_here, read_only)
        return Piece(
            layers=tuple(layers),
            region_class=region_class,
            start=start,
            end=end,
            section=section_here,
            segment=segments[0] if segments else None,
            region=regions[-1].name if regions else None,
            freed_after_boot=regions[-1].freed_after_boot if regions else None,
        )

    def _image_layer(self, in_root: bool) -> Layer:
        image, root = self.image, self.image.regions.root
        start = end = None
        details: dict[str, Any] = {
            "release": image.release,
            "build_id": image.build_id,
            "slide": self.placement.kaslr_offset_text if self.placement.known and not image.is_module else None,
            "path": image.path,
        }
        if root is not None and in_root:
            start, end = self.placement.runtime(root.start), self.placement.runtime(root.end)
            details["start_symbol"], details["end_symbol"] = root.start_symbol, root.end_symbol
        kind = model.MODULE if image.is_module else model.IMAGE
        return Layer(kind, image.name, start, end, self.placement.source, details)

    def _symbol_layer(self, extent: Extent) -> Layer:
        symbol, table = extent.symbol, self.image.symbols
        start, knows_end = self.placement.runtime(extent.start), self.knows_end(extent.symbol.address)
        details: dict[str, Any] = {
            "type": symbol.letter,
            "binding": symbol.binding or None,
            "size": (symbol.size or None) if knows_end else None,
            "sizeless": extent.sizeless or not table.sizes_are_stated,
            "aliases": list(extent.aliases),
        }
        if table.letters_may_differ and table.listed_letter(symbol.entry) != symbol.letter:
            details["listed_type"] = table.listed_letter(symbol.entry)
        file = table.file_of(symbol)
        if file:
            details["file"] = file
        whole = symbol.whole
        if whole:
            details["part_of"] = whole
        end = start + extent.end - extent.start if knows_end else start
        layer = Layer(model.SYMBOL, symbol.name, start, end, table.source, details)
        self._symbol_layers[extent.start] = layer
        return layer

    def _padding_layer(self, link_address: int, section: Section) -> Layer | None:
        padding = self.image.index.padding(link_address, section.address, section.end)
        if padding.start in self._gap_layers:
            return self._gap_layers[padding.start]
        if padding.after is None and padding.before is None:
            return None  # a section without symbols is not a gap between symbols
        if section.executable or padding.end - padding.start <= _ALIGNMENT_BYTES:
            name, why = "padding", "no symbol holds it: alignment between two symbols"
        else:
            name, why = "unnamed", "no symbol holds it: data without a name (literals, constants) or alignment"
        details = {
            "after": padding.after or f"start of {section.name}",
            "before": padding.before or f"end of {section.name}",
            "why": why,
        }
        delta = self.placement.runtime(link_address) - link_address
        layer = Layer(model.GAP, name, padding.start + delta, padding.end + delta, self.image.symbols.source, details)
        self._gap_layers[padding.start] = layer
        return layer


def _by_width(held: Any) -> tuple[int, int]:
    """Widest first; the order in the file decides between equals."""
    return (held.address - held.end, held.index)


def _class_of_section(section: Section | None, read_only: bool) -> str:
    """The class if no region gives one: by section type, how it is mapped, and flags; none without a section."""
    if section is None:
        return model.NO_CLASS
    if section.executable:
        return model.TEXT
    if section.type == "NOBITS":
        return model.BSS
    return model.DATA if section.writable and not read_only else model.RODATA
