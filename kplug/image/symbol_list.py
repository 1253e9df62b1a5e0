"""Symbols as kallsyms and System.map have them: an address, nm's letter and a name, no size and no section."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SymbolList:
    """Columns, one value for each symbol, in the order of the source.

    `strings` holds the names, a NUL after each; `name_offsets` (an array of "I") says where each begins in it.
    `letters` is one byte for each symbol: nm's letter. `source` names where they are from, for the user.
    """

    strings: bytes
    name_offsets: array[int]
    addresses: Sequence[int]
    letters: bytes
    source: str

    def __len__(self) -> int:
        return len(self.addresses)

    def name(self, number: int) -> str:
        """The name of a symbol by its number."""
        start = self.name_offsets[number]
        return self.strings[start : self.strings.index(b"\0", start)].decode("utf-8", "backslashreplace")
