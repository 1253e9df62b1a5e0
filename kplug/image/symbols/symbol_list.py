"""Symbols as kallsyms and System.map have them: an address, nm's letter and a name, no size and no section."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import compress, count

from kplug.linker.boundary_names import CONVENTIONAL_END, CONVENTIONAL_STARTS, may_be_boundary
from kplug.linker.object_prefixes import OBJECT_PREFIXES

# nm's letters of data; those of static ones, of which a kernel has as many as of code.
DATA_LETTERS, STATIC_DATA_LETTERS = b"dDrRbB", b"drb"
_DATA_MASK = bytes(letter in DATA_LETTERS for letter in range(256))


class SymbolList:
    """Columns, one value for each symbol, in the order of the source.

    `strings` holds the names, a NUL after each; `name_offsets` (an array of "I") has the start of each in it.
    `letters` is one byte for each symbol: nm's letter. `source` names their source, for the user.
    """

    #: The architecture, where it is known beforehand.
    machine = ""

    def __init__(
        self, strings: bytes, name_offsets: array[int], addresses: Sequence[int], letters: bytes, source: str
    ) -> None:
        self.strings = strings
        self.name_offsets = name_offsets
        self.addresses = addresses
        self.letters = letters
        self.source = source

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
    def in_order(self) -> bool:
        """Whether no address is below the one before it."""
        addresses = self.lazy_addresses
        return addresses == sorted(addresses)

    @cached_property
    def lazy_addresses(self) -> Sequence[int]:
        """The addresses as ints, for callers that need few of them."""
        return list(self.addresses)

    @property
    def highest(self) -> int:
        """The highest address; 0 of an empty list."""
        return max(self.addresses, default=0)

    def from_source(self, source: str) -> SymbolList:
        """The same list with another name for its source."""
        return SymbolList(self.strings, self.name_offsets, self.addresses, self.letters, source)

    def with_letters(self, letters: bytes) -> SymbolList:
        """The same symbols with other letters."""
        return SymbolList(self.strings, self.name_offsets, self.addresses, letters, self.source)

    @cached_property
    def numbers(self) -> dict[bytes, int]:
        """The number of each name; the last one if several symbols share it."""
        return dict(zip(self.names, range(len(self.names))))

    def address(self, name: str) -> int | None:
        """The address of the symbol of that name, or None."""
        number = self.numbers.get(name.encode())
        return None if number is None else self.addresses[number]

    def name(self, number: int) -> str:
        """The name of a symbol by its number."""
        start = self.name_offsets[number]
        return self.strings[start : self.strings.index(b"\0", start)].decode("utf-8", "backslashreplace")

    def name_bytes(self, number: int) -> bytes:
        """The name of a symbol by its number, as bytes."""
        start = self.name_offsets[number]
        return self.strings[start : self.strings.index(b"\0", start)]

    def letter(self, number: int) -> int:
        """The letter of a symbol by its number."""
        return self.letters[number]

    @property
    def lists_static_data(self) -> bool:
        """Whether it has static data symbols. kallsyms without KALLSYMS_ALL has hardly any."""
        return 100 * sum(map(self.letters.count, STATIC_DATA_LETTERS)) >= len(self.letters)

    def data_numbers(self) -> list[int]:
        """The numbers of the symbols of data outside text, and perhaps of those in it."""
        return list(compress(count(), self.letters.translate(_DATA_MASK)))

    # -- a few names: one pass, instead of a dictionary of all names ---------------------------------------------------

    def numbers_among(self, wanted: Collection[bytes]) -> dict[bytes, int]:
        """As `numbers`, for the wanted names only."""
        return {self.names[number]: number for number in numbers_among(self.names, frozenset(wanted))}

    @cached_property
    def boundary_numbers(self) -> dict[bytes, int]:
        """The numbers of symbols whose names may be boundary symbols', and of copies of such names."""
        names = may_be_boundary(self.names_like(CONVENTIONAL_STARTS, CONVENTIONAL_END), self.machine)
        return self.numbers_among(with_copies(names))

    def boundary_address(self, name: str) -> int | None:
        """As `address`, for a symbol with the name of a boundary symbol."""
        number = self.boundary_numbers.get(name.encode())
        return None if number is None else self.lazy_addresses[number]

    def holds(self, name: str) -> bool:
        """Whether one of the symbols has that name."""
        wanted = name.encode("utf-8", "surrogateescape") + b"\0"
        return self.strings.startswith(wanted) or b"\0" + wanted in self.strings

    def names_like(self, starts: Iterable[bytes], end: bytes) -> set[bytes]:
        """The names that begin with one of `starts` or end in `end`."""
        text = b"\0" + b"\0".join(self.names) + b"\0"
        return set(affixed(text, len(text), b"\0", b"\0", starts, end))


def no_symbols(why: str) -> SymbolList:
    """An empty list; the reason `why` is given as its source."""
    return SymbolList(b"", array("I"), (), b"", why)


def with_copies(names: Collection[bytes]) -> set[bytes]:
    """The names, and what a build's prefixes make of them."""
    prefixes = [prefix.encode() for prefix in OBJECT_PREFIXES]
    return {*names, *(prefix + name for prefix in prefixes for name in names)}


def numbers_among(names: Iterable[bytes], wanted: frozenset[bytes]) -> Iterable[int]:
    """The numbers of the wanted names, in order."""
    return compress(count(), map(wanted.__contains__, names))


def affixed(
    text: bytes, size: int, before: bytes, after: bytes, starts: Iterable[bytes], end: bytes
) -> Iterator[bytes]:
    """The names in `text[:size]`, each between `before` and `after` (one byte), with these starts or this end."""
    start = re.compile(before + b"(?:" + b"|".join(map(re.escape, starts)) + b")")
    for match in start.finditer(text, 0, size):
        yield text[match.start() + 1 : text.index(after, match.end())]
    position = text.find(end + after, 0, size)
    while position >= 0:
        yield text[text.rindex(before, 0, position) + 1 : position + len(end)]
        position = text.find(end + after, position + 1, size)
