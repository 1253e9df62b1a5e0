"""The symbols of a list that is sorted by address, for few questions: a symbol's section and the distance to the next
symbol are found for that symbol alone. A question about all symbols makes the columns, which then answer everything.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from kplug.image.symbols.proc_kallsyms import SymbolLines
from kplug.image.symbols.symbol import Around
from kplug.image.symbols.table_of_list import INFO_OF_LETTER, ListedSymbolTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kplug.image.elf.file import ElfFile
    from kplug.image.elf.sections import Section
    from kplug.image.symbols.nm_letters import LetterByRegion
    from kplug.image.symbols.symbol_list import SymbolList

# Made at the first question that needs it.
_COLUMNS = frozenset(("_section_low", "_section_high", "_strings", "_name_column"))
# Symbols before and after an address that are checked for it.
_AROUND = 16
# Symbols that hold no address, skipped one by one up to the next one that does.
_PATIENT_STEPS = 500
# Names searched for one by one, before the columns are made.
_FEW_QUESTIONS = 64


class OrderedSymbolTable(ListedSymbolTable):
    """As `ListedSymbolTable`, for a sorted list; the answers are the same."""

    def _set_columns(self) -> None:
        for column in _COLUMNS:
            self.__dict__.pop(column, None)
        self._set_names()

    def _set_sizes(self) -> None:
        self.__dict__.pop("sizes", None)

    def _set_names(self) -> None:
        """The columns that the list has."""
        self._strings, self._name_column = self._list.strings, self._list.name_offsets

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            if name == "sizes":
                super()._set_sizes()
            elif name in _COLUMNS:
                super()._set_columns()
            elif name == "_info":
                super()._set_info()
            else:
                raise AttributeError(name)
            return self.__dict__[name]

    def __bool__(self) -> bool:
        return any(map(self._is_place, range(len(self.values))))

    def section_index(self, index: int) -> int:
        if "_section_low" in self.__dict__:
            return super().section_index(index)
        cuts, owners = self._owners
        owner = owners[bisect_right(cuts, self.values[index]) - 1]
        return owner if self._list.letter(index) not in b"Aa" else self._owner_of_absolute(owner)

    def size(self, index: int) -> int:
        if "sizes" in self.__dict__:
            return self.sizes[index]
        if not self._is_place(index):
            return 0
        values, value = self.values, self.values[index]
        bound = bisect_right(self._bounds, value)
        ends = self._bounds[bound : bound + 1]
        start = following = index + 1
        if following < len(values) and values[following] == value:
            start = following = bisect_right(values, value, following)
        while following < len(values) and not (ends and values[following] >= ends[0]):
            if self._is_place(following):
                ends = [values[following]]
            elif following - start > _PATIENT_STEPS:
                return self.sizes[index]
            following += 1
        return ends[0] - value if ends else 0

    def _is_place(self, index: int) -> bool:
        """Whether the entry can hold an address."""
        if self.section_index(index) not in self._held:
            return False
        name = self._list.name_bytes(index)
        return (b".L" not in name and b"$" not in name) or not self._nameless_pattern.match(name + b"\0")

    def around(self, address: int) -> Around | None:
        values, count = self.values, len(self.values)
        middle = bisect_right(values, address)
        first, end = max(middle - _AROUND, 0), min(middle + _AROUND, count)
        # Include all symbols at one address.
        first = bisect_left(values, values[first], 0, first) if first else 0
        end = bisect_right(values, values[end - 1], end) if end < count else count
        return Around([index for index in range(first, end) if self._is_place(index)], first == 0, end == count)


class LinesSymbolTable(OrderedSymbolTable):
    """As `OrderedSymbolTable`, for lines: names are searched for in their text."""

    _list: SymbolLines

    def _set_names(self) -> None:
        """None: lines have no such columns."""

    def _set_info(self) -> None:
        """The letter of a line is read when one is asked for."""
        self.__dict__.pop("_info", None)

    def _info_of(self, index: int) -> int:
        return INFO_OF_LETTER[self._list.letter(index)]

    def name(self, index: int) -> str:
        return super().name(index) if "_strings" in self.__dict__ else self._list.name(index)

    def has_name(self, name: str) -> bool:
        if "_strings" in self.__dict__:
            return super().has_name(name)
        return self._list.holds(name)

    def look_up(self, names: Iterable[str]) -> None:
        """None: a name is as soon found when it is asked for."""

    def indexes_of(self, name: str) -> list[int]:
        if "_strings" in self.__dict__ or self._name_questions >= _FEW_QUESTIONS:
            return super().indexes_of(name)
        self._name_questions += 1
        return self._list.numbers_named(name.encode("utf-8", "surrogateescape"))

    @property
    def _before_names(self) -> bytes:
        return b"\0" if "_strings" in self.__dict__ else b" "

    def _tails(self, part: bytes) -> Iterable[bytes]:
        return super()._tails(part) if "_strings" in self.__dict__ else self._list.tails(part)


def symbol_table_of(
    elf: ElfFile, sections: Sequence[Section], symbols: SymbolList, letter_by_region: LetterByRegion | None
) -> ListedSymbolTable:
    """The table of a list, of the kind that answers the first question fastest."""
    if isinstance(symbols, SymbolLines):
        return LinesSymbolTable(elf, sections, symbols, letter_by_region)
    kind = OrderedSymbolTable if symbols.in_order else ListedSymbolTable
    return kind(elf, sections, symbols, letter_by_region)
