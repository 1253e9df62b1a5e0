"""A symbol table made from a `SymbolList`: what a list lacks (size, section) is derived from the addresses.

- A symbol reaches to the next one, or to the end of what holds it, as in the kernel's own kallsyms.
- Its section is the one that holds its address. If no sections are known, two extents take their place: the image
  between its boundary symbols, and x86's per-CPU variables if they are linked at 0.
- Its letter is the list's own, unless section or region contradict it: since relocate_kernel was put into .data (6.14),
  that section is executable on x86_64, and nm calls everything in it text.
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import compress, repeat

from kplug.arch.registry import named
from kplug.arch.types.word import BEYOND_ADDRESSES, LITTLE
from kplug.image.elf.file import ElfFile
from kplug.image.elf.section_flags import SHF_EXECINSTR, SHF_WRITE
from kplug.image.elf.sections import PERCPU_SECTION, Section, extent
from kplug.image.symbols.nm_letters import LetterByRegion
from kplug.image.symbols.symbol import SHN_ABS, STB_GLOBAL, STB_GNU_UNIQUE, STB_LOCAL, STB_WEAK, Symbol
from kplug.image.symbols.symbol_list import SymbolList
from kplug.image.symbols.table import SymbolTable
from kplug.linker.boundary_names import may_be_boundary
from kplug.linker.boundary_table import ROOT_END, ROOT_START, table_symbols
from kplug.linker.object_prefixes import OBJECT_PREFIXES
from kplug.linker.region_builder import TEXT_BOUNDS, text_interior

# What the case and kind of nm's letter say about a symbol's binding; no list has its type.
_BINDINGS = {**dict.fromkeys("WwVv", STB_WEAK), "u": STB_GNU_UNIQUE}
INFO_OF_LETTER = bytes(
    (_BINDINGS.get(chr(letter), STB_GLOBAL if chr(letter).isupper() else STB_LOCAL)) << 4 for letter in range(256)
)
# The letters that name the kind of section. The other ones (weak, indirect, absolute) cannot contradict it.
_PLACE_LETTERS = "tdrb"
_ABSOLUTE = b"Aa"
# Symbols that end something: if the next section begins immediately, they lie in that.
_ENDS = r"(?s)_e(?:text|init|data|rodata|srodata)|.*_end\Z|__(?:stop|end)_"
_PREFIXES = tuple(prefix.encode() for prefix in OBJECT_PREFIXES)
_PARTS = (
    ("_stext", "_etext", SHF_EXECINSTR),
    ("_sinittext", "_einittext", SHF_EXECINSTR),
    ("__start_rodata", "__end_rodata", 0),
    ("_sdata", "_edata", SHF_WRITE),
    ("__bss_start", "__bss_stop", SHF_WRITE),
)


class ListedSymbolTable(SymbolTable):
    """The symbols of a list, as those of the kernel in `elf` (its headers; nothing else is needed).

    `sections` are the known ones, if any.
    """

    def __init__(
        self,
        elf: ElfFile,
        sections: Sequence[Section],
        symbols: SymbolList,
        letter_by_region: LetterByRegion | None = None,
    ) -> None:
        self._list = symbols
        self._letter_by_region = letter_by_region
        self._prepare(elf, sections)
        self.source = symbols.source
        self.values = symbols.lazy_addresses
        self._set_info()
        if not any(section.occupies_addresses for section in sections):
            self.sections = self._extents()
        self._set_columns()
        self._set_sizes()

    def _set_info(self) -> None:
        self._info = self._list.letters.translate(INFO_OF_LETTER)

    def _set_columns(self) -> None:
        """The columns for all symbols, but for the sizes."""
        self.values = list(self._list.addresses)
        self._strings = self._list.strings
        self._name_column = self._list.name_offsets
        self._set_sections()

    def _set_sizes(self) -> None:
        self.sizes = self._to_the_next()

    # -- what follows from the addresses -------------------------------------------------------------------------------

    def _first(self, name: str) -> tuple[int, int] | None:
        """The address and number of the boundary symbol of that name, or None."""
        number = self._list.boundary_numbers.get(name.encode())
        return None if number is None else (self.values[number], number)

    def _extents(self) -> tuple[Section, ...]:
        """The extents that hold the symbols if no sections are known, as sections; only the per-CPU one has a name."""
        extents = [extent(0, "", 0, 0, 0)]
        percpu, percpu_end = self._first("__per_cpu_start"), self._first("__per_cpu_end")
        if percpu is not None and percpu_end is not None and percpu[0] == 0 < percpu_end[0]:
            extents.append(extent(len(extents), PERCPU_SECTION, 0, percpu_end[0], SHF_WRITE))
        start, end = self._first(ROOT_START), self._first(ROOT_END)
        head = self._first(named(self._machine).head_symbol or ROOT_START)
        start = min(filter(None, (head, start)), default=None)
        if start is not None and end is not None and start[0] < end[0]:
            extents.append(extent(len(extents), "", start[0], end[0], SHF_WRITE | SHF_EXECINSTR))
        else:
            extents += self._known_parts(len(extents))
        return tuple(extents)

    def _known_parts(self, index: int) -> Iterable[Section]:
        """The parts of an image whose end is not a symbol: without KALLSYMS_ALL there is only text in kallsyms, and
        /proc/iomem has the bounds of the others."""
        for start_name, end_name, flags in _PARTS:
            start, end = self._first(start_name), self._first(end_name)
            if start is not None and end is not None and start[0] < end[0]:
                yield extent(index, "", start[0], end[0], flags)
                index += 1

    @cached_property
    def _absolute_percpu(self) -> bool:
        """Whether the list calls per-CPU variables absolute, as kallsyms does if they are linked at 0 (4.6 to 6.14,
        make_percpus_absolute() in scripts/kallsyms.c)."""
        first = self._first("__per_cpu_start")
        return first is not None and self._list.letter(first[1]) in _ABSOLUTE

    @cached_property
    def _owners(self) -> tuple[list[int], list[int]]:
        """The address space divided where a section begins or ends, and the section of each piece; without one, it is
        that of absolute numbers."""
        cuts, owners = [0], [SHN_ABS]
        for section in sorted((s for s in self.sections if s.occupies_addresses), key=lambda s: s.address):
            while cuts and cuts[-1] >= section.address:
                cuts.pop()
                owners.pop()
            cuts += (section.address, section.end)
            owners += (section.index, SHN_ABS)
        return cuts, owners

    def _set_sections(self) -> None:
        """The section of each symbol, by its address; absolute for a number in no section."""
        cuts, owners = self._owners
        values = self.values
        column = array("H")
        if values == sorted(values):
            position = 0
            for cut, owner in zip([*cuts[1:], BEYOND_ADDRESSES], owners):
                following = bisect_left(values, cut, position)
                column.extend(array("H", [owner]) * (following - position))
                position = following
        else:
            column.extend(map(owners.__getitem__, (place - 1 for place in map(bisect_right, repeat(cuts), values))))
        letters = self._list.letters
        if any(letter in letters for letter in _ABSOLUTE):
            for number in (number for number, letter in enumerate(letters) if letter in _ABSOLUTE):
                column[number] = self._owner_of_absolute(column[number])
        if sys.byteorder != LITTLE:
            column.byteswap()
        data = column.tobytes()
        self._section_low, self._section_high = data[0::2], data[1::2]

    def _owner_of_absolute(self, owner: int) -> int:
        """The section of a symbol that the list calls absolute and that lies in section `owner`."""
        return owner if owner in self._percpu_sections else SHN_ABS

    @cached_property
    def _percpu_sections(self) -> frozenset[int]:
        """The sections whose symbols the list calls absolute although they are not."""
        if not self._absolute_percpu:
            return frozenset()
        return frozenset(section.index for section in self.sections if section.name == PERCPU_SECTION)

    @cached_property
    def _bounds(self) -> list[int]:
        """Where a section begins or ends, and where a boundary symbol is that the linker left absolute (arm's vectors),
        sorted: no symbol reaches beyond."""
        absolute = (
            self.values[number]
            for number in self._list.boundary_numbers.values()
            if self._list.letter(number) in _ABSOLUTE and not self._is_place(number)
        )
        return sorted({*absolute, *(bound for s in self.sections if s.allocated for bound in (s.address, s.end))})

    def _to_the_next(self) -> array[int]:
        """The bytes from each symbol to the next one that can hold an address, or to the end of its section."""
        placed = list(compress(self.values, self._places))
        ordered = sorted(placed)
        distances = _distances(ordered, self._bounds)
        if ordered != placed:
            distances = list(map(dict(zip(ordered, distances)).__getitem__, placed))
        # A symbol that holds no address has length 0.
        if len(distances) < len(self.values):
            each = iter(distances)
            distances = [next(each) if place else 0 for place in self._places]
        return array("Q", distances)

    # -- peculiarities of lists ----------------------------------------------------------------------------------------

    @property
    def sizes_are_stated(self) -> bool:
        return False

    @cached_property
    def typeless_entries(self) -> list[tuple[str, int]]:
        """(name, number) of the symbols that may be boundary symbols: global ones with such a name, and those that
        kernels are known to have, also with a build prefix."""
        numbers = self._list.boundary_numbers
        names = may_be_boundary(numbers, self._machine).intersection(numbers)
        names |= {copy for prefix in _PREFIXES for name in names if (copy := prefix + name) in numbers}
        found = sorted((numbers[name], name.decode("utf-8", "backslashreplace")) for name in names)
        return [(name, number) for number, name in found if self._may_be_boundary(name, number)]

    def _may_be_boundary(self, name: str, number: int) -> bool:
        if _bare(name, self._machine) in table_symbols(self._machine):
            return True
        is_global = chr(self._list.letter(number)).isupper()
        return is_global and (name.startswith("_") or self.values[number] not in self._text_interior)

    @cached_property
    def _text_interior(self) -> range:
        bounds = {name: first[0] for name in TEXT_BOUNDS if (first := self._first(name)) is not None}
        return text_interior(bounds)

    @cached_property
    def _boundaries(self) -> frozenset[int]:
        return frozenset(number for _, number in self.typeless_entries)

    def _unnamed_mask(self) -> bytes:
        """None: the strings of a list begin with its first name, not with an empty one as in an ELF file."""
        return bytes(len(self._name_column))

    def _is_place(self, index: int) -> bool:
        return bool(self._places[index])

    def empty_objects(self) -> list[int]:
        """All data outside text, if the list has few other symbols there: then the ends of data are not known."""
        is_kernel = self._first(ROOT_START) is not None or self._first("_stext") is not None
        if not is_kernel or self._list.lists_static_data:
            return []
        data = (number for number in self._list.data_numbers() if self.values[number] not in self._text_interior)
        return [number for number in data if self.section_index(number) != SHN_ABS]

    def symbol(self, index: int) -> Symbol:
        symbol = super().symbol(index)
        # Per-CPU variables are called absolute whether they are local or not.
        return symbol._replace(binding="") if symbol.letter == "D" and self.listed_letter(index) == "A" else symbol

    def file_of(self, symbol: Symbol) -> str | None:
        """None: no list has source files."""
        return None

    @property
    def letters_may_differ(self) -> bool:
        return True

    def listed_letter(self, entry: int) -> str:
        """The letter that the list has for a symbol."""
        return chr(self._list.letter(entry))

    def _true_letter(self, letter: str, index: int, section_index: int) -> str:
        listed = self.listed_letter(index)
        if section_index == SHN_ABS:
            return listed
        section = self.sections[section_index]
        if listed in "Aa":  # a per-CPU variable
            true = "d"
        elif listed.lower() not in _PLACE_LETTERS:
            return listed
        elif section.name and not (section.executable and section.writable):
            # A symbol at its start may end the section before it.
            if listed.lower() != "t" or self.values[index] == section.address:
                return listed
            true = letter.lower()
        elif index in self._boundaries and re.match(_ENDS, self.name(index)):
            return listed  # it belongs to the section before it
        else:
            return super()._true_letter(listed, index, section_index)
        return true.upper() if listed.isupper() else true


def _bare(name: str, machine: str) -> str:
    """The name without a build prefix, unless kernels are known to have it with the prefix."""
    prefix = next((prefix for prefix in OBJECT_PREFIXES if name.startswith(prefix)), "")
    return name if name in table_symbols(machine) else name[len(prefix) :]


def _distances(values: list[int], bounds: Iterable[int]) -> list[int]:
    """The distance from each of the sorted values to the next larger one, or to a bound before it, else 0."""
    distances = [*map(int.__sub__, values[1:], values), *([0] if values else [])]
    for equal in reversed(list(compress(range(len(values) - 1), map(int.__eq__, values[1:], values)))):
        distances[equal] = distances[equal + 1]
    for bound in bounds:
        end = bisect_left(values, bound)
        if end and (distances[end - 1] == 0 or values[end - 1] + distances[end - 1] > bound):
            start = bisect_left(values, values[end - 1], 0, end)
            distances[start:end] = [bound - values[end - 1]] * (end - start)
    return distances
