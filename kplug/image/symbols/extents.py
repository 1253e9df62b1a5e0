"""What the symbols say of an address: the extent of one, or the gap between two."""

from __future__ import annotations

from kplug.image.symbols.symbol import Symbol
from kplug.named_tuples import NamedTuple


class Extent(NamedTuple):
    """The symbols at one address of the symbol table: the chosen symbol, the others, and the range.

    `end` is exclusive. A sizeless symbol reaches to the next symbol, boundary marker or section end (`sizeless` true).
    A boundary marker alone at its address holds nothing: `end == start`, and it answers for that address only.
    """

    start: int
    end: int
    symbol: Symbol
    aliases: tuple[str, ...]
    sizeless: bool


class Padding(NamedTuple):
    """Bytes that no symbol holds, between two that do. None at the edge of a section."""

    start: int
    end: int
    after: str | None
    before: str | None
