"""Answers for whole stretches of an image: in a long log, most addresses lie where another one did."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Optional

from kplug import model
from kplug.kinds import in_order
from kplug.model import SharedLayers

if TYPE_CHECKING:
    from kplug.image.placed import Piece, PlacedImage
    from kplug.model import Layer
    from kplug.space.address_space import AddressSpace
    from kplug.space.locators import AreaLocator


# What the addresses up to an end have in common: that end, the distance from their link addresses if these are known,
# their class and layers. A plain tuple, as a long log has thousands of these.
Known = tuple[int, Optional[int], str, SharedLayers]

_BLOCK_BITS = 16


class Stretches:
    """The stretches of one image of which nothing else says anything: its layers and the area are the whole answer."""

    def __init__(self, placed: PlacedImage, space: AddressSpace | None, area: AreaLocator | None) -> None:
        self._placed = placed
        self._space = space
        self._area = area
        self._known: dict[int, Known] = {}  # by their starts
        # For each block of addresses that was asked about the starts of its stretches, sorted, and these: to put one
        # into a list of all would move half of them.
        self._blocks: dict[int, tuple[list[int], list[Known]]] = {}
        self._outer: dict[int, tuple[Layer, ...] | None] = {}

    def __len__(self) -> int:
        return len(self._known)

    def at(self, address: int) -> Known | None:
        """What is known of the stretch around an address; None where the answer needs more than that."""
        block = self._blocks.get(address >> _BLOCK_BITS)
        if block is not None:
            position = bisect_right(block[0], address)
            if position:
                known = block[1][position - 1]
                if address < known[0]:
                    return known
        return self._look_up(address)

    def forget(self) -> None:
        """Give back the memory of what was asked so far."""
        self._known.clear()
        self._blocks.clear()
        self._placed.forget_symbols()

    def around(self, address: int) -> tuple[int, Known] | None:
        """As `at`, with the start of the stretch."""
        known = self.at(address)
        if known is None:
            return None
        starts = self._blocks[address >> _BLOCK_BITS][0]
        return starts[bisect_right(starts, address) - 1], known

    def _look_up(self, address: int) -> Known | None:
        stretch = self._placed.stretch(address)
        if stretch is None:
            return None
        piece, start, end, moved, symbols = stretch
        if piece.start not in self._outer:
            self._outer[piece.start] = self._outer_layers(address, piece)
        outer = self._outer[piece.start]
        if outer is None:
            return None
        known = self._known.get(start)
        if known is None or address >= known[0]:
            link_moved = moved if self._placed.placement.link_known else None
            known = self._known[start] = end, link_moved, piece.region_class, SharedLayers(outer, symbols)
        starts, stretches = self._blocks.setdefault(address >> _BLOCK_BITS, ([], []))
        position = bisect_right(starts, start)
        starts.insert(position, start)
        stretches.insert(position, known)
        return known

    def _outer_layers(self, address: int, piece: Piece) -> tuple[Layer, ...] | None:
        """The layers around the symbols of a piece; None if they are not the same everywhere in it."""
        placement = self._placed.placement
        start, end = placement.runtime(piece.start), placement.runtime(piece.end - 1)
        if piece.region_class == model.PERCPU_CLASS or (placement.unmoved is not None and address in placement.unmoved):
            return None  # these have other readings as well
        if self._space is None or self._area is None:
            return piece.layers
        area = self._space.area_at(address)
        if not area.start <= start <= end < area.end:
            return None
        if any(part.start <= end and start < part.end for part in area.parts):
            return None
        area_layers = tuple(self._area.locate(address))
        return area_layers + piece.layers if in_order((area_layers, piece.layers))[:1] == [*area_layers] else None
