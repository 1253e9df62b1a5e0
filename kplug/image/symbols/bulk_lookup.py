"""Symbols for many addresses at once: link addresses are divided where the answer changes, so one bisection answers.

The answers are those of `SymbolIndex.innermost`, which is called for the rare cases (symbols inside others).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import repeat

from kplug.image.symbols.by_address import SymbolIndex
from kplug.image.symbols.extents import Extent

_NOTHING = -1


class SymbolIntervals:
    """The intervals of one index. `holds` says whether the image has anything at a link address: markers outside it,
    such as the end of its last section, name nothing.
    """

    def __init__(self, index: SymbolIndex, holds: Callable[[int], bool]) -> None:
        self._index = index
        # Columns: the start of a piece, the start of its symbol, and the symbol's sorted position (or _NOTHING).
        self._cuts: list[int] = []
        self._bases: list[int] = []
        self._positions: list[int] = []
        self._markers: dict[int, Extent] = {}  # by piece
        self._cut_at_symbols()
        self._cut_at_markers(holds)
        # Piece 0 is everything before the first cut.
        self._bases.insert(0, _NOTHING)
        self._positions.insert(0, _NOTHING)
        self._names = _Names(self._name)

    def pieces(self, link_addresses: Sequence[int]) -> list[int]:
        """The number of the piece that holds each address; 0 is before the first."""
        return list(map(bisect_right, repeat(self._cuts), link_addresses))

    def names(self, pieces: Sequence[int]) -> list[str | None]:
        """The symbol's name for each piece, None where there is none."""
        return list(map(self._names.__getitem__, pieces))

    def offsets(self, pieces: Sequence[int], link_addresses: Sequence[int]) -> list[int | None]:
        """The distance of each address from its symbol's start, None where there is no symbol."""
        return [
            address - base if base >= 0 else None
            for base, address in zip(map(self._bases.__getitem__, pieces), link_addresses)
        ]

    def _name(self, piece: int) -> str | None:
        if piece in self._markers:
            return self._markers[piece].symbol.name
        position = self._positions[piece]
        return None if position == _NOTHING else self._index.extent_at(position).symbol.name

    def _cut(self, start: int, base: int = _NOTHING, position: int = _NOTHING) -> None:
        self._cuts.append(start)
        self._bases.append(base)
        self._positions.append(position)

    def _cut_at_symbols(self) -> None:
        starts, ends, reach = self._index.columns()
        count, position, limit = len(starts), 0, 0
        while position < count:
            start, following = starts[position], position + 1
            while following < count and starts[following] == start:
                following += 1
            end = ends[position] if following == position + 1 else max(ends[position:following])
            if end == start:
                end = self._index.extent_at(position).end  # sizeless: up to the next symbol
            limit = starts[following] if following < count else max(end, reach[-1])
            self._cut(start, start, position)
            if end < limit:
                if reach[following - 1] <= end:
                    self._cut(end)
                else:
                    self._cut_inside(end, limit)
            position = following
        if count and self._positions[-1] != _NOTHING:
            self._cut(limit)

    def _cut_inside(self, address: int, limit: int) -> None:
        """The pieces between the end of a symbol and the next start, inside larger symbols."""
        starts = self._index.columns()[0]
        while address < limit:
            outer = self._index.innermost(address)
            if outer is None or outer.end <= address:
                self._cut(address)
                return
            self._cut(address, outer.start, bisect_left(starts, outer.start))
            address = outer.end

    def _cut_at_markers(self, holds: Callable[[int], bool]) -> None:
        """A piece of one address for each marker that is alone at its address."""
        cuts, bases, positions = self._cuts, self._bases, self._positions
        self._cuts, self._bases, self._positions = [], [], []
        done = 0
        for address in self._index.marker_addresses():
            piece = bisect_right(cuts, address) - 1
            if (piece >= 0 and positions[piece] != _NOTHING) or not holds(address):
                continue
            extent = self._index.innermost(address)
            if extent is None:
                continue
            replaced = piece >= 0 and cuts[piece] == address
            upto = max(piece if replaced else piece + 1, done)
            self._cuts += cuts[done:upto]
            self._bases += bases[done:upto]
            self._positions += positions[done:upto]
            self._cut(address, address)
            self._markers[len(self._cuts)] = extent
            if piece + 1 >= len(cuts) or cuts[piece + 1] != address + 1:
                self._cut(address + 1)
            done = piece + 1
        self._cuts += cuts[done:]
        self._bases += bases[done:]
        self._positions += positions[done:]


class _Names(dict[int, "str | None"]):
    """Names by piece, each looked up when it is first needed."""

    def __init__(self, look_up: Callable[[int], str | None]) -> None:
        super().__init__()
        self._look_up = look_up

    def __missing__(self, piece: int) -> str | None:
        name = self[piece] = self._look_up(piece)
        return name
