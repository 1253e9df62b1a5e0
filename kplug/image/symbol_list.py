"""Symbols as kallsyms and System.map have them: an address, nm's letter and a name, no size and no section."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


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

    @cached_property
    def names(self) -> list[bytes]:
        """The names in the order of the columns."""
        names = self.strings.split(b"\0")
        if len(names) == len(self.name_offsets) + 1 and not names[-1]:
            return names[:-1]
        return [self.strings[start : self.strings.index(b"\0", start)] for start in self.name_offsets]

    @cached_property
    def numbers(self) -> dict[bytes, int]:
        """The number of each name; of several symbols of one name the last one's."""
        return dict(zip(self.names, range(len(self.names))))

    def address(self, name: str) -> int | None:
        """The address of the symbol of that name, or None."""
        number = self.numbers.get(name.encode())
        return None if number is None else self.addresses[number]

    def name(self, number: int) -> str:
        """The name of a symbol by its number."""
        start = self.name_offsets[number]
        return self.strings[start : self.strings.index(b"\0", start)].decode("utf-8", "backslashreplace")
