"""/proc/kallsyms of the running kernel as a list of symbols, of which only the requested ones are decoded.

Reading the file takes longer than all else that a question about one symbol needs: a name is searched for in the text,
an address by bisection, and only a question about all symbols has every line cut apart.

The kernel writes all lines in one form, sorted by address, since it searches its own table by address
(get_symbol_pos() in kernel/kallsyms.c). A sample of the lines is checked at once, the others with those around them
when one is requested, or when all are.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import compress, count, islice
from operator import gt, itemgetter
from typing import overload

from kplug.errors import InputError
from kplug.files.read_ahead import Text
from kplug.files.text_search import positions
from kplug.image.symbols.line_blocks import LineBlocks
from kplug.image.symbols.line_scan import LineScan
from kplug.image.symbols.symbol_list import DATA_LETTERS, STATIC_DATA_LETTERS, SymbolList, with_copies
from kplug.linker.boundary_names import CONVENTIONAL_SUFFIXES, is_conventional, may_be_boundary
from kplug.linker.region_builder import TEXT_BOUNDS, text_interior
from kplug.named_tuples import NamedTuple

# nm's letters, except those of symbols without an address.
_LETTERS = bytes(set(range(ord("!"), ord("~") + 1)) - set(b"NUuw"))
_HEX_DIGITS = b"0123456789abcdef"
_DATA, _STATIC_DATA = (re.compile(b" [" + letters + b"] ") for letters in (DATA_LETTERS, STATIC_DATA_LETTERS))
_TEXT_BOUNDS = tuple(name.encode() for name in TEXT_BOUNDS)


class _Boundaries(NamedTuple):
    """The numbers of the lines with boundary symbols' names, and the parts of the text before and after code alone."""

    numbers: dict[bytes, int]
    beside_code: Sequence[range]


class _Known(NamedTuple):
    """What is known of the lines already: those that were added are by name."""

    lines: LineBlocks
    added: Mapping[bytes, int]
    boundaries: _Boundaries


