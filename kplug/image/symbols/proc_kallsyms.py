"""/proc/kallsyms of the running kernel as a list of symbols, of which only the requested ones are decoded.

The kernel writes all lines in one form, sorted by address, since it searches its own table by address
(get_symbol_pos() in kernel/kallsyms.c). The order and the letters are checked in every line. Other errors in a line are
found when it is requested, or when all are.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import compress, count, islice
from operator import gt, itemgetter
from typing import overload

from kplug.image.symbols.symbol_list import SymbolList, affixed, numbers_among

# nm's letters, except those of symbols without an address.
_LETTERS = bytes(set(range(ord("!"), ord("~") + 1)) - set(b"NUuw"))
_START = rb"(?:[0-9a-f]{16}|[0-9a-f]{8}) [!-~] \S+\Z"


class SymbolLines(SymbolList):
    """The symbols of `lines`, sorted, each an address of `digits` hexadecimal digits, a letter and a name.

    They are in `text` up to `end`, except those that were `added`.
    `read_all` makes the columns of all of them, at the first question that needs one. InputError names a broken line.
    """

    def __init__(
        self,
        text: bytes,
        end: int,
        lines: list[bytes],
        letters: bytes,
        source: str,
        read_all: Callable[[], SymbolList],
        added: Collection[bytes] = (),
        machine: str = "",
    ) -> None:
        # The columns are made later, and not here.
        self.__dict__.update(_text=text, _end=end, _lines=lines, letters=letters, source=source, _read_all=read_all)
        self.__dict__.update(in_order=True, _digits=text.find(b" "), _added=added, _found={}, machine=machine)

    _text: bytes
    _end: int
    _lines: list[bytes]
    _added: Collection[bytes]
    _digits: int
    _found: dict[bytes, list[int]]
    _read_all: Callable[[], SymbolList]

    @classmethod
    def of(
        cls, text: bytes, end: int, source: str, read_all: Callable[[], SymbolList], machine: str = ""
    ) -> SymbolLines | None:
        """The list in `text` up to `end`; None if its lines have another form, or are not sorted."""
        digits = text.find(b" ")
        lines = text.split(b"\n")
        del lines[len(lines) - text.count(b"\n", end) - 1 :]
        if text[end - 1 : end] != b"\n" or digits not in (8, 16) or not lines:
            return None
        try:
            letters = bytes(map(itemgetter(digits + 1), lines))
        except IndexError:
            return None
        if letters.translate(None, _LETTERS) or b"\0" in text:
            return None
        if not all(re.match(_START, line) for line in (lines[0], lines[-1])):
            return None
        # At one address, they need not be in order.
        falling = compress(count(), map(gt, lines, islice(lines, 1, None)))
        if any(lines[number][:digits] != lines[number + 1][:digits] for number in falling):
            return None
        return cls(text, end, lines, letters, source, read_all, machine=machine)

    def from_source(self, source: str) -> SymbolLines:
        return self._with(self._lines, self.letters, self.boundary_numbers, lambda: self._whole, self._added, source)

    def _with(
        self,
        lines: list[bytes],
        letters: bytes,
        boundary_numbers: Mapping[bytes, int],
        read_all: Callable[[], SymbolList],
        added: Collection[bytes],
        source: str,
    ) -> SymbolLines:
        made = SymbolLines(self._text, self._end, lines, letters, source, read_all, added, self.machine)
        made.__dict__["boundary_numbers"] = boundary_numbers
        return made

    def with_lines(self, added: Collection[bytes], read_all: Callable[[], SymbolList]) -> SymbolLines:
        """The same with more lines, each after those of its address; `read_all` reads them too.

        They are for boundary symbols (`table_symbols`) that no line has.
        """
        lines, letters, numbers = self._lines.copy(), bytearray(self.letters), self.boundary_numbers
        for line in added:
            place = bisect_right(_Addresses(lines, self._digits), int(line[: self._digits], 16))
            lines.insert(place, line)
            letters.insert(place, line[self._digits + 1])
            numbers = {name: number + (number >= place) for name, number in numbers.items()}
            numbers[line[self._digits + 3 :]] = place
        return self._with(lines, bytes(letters), numbers, read_all, (*self._added, *added), self.source)

    # -- the columns: attributes of a list, which nobody writes ----------------------------------------------------

    @cached_property
    def _whole(self) -> SymbolList:
        return self._read_all()

    @cached_property
    def strings(self) -> bytes:  # type: ignore[override]
        return self._whole.strings

    @cached_property
    def name_offsets(self) -> array[int]:  # type: ignore[override]
        return self._whole.name_offsets

    @cached_property
    def addresses(self) -> Sequence[int]:  # type: ignore[override]
        return self._whole.addresses

    # -- without them ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._lines)

    @cached_property
    def lazy_addresses(self) -> Sequence[int]:
        return _Addresses(self._lines, self._digits)

    @property
    def highest(self) -> int:
        return self.lazy_addresses[-1]

    def name_bytes(self, number: int) -> bytes:
        return self._lines[number][self._digits + 3 :]

    def name(self, number: int) -> str:
        return self.name_bytes(number).decode("utf-8", "backslashreplace")

    def holds(self, name: str) -> bool:
        return bool(self.numbers_named(name.encode("utf-8", "surrogateescape")))

    def numbers_named(self, name: bytes) -> list[int]:
        """The numbers of the symbols of exactly that name, in order."""
        if name not in self._found:
            self._found[name] = sorted(self._search(name))
        return self._found[name]

    def tails(self, part: bytes) -> Iterable[bytes]:
        """The tails of names that begin with these bytes; not of those added, which are boundary symbols'."""
        from kplug.image.symbols.source_names import tails  # few questions need it

        return tails(self._text[: self._end], part, b"\n")

    def _search(self, name: bytes) -> set[int]:
        found: set[int] = set()
        for line in self._added:
            if line[self._digits + 3 :] == name:
                found.update(self._alike(line))
        wanted = b" " + name + b"\n"
        position = self._text.find(wanted, 0, self._end) if name else -1
        while position >= 0:
            line = self._text[self._text.rfind(b"\n", 0, position) + 1 : position + len(wanted) - 1]
            if len(line) == self._digits + 2 + len(wanted) - 1:
                found.update(self._alike(line))
            position = self._text.find(wanted, position + 1, self._end)
        return found

    def _alike(self, line: bytes) -> Iterable[int]:
        """The numbers of the lines that are identical to that one."""
        number = bisect_left(self._lines, line[: self._digits])
        while number < len(self._lines) and self._lines[number].startswith(line[: self._digits]):
            if self._lines[number] == line:
                yield number
            number += 1

    def address(self, name: str) -> int | None:
        numbers = self.numbers_named(name.encode("utf-8", "surrogateescape"))
        return self.lazy_addresses[numbers[-1]] if numbers else None

    def numbers_among(self, wanted: Collection[bytes]) -> dict[bytes, int]:
        names = map(itemgetter(slice(self._digits + 3, None)), self._lines)
        return {self.name_bytes(number): number for number in numbers_among(names, frozenset(wanted))}

    def names_like(self, starts: Iterable[bytes], end: bytes) -> set[bytes]:
        # Not the added ones: their names are known.
        return set(affixed(self._text, self._end, b" ", b"\n", starts, end))


class _Addresses(Sequence[int]):
    """The addresses of lines."""

    def __init__(self, lines: list[bytes], digits: int) -> None:
        self._lines = lines
        self._digits = digits

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [int(line[: self._digits], 16) for line in self._lines[index]]
        return int(self._lines[index][: self._digits], 16)
