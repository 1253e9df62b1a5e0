"""Symbol tables, looked up by name. `kplug.image.symbols.by_address` looks them up by address.

A kernel has 100,000 to 300,000 symbols, and most questions need a handful of them. So `symbol_columns` decodes the
table with whole-array operations (a symbol takes well under a microsecond), names stay bytes until one is needed, and
`Symbol` objects exist only for results.

Which symbols can hold an address: `symbol_places`. Absolute ones are numbers, not places; they are found by name only.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, compress, count, islice
from typing import TYPE_CHECKING

from kplug.arch.registry import named
from kplug.image.elf.file import ElfFile
from kplug.image.elf.sections import Section
from kplug.image.symbols.masks import both, entries_of, without_mask
from kplug.image.symbols.nm_letters import LetterByRegion, symbol_letter
from kplug.image.symbols.symbol import (
    BINDING_NAMES,
    SHN_UNDEF,
    STB_LOCAL,
    STT_FILE,
    STT_NOTYPE,
    STT_SECTION,
    TYPE_NAMES,
    Around,
    Symbol,
)
from kplug.image.symbols.symbol_list import SymbolList
from kplug.image.symbols.symbol_places import SymbolPlaces
from kplug.linker.object_prefixes import OBJECT_PREFIXES

if TYPE_CHECKING:
    from kplug.image.symbols.source_files import SourceFiles
    from kplug.image.symbols.source_names import OtherNames

# Names searched for one by one, before a dictionary of all is made.
_FEW_QUESTIONS = 64
# Positions of names in the string table that are searched for one by one, before the columns are.
_FEW_PLACES = 2
# Of more of them, most entries have a byte of one.
_MANY_PLACES = 256
# How labels and mapping symbols begin.
_LABELS = tuple(f"{prefix}{start}".encode() for prefix in ("", *OBJECT_PREFIXES) for start in (".L", "$"))


class SymbolTable(SymbolPlaces):
    """The symbols of one ELF file.

    `bases` places a relocatable file: section index to the address that its symbol values count from; then only symbols
    of those sections hold addresses. `sections` are the file's, with `bases` applied. `letter_by_region` gives the
    correct letter for a symbol at a link address, for sections whose flags do not distinguish text from data.
    `source` says where its symbols are from, if not from the file.

    Columns, by table entry: `values` (addresses as ints) and `sizes`.
    """

    def __init__(
        self,
        elf: ElfFile,
        sections: Sequence[Section],
        bases: Mapping[int, int] | None = None,
        letter_by_region: LetterByRegion | None = None,
        source: str | None = None,
    ) -> None:
        is_mixed = any(section.executable and section.writable for section in sections)
        self._letter_by_region = letter_by_region if is_mixed else None
        self._mask = elf.word.mask
        self._prepare(elf, sections)
        self._load(elf)
        if sections is not elf.sections and not elf.relocatable:
            self._number_as(elf.sections, sections)
        self._bases = bases if elf.relocatable else None
        if elf.relocatable and bases:
            self._apply(bases)
        if source is not None and len(self):
            self.source = source

    @property
    def sizes_are_stated(self) -> bool:
        """Whether the sizes are the table's own, not the distance to the next symbol."""
        return True

    @property
    def letters_may_differ(self) -> bool:
        """Whether a symbol's letter may be another than the listed one."""
        return self._letter_by_region is not None

    def listed_letter(self, entry: int) -> str:
        """The letter that nm prints for table entry `entry`, or that the symbols' list has for it."""
        return self._words_of(self._info[entry], self.section_index(entry))[2]

    # -- decoding ------------------------------------------------------------------------------------------------------

    def _apply(self, bases: Mapping[int, int]) -> None:
        """Move the values of a relocatable file's symbols to where their sections are.

        This is for all symbols in these sections: assembler labels hold no address, but are found by name.
        """
        values, mask = list(self.values), self._mask
        placed = self._section_mask(bases)
        for index in compress(range(len(values)), placed):
            values[index] = values[index] + bases[self.section_index(index)] & mask
        self.values, self._value_bytes = values, None

    def around(self, address: int) -> Around | None:
        """The places around an address, if the table can find them without scanning all of them; else None."""
        return None

    # -- boundary symbols ----------------------------------------------------------------------------------------------

    @cached_property
    def typeless_entries(self) -> list[tuple[str, int]]:
        """(name, entry) of the sizeless symbols without a type, which come from assignments in the linker script and
        from assembler labels. Local labels (.L) and mapping symbols ($x), also with a prefix of objcopy's, and export
        tables' own are left out, which are no boundaries: there are tens of thousands of them.
        """
        typeless = self._type_mask((STT_NOTYPE,))
        exports = {s.index for s in self.sections if s.name.startswith(("__ksymtab", "__kcrctab", "__kflagstab"))}
        bookkeeping = both(self._section_mask(exports), self._binding_mask(STB_LOCAL))
        wanted = without_mask(without_mask(typeless, bookkeeping), self._section_mask((SHN_UNDEF,)))
        strings, column = self._strings, self._name_column
        found = [i for i in self._sizeless(wanted) if not strings.startswith(_LABELS, column[i])]
        return list(zip(self._all_names(found), found))

    def boundary_candidates(self) -> dict[str, int]:
        """Names and link addresses of the symbols that may be boundary symbols.

        This includes absolute symbols: some linkers leave boundary symbols outside sections absolute; and the function
        with which the image begins, if that is not _text.
        """
        found = {name: self.values[index] for name, index in self.typeless_entries if name}
        head = named(self._machine).head_symbol
        if head is not None and head not in found:
            found.update((head, self.values[index]) for index in self.indexes_of(head)[:1])
        return found

    def as_list(self) -> SymbolList:
        """The symbols that can hold an address, as kallsyms would list them."""
        entries = self.places()
        names = [self._string(self._name_column[entry]).encode("utf-8", "backslashreplace") for entry in entries]
        offsets = array("I", accumulate(map(len, names), lambda start, size: start + size + 1, initial=0))
        letters = "".join(self.symbol(entry).letter for entry in entries)
        addresses = [self.values[entry] for entry in entries]
        return SymbolList(b"\0".join(names) + b"\0", offsets[:-1], addresses, letters.encode(), self.source)

    # -- one entry -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """The number of symbols that can hold an address."""
        return self._place_count

    def __bool__(self) -> bool:
        """Whether any symbol can hold an address."""
        return any(map(self._is_place, compress(count(), self._placed)))

    @cached_property
    def _place_count(self) -> int:
        return sum(self._places)

    def size(self, index: int) -> int:
        """The size of table entry `index`."""
        return self.sizes[index]

    def symbol(self, index: int) -> Symbol:
        """Table entry `index` as an object."""
        section, info = self.section_index(index), self._info_of(index)
        kind, binding, letter = self._words.get((info, section)) or self._words_of(info, section)
        if self._letter_by_region is not None:
            letter = self._true_letter(letter, index, section)
        values = self.name(index), self.values[index], self.size(index), kind, binding, letter, index, section
        return Symbol._make(values)

    def _info_of(self, index: int) -> int:
        return self._info[index]

    def _words_of(self, info: int, section: int) -> tuple[str, str, str]:
        """Type, binding and nm's letter of the entries with these numbers."""
        words = self._words.get((info, section))
        if words is None:
            kind = TYPE_NAMES.get(info & 0xF, f"<type {info & 0xF}>")
            binding = BINDING_NAMES.get(info >> 4, f"<binding {info >> 4}>")
            words = self._words[info, section] = kind, binding, symbol_letter(info, section, self.sections)
        return words

    def _true_letter(self, letter: str, index: int, section_index: int) -> str:
        """The letter by the symbol's region, if the letter says text because the section has both code and data."""
        if section_index not in self._mixed_sections or letter not in "tT" or self._letter_by_region is None:
            return letter
        true = self._letter_by_region(self.values[index]) or letter
        return true.upper() if letter == "T" else true

    @cached_property
    def _mixed_sections(self) -> frozenset[int]:
        """The sections whose flags allow both code and data, by number."""
        return frozenset(number for number, s in enumerate(self.sections) if s.executable and s.writable)

    def file_of(self, symbol: Symbol) -> str | None:
        """The source file of a local symbol, where the order of the table proves it. None for global ones."""
        is_local = self._info[symbol.entry] >> 4 == STB_LOCAL
        return self._source_files.of(symbol.entry, symbol.name) if is_local else None

    @cached_property
    def _source_files(self) -> SourceFiles:
        from kplug.image.symbols.source_files import SourceFiles

        files = entries_of(self._type_mask((STT_FILE,)))
        before = self._info[1 : files[0]] if files else b""
        has_locals = any(info >> 4 == STB_LOCAL and info & 0xF != STT_SECTION for info in before)
        return SourceFiles(files, self.name, self._other_of, self._comment, has_locals)

    # -- name to symbols -----------------------------------------------------------------------------------------------

    def indexes_of(self, name: str) -> list[int]:
        """Table entries of exactly that name that have an address or a value, in table order."""
        found = self._found.get(name)
        if found is not None:
            return found
        self._name_questions += 1
        if self._name_questions > _FEW_QUESTIONS:
            return self._entries_by_name.get(name, []) if name else []
        self._search((name,))
        return self._found[name]

    def look_up(self, names: Iterable[str]) -> None:
        """Find the entries of names that will be asked for. Together they take less time than one by one."""
        self._search(name for name in names if name not in self._found)

    def _search(self, names: Iterable[str]) -> None:
        positions = {name: self._positions(name) for name in names}
        entries = self._entries_at(set().union(*positions.values()))
        for name, offsets in positions.items():
            named = [index for offset in offsets for index in entries.get(offset, ())]
            self._found[name] = sorted(filter(self._has_value, named))

    def _positions(self, name: str) -> set[int]:
        """Where the string table has that name at the end of a string. Linkers merge a name into the tail of a longer
        one, so every such position counts."""
        encoded, found = name.encode("utf-8", "surrogateescape") + b"\0", set[int]()
        position = self._strings.find(encoded) if name else -1
        while position >= 0:
            found.add(position)
            if len(found) > len(self._info):  # more than there are entries: look at these instead
                return {offset for offset in self._name_column if self._strings.startswith(encoded, offset)}
            position = self._strings.find(encoded, position + 1)
        return found

    def _entries_at(self, offsets: Collection[int]) -> Mapping[int, Sequence[int]]:
        """The entries whose names start at these offsets of the string table, by offset."""
        if len(offsets) <= _FEW_PLACES:
            return {offset: list(self._named_at(offset)) for offset in offsets}
        column, found = self._name_column, dict[int, list[int]]()
        indexes: Iterable[int]
        if len(offsets) > _MANY_PLACES:
            indexes = compress(count(), map(offsets.__contains__, column))
        else:
            indexes = filter(lambda index: column[index] in offsets, self._named_by_bytes(offsets))
        for index in indexes:
            found.setdefault(column[index], []).append(index)
        return found

    @cached_property
    def _name_bytes(self) -> bytes:
        return self._name_column.tobytes()

    @cached_property
    def _name_byte_columns(self) -> Sequence[bytes]:
        """The bytes of the offsets of all names, a column for each, in the machine's order."""
        size = self._name_column.itemsize
        return [self._name_bytes[number::size] for number in range(size)]

    def _named_by_bytes(self, offsets: Iterable[int]) -> list[int]:
        """The entries of which each byte of the name's offset is that of one of `offsets`: these, and some others."""
        mask = b"\1" * len(self._info)
        for column, numbers in zip(self._name_byte_columns, zip(*(array("I", [each]).tobytes() for each in offsets))):
            wanted = bytearray(256)
            for number in numbers:
                wanted[number] = 1
            mask = both(mask, column.translate(wanted))
        return entries_of(mask)

    def _named_at(self, offset: int) -> Iterator[int]:
        """The entries whose name starts at that string-table offset: a search in the column's bytes, without a loop."""
        column, wanted = self._name_bytes, array("I", [offset]).tobytes()
        position = column.find(wanted)
        while position >= 0:
            if position % len(wanted) == 0:
                yield position // len(wanted)
            position = column.find(wanted, position + 1)

    @cached_property
    def _entries_by_name(self) -> dict[str, list[int]]:
        """The entries of each name: only worthwhile for looking up many names."""
        valued = [index for index in range(len(self._info)) if self._has_value(index)]
        entries: dict[str, list[int]] = {}
        for index, name in zip(valued, self._all_names(valued)):
            entries.setdefault(name, []).append(index)
        return entries

    def has_name(self, name: str) -> bool:
        """Whether a symbol has that name, or one that ends in it: a quick check before `indexes_of`."""
        return name.encode("utf-8", "surrogateescape") + b"\0" in self._strings

    def exact(self, name: str) -> list[Symbol]:
        """The symbols of exactly that name, in table order (several: static functions of different files)."""
        return [self.symbol(index) for index in self.indexes_of(name)]

    def of_source_name(self, name: str) -> list[Symbol]:
        """The symbols whose name is another one in the source (`kplug.image.symbols.source_names`), those of functions
        before those of their parts."""
        from kplug.image.symbols.source_names import source_name  # few questions need it

        found = sorted(
            (source.is_part, symbol.entry, symbol)
            for each in sorted(self._other_names.of(name))
            for source, symbol in ((source_name(each), symbol) for symbol in self.exact(each))
            if symbol.letter in "tTwW" or not source.code_only
        )
        return [symbol for _, _, symbol in found]

    def unread_names(self, name: str) -> Sequence[str]:
        """The mangled names that may be `name` in the source, if there is nothing to demangle them with."""
        return self._other_names.unread(name)

    @cached_property
    def _other_names(self) -> OtherNames:
        from kplug.image.symbols.source_names import OtherNames

        return OtherNames(self._tails, self._sorted_names, self._before_names)

    def _tails(self, part: bytes) -> Iterable[bytes]:
        """The tails of names that begin with these bytes."""
        from kplug.image.symbols.source_names import tails

        return tails(self._strings, part)

    def named(self, names: Iterable[str]) -> list[Symbol]:
        """The symbols of any of those names, sorted by name and address: one pass for many names."""
        wanted = frozenset(names)
        found = [i for i in range(len(self._info)) if self._has_value(i) and self.name(i) in wanted]
        return sorted(map(self.symbol, found), key=lambda symbol: (symbol.name, symbol.address))

    def prefix(self, prefix: str, limit: int | None = None) -> list[str]:
        """Distinct names that start with `prefix`, sorted; at most `limit`."""
        names = self._sorted_names()
        start = bisect_left(names, prefix)
        found: list[str] = []
        for name in islice(names, start, None):
            if not name.startswith(prefix) or (limit is not None and len(found) >= limit):
                break
            found.append(name)
        return found

    def glob(self, pattern: str) -> list[str]:
        """Distinct names that match a shell pattern (`*`, `?`, `[...]`), sorted."""
        import fnmatch  # few ask for a pattern

        matches = re.compile(fnmatch.translate(pattern)).match
        return [name for name in self._sorted_names() if matches(name)]

    def _has_value(self, index: int) -> bool:
        """Whether the entry names a place in memory or an absolute number; not files, sections and undefined ones."""
        return self._info[index] & 0xF not in (STT_FILE, STT_SECTION) and self.section_index(index) != SHN_UNDEF

    def _sorted_names(self) -> list[str]:
        """All distinct names that `exact` would find, sorted (made once, at the first prefix or glob)."""
        if self._names is None:
            entries = (i for i in range(len(self._info)) if self._has_value(i))
            self._names = sorted({*self._all_names(entries)} - {""})
        return self._names