class SymbolLines(SymbolList):
    """The symbols of the lines in `text` up to `end`: each an address, a letter and a name.

    `read_all` makes the columns of all of them, at the first question that needs one. InputError names a broken line.
    """

    def __init__(
        self,
        text: Text,
        end: int,
        source: str,
        read_all: Callable[[], SymbolList],
        machine: str,
        known: LineScan | _Known,
    ) -> None:
        # The columns are made later, and not here.
        self.__dict__.update(source=source, machine=machine, in_order=True)
        self._text = text
        self._end = end
        self._digits = text.find(b" ")
        self._read_all = read_all
        self._added: Mapping[bytes, int] = {}
        if isinstance(known, LineScan):
            self._lines = LineBlocks(text, end, self._check, known.starts, known.numbers)
            self._scan = known
        else:
            self._lines, self._added, self.__dict__["_boundaries"] = known
        self._found: dict[bytes, list[int]] = {}

    @classmethod
    def of(
        cls,
        text: Text,
        end: int,
        source: str,
        read_all: Callable[[], SymbolList],
        machine: str = "",
        scan: LineScan | None = None,
    ) -> SymbolLines | None:
        """The list in `text` up to `end`; None if a sample of its lines has another form, or is not sorted.

        `scan` has looked at some of the lines already.
        """
        if text[end - 1 : end] != b"\n" or text.find(b" ") not in (8, 16) or text.find(b"\0", 0, end) >= 0:
            return None
        scan = scan or LineScan(machine)
        scan.go_on(text, end)
        made = cls(text, end, source, read_all, machine, scan)
        sample = made._lines.sample()
        regular = made._is_regular(sample) and all(map(made._is_line, (sample[0], sample[-1])))
        return made if regular else None

    def _is_line(self, line: bytes) -> bool:
        """Whether it has the kernel's form: an address in lower case, a letter, a name."""
        words = line.split()
        return (
            len(words) == 3
            and line == b" ".join(words)
            and len(words[0]) == self._digits
            and not words[0].strip(_HEX_DIGITS)
            and len(words[1]) == 1
            and b"!" <= words[1] <= b"~"
        )

    def _is_regular(self, lines: Sequence[bytes]) -> bool:
        """Whether the lines have letters of symbols with an address, and are sorted: at one address in any order."""
        digits = self._digits
        try:
            letters = bytes(map(itemgetter(digits + 1), lines))
        except IndexError:
            return False
        falling = compress(count(), map(gt, lines, islice(lines, 1, None)))
        sorted_ = all(lines[number][:digits] == lines[number + 1][:digits] for number in falling)
        return sorted_ and not letters.translate(None, _LETTERS)

    def _check(self, lines: Sequence[bytes]) -> None:
        if not self._is_regular(lines):
            _ = self._whole
            raise InputError(self._why_irregular)

    @property
    def _why_irregular(self) -> str:
        return f"{self.source}: not all lines are of symbols with an address, sorted by that"

    def from_source(self, source: str) -> SymbolLines:
        return self._copy(source, lambda: self._whole, _Known(self._lines, self._added, self._boundaries))

    def with_lines(self, added: Iterable[bytes], read_all: Callable[[], SymbolList]) -> SymbolLines:
        """The same with more lines, each after those of its address; `read_all` reads them too.

        They are for boundary symbols (`table_symbols`) that no line has.
        """
        lines = sorted(added)
        places = [bisect_right(self.lazy_addresses, int(line[: self._digits], 16)) for line in lines]
        blocks = self._lines.with_added([(self._lines.start_of(place), line) for place, line in zip(places, lines)])
        numbers = {name: number + bisect_right(places, number) for name, number in self.boundary_numbers.items()}
        new = {self._name_in(line): place + before for before, (place, line) in enumerate(zip(places, lines))}
        boundaries = self._boundaries._replace(numbers={**numbers, **new})
        return self._copy(self.source, read_all, _Known(blocks, new, boundaries))

    def _copy(self, source: str, read_all: Callable[[], SymbolList], known: _Known) -> SymbolLines:
        return SymbolLines(self._text, self._end, source, read_all, self.machine, known)

    # -- the columns: attributes of a list, which nobody writes ----------------------------------------------------

    @cached_property
    def _whole(self) -> SymbolList:
        whole = self._read_all()
        if len(whole) != len(self) or not whole.in_order:
            raise InputError(self._why_irregular)
        return whole

    @cached_property
    def strings(self) -> bytes:  # type: ignore[override]
        return self._whole.strings

    @cached_property
    def name_offsets(self) -> array[int]:  # type: ignore[override]
        return self._whole.name_offsets

    @cached_property
    def addresses(self) -> Sequence[int]:  # type: ignore[override]
        return self._whole.addresses

    @cached_property
    def letters(self) -> bytes:  # type: ignore[override]
        return self._whole.letters

    # -- without them ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._lines)

    @cached_property
    def lazy_addresses(self) -> Sequence[int]:
        return _Addresses(self._lines, self._digits)

    @property
    def highest(self) -> int:
        return self.lazy_addresses[-1]

    def letter(self, number: int) -> int:
        return self._lines[number][self._digits + 1]

    def _name_in(self, line: bytes) -> bytes:
        return line[self._digits + 3 :]

    def name_bytes(self, number: int) -> bytes:
        return self._name_in(self._lines[number])

    def name(self, number: int) -> str:
        return self.name_bytes(number).decode("utf-8", "backslashreplace")

    def holds(self, name: str) -> bool:
        return bool(self.numbers_named(name.encode("utf-8", "surrogateescape")))

    def numbers_named(self, name: bytes) -> list[int]:
        """The numbers of the symbols of exactly that name, in order."""
        if name not in self._found:
            self._found[name] = sorted(self._search(name))
        return self._found[name]

    def _search(self, name: bytes) -> Iterator[int]:
        if name in self._added:
            yield self._added[name]
        if not name or b"\n" in name:
            return
        for position in positions(self._text, b" " + name + b"\n", range(self._end)):
            if position - self._digits - 3 == self._text.rfind(b"\n", 0, position):  # not in a name with a space in it
                yield self._lines.number_at(position)

    def tails(self, part: bytes) -> Iterable[bytes]:
        """The tails of names that begin with these bytes; not of those added, which are boundary symbols'."""
        from kplug.image.symbols.source_names import tails  # few questions need it

        return tails(bytes(self._text[: self._end]), part, b"\n")

    def address(self, name: str) -> int | None:
        numbers = self.numbers_named(name.encode("utf-8", "surrogateescape"))
        return self.lazy_addresses[numbers[-1]] if numbers else None

    # -- boundary symbols, and data --------------------------------------------------------------------------------

    @property
    def boundary_numbers(self) -> dict[bytes, int]:
        return self._boundaries.numbers

    @cached_property
    def _boundaries(self) -> _Boundaries:
        """Of names that do not begin as most boundary symbols' do, only those outside code are looked at: within it,
        they would not count."""
        text, end = self._text, self._end
        found = self._scan.names
        others: dict[bytes, int] = {}
        bounds = {name.decode(): self._address_of(found[name]) for name in _TEXT_BOUNDS if name in found}
        code = text_interior(bounds)
        first, last = (
            self._lines.start_of(bisect_left(self.lazy_addresses, bound)) for bound in (code.start, code.stop)
        )
        beside = range(first), range(last, end)
        for part in beside:
            for suffix in CONVENTIONAL_SUFFIXES:
                for position in positions(text, suffix + b"\n", part):
                    start = text.rfind(b" ", 0, position) + 1
                    others[bytes(text[start : position + len(suffix)])] = start
        found = {**others, **found}
        conventional = self._scan.conventional.union(filter(is_conventional, others))
        names = with_copies(may_be_boundary(conventional, self.machine))
        return _Boundaries({name: self._lines.number_at(found[name]) for name in names.intersection(found)}, beside)

    def _address_of(self, position: int) -> int:
        """The address before the name at that position of the text."""
        end = position - 3
        return int(self._text[end - self._digits : end], 16)

    @property
    def lists_static_data(self) -> bool:
        wanted = -(-len(self) // 100)
        return len(list(islice(self._lettered(_STATIC_DATA), wanted))) == wanted

    def data_numbers(self) -> list[int]:
        added = (number for number in self._added.values() if self.letter(number) in DATA_LETTERS)
        return sorted((*map(self._lines.number_at, self._lettered(_DATA)), *added))

    def _lettered(self, pattern: re.Pattern[bytes]) -> Iterator[int]:
        """Where in the text that is, outside code."""
        for part in self._boundaries.beside_code:
            for match in pattern.finditer(self._text, part.start, part.stop):
                yield match.start()


class _Addresses(Sequence[int]):
    """The addresses of lines."""

    def __init__(self, lines: LineBlocks, digits: int) -> None:
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
            return [self[number] for number in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        return int(self._lines[index][: self._digits], 16)
