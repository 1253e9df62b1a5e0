"""The columns of a symbol table, decoded in bulk from the ELF file.

Names stay bytes until one is needed. A broken table raises InputError, which names the file and the section.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

from kplug.arch.types.word import byte_order
from kplug.errors import InputError
from kplug.image.elf.file import ElfFile
from kplug.image.elf.sections import Section
from kplug.image.symbols.byte_columns import ByteColumns
from kplug.image.symbols.masks import both
from kplug.image.symbols.symbol import SHN_UNDEF, SHN_XINDEX

# The kernel's own names have at most 511 bytes (KSYM_NAME_LEN); a longer one is cut.
_MAX_NAME_BYTES = 4096
# Linkers merge a name into the tail of a longer one, so all names together are slightly longer than the table.
_NAMES_PER_STRING_TABLE = 4


class SymbolColumns:
    """The entries of a symbol table in columns: `values` (addresses as ints), `sizes`, and those read by methods."""

    @property
    def _before_names(self) -> bytes:
        """What is before each name in the text that is searched for names."""
        return b"\0"

    def _prepare(self, elf: ElfFile, sections: Sequence[Section]) -> None:
        """Empty columns for the symbols of the kernel in `elf`."""
        self.sections = sections
        self._path = elf.path
        self._machine = elf.machine
        self._byteorder = byte_order(elf.little_endian)
        self.source = "no symbol table"
        # The table as columns, one value for each entry: name offset, st_info, the two bytes of st_shndx, value, size.
        self._name_column: array[int] | memoryview[int] = array("I")
        self._info = b""
        self._section_low = b""
        self._section_high = b""
        self.values: Sequence[int] = ()
        self.sizes: Sequence[int] = ()
        # The bytes of both where they are those of a file.
        self._value_bytes: ByteColumns | None = None
        self._size_bytes: ByteColumns | None = None
        self._strings = b""
        self._extended_sections = array("I")
        # For a relocatable file, the address that the values of each section's symbols count from.
        self._bases: Mapping[int, int] | None = None
        self._names: list[str] | None = None
        # How many names were searched for one by one, and the entries of those that were found so.
        self._name_questions = 0
        self._found: dict[str, list[int]] = {}
        # Type, binding and letter by (st_info, section index): a table has some hundred such pairs.
        self._words: dict[tuple[int, int], tuple[str, str, str]] = {}
        # An entry's byte st_other, and the section .comment, which few questions need.
        self._other_of: Callable[[int], int] = lambda entry: 0
        self._comment: Callable[[], bytes] = bytes

    def _load(self, elf: ElfFile) -> None:
        """Read the symbol table and its strings into the columns."""
        table = next((s for s in elf.sections if s.type == "SYMTAB"), None)
        table = table or next((s for s in elf.sections if s.type == "DYNSYM"), None)
        if table is None:
            return
        entry_size = 24 if elf.bits == 64 else 16
        if table.entry_size not in (0, entry_size):
            raise InputError(f"{elf.path}: section {table.name} claims symbols of {table.entry_size} bytes")
        if not 0 < table.link < len(elf.sections) or elf.sections[table.link].type != "STRTAB":
            raise InputError(f"{elf.path}: section {table.name} names no string table")
        data = elf.section_bytes(table)
        data = data[: len(data) - len(data) % entry_size]
        self._strings = elf.section_bytes(elf.sections[table.link])
        if not self._strings.endswith(b"\0"):
            raise InputError(
                f"{elf.path}: section {elf.sections[table.link].name} is not a string table: it does not end with NUL"
            )
        words, width, little = self._numbers("I", data), elf.bits // 8, elf.little_endian
        if elf.bits == 64:  # Elf64_Sym: name, (info, other, shndx), value, size
            doubles = self._numbers("Q", data)
            self._name_column, self.values, self.sizes = words[0::6], doubles[1::3], doubles[2::3]
            info, value, size = 4, 8, 16
        else:  # Elf32_Sym: name, value, size, (info, other, shndx)
            self._name_column, self.values, self.sizes = words[0::4], words[1::4], words[2::4]
            info, value, size = 12, 4, 8
        self._value_bytes = ByteColumns(data, value, width, entry_size, little=little)
        self._size_bytes = ByteColumns(data, size, width, entry_size, little=little)
        self._info, first, second = (data[info + n :: entry_size] for n in (0, 2, 3))
        self._section_low, self._section_high = (first, second) if little else (second, first)
        self._other_of = partial(_byte_of, data, entry_size, info + 1)
        self._comment = lambda: _bytes_of(elf, ".comment")
        self.source = table.name
        extended = next((s for s in elf.sections if s.type == "SYMTAB_SHNDX"), None)
        if extended is not None:
            data = elf.section_bytes(extended)
            self._extended_sections = self._array("I", data[: len(data) & ~3])

    def _number_as(self, own: Sequence[Section], others: Sequence[Section]) -> None:
        """Have the entries, which number the sections `own`, number `others`, those of another file of the same build:
        strip also removes sections between others (.relaruntime_* of a vmlinux since 6.11)."""
        numbers = {(section.name, section.address): section.index for section in others}
        new = {section.index: numbers.get((section.name, section.address), SHN_UNDEF) for section in own}
        if self._extended_sections or all(section.index == new[section.index] for section in own if section.allocated):
            return
        column = [new.get(number, number) for number in map(self.section_index, range(len(self._info)))]
        self._section_low = bytes(number & 0xFF for number in column)
        self._section_high = bytes(number >> 8 for number in column)

    def _numbers(self, code: Literal["I", "Q"], data: bytes) -> array[int] | memoryview[int]:
        """As `_array`, without a copy if the file's byte order is the machine's: few of the numbers may be needed."""
        return memoryview(data).cast(code) if self._byteorder == sys.byteorder else self._array(code, data)

    def _array(self, code: str, data: bytes) -> array[int]:
        """`data` as numbers in the file's byte order."""
        numbers = array(code)
        numbers.frombytes(data)
        if self._byteorder != sys.byteorder:
            numbers.byteswap()
        return numbers

    def _type_mask(self, wanted: Container[int]) -> bytes:
        """The entries of one of the wanted types (STT_*)."""
        return self._info.translate(bytes(info & 0xF in wanted for info in range(256)))

    def _binding_mask(self, wanted: int) -> bytes:
        """The entries of that binding (STB_*)."""
        return self._info.translate(bytes(info >> 4 == wanted for info in range(256)))

    def _section_mask(self, wanted: Container[int]) -> bytes:
        """The entries with one of the wanted section indexes."""
        if len(self.sections) <= 256 and not self._extended_sections:
            low = self._section_low.translate(bytes(index in wanted for index in range(256)))
            return both(low, self._section_high.translate(b"\1" + bytes(255)))
        return bytes(self.section_index(entry) in wanted for entry in range(len(self._info)))

    def _unnamed_mask(self) -> bytes:
        """The entries whose name offset is 0."""
        column, zero = self._name_column.tobytes(), b"\1" + bytes(255)
        mask = column[0::4].translate(zero)
        for byte in (1, 2, 3):
            mask = both(mask, column[byte::4].translate(zero))
        return mask

    def _string(self, offset: int) -> str:
        end = self._strings.find(b"\0", offset, offset + _MAX_NAME_BYTES)
        if end < 0:
            if offset >= len(self._strings):
                return ""
            return self._strings[offset : offset + _MAX_NAME_BYTES].decode("utf-8", "backslashreplace") + "..."
        return self._strings[offset:end].decode("utf-8", "backslashreplace")

    def _all_names(self, entries: Iterable[int]) -> Iterator[str]:
        """The names of many entries. InputError for a table with overlapping names that would fill memory."""
        left = _NAMES_PER_STRING_TABLE * len(self._strings) + (1 << 20)
        strings, column = self._strings, self._name_column
        for entry in entries:
            # As `name`, without calls.
            offset = column[entry]
            end = strings.find(b"\0", offset, offset + _MAX_NAME_BYTES)
            name = strings[offset:end].decode("utf-8", "backslashreplace") if end >= 0 else self._string(offset)
            left -= len(name)
            if left < 0:
                raise InputError(
                    f"{self._path}: the names in section {self.source} overlap in a way that no linker produces"
                )
            yield name

    def name(self, index: int) -> str:
        """The name of table entry `index`."""
        offset = self._name_column[index]
        end = self._strings.find(b"\0", offset, offset + _MAX_NAME_BYTES)
        # As `_string`, without a call.
        return self._strings[offset:end].decode("utf-8", "backslashreplace") if end >= 0 else self._string(offset)

    def section_index(self, index: int) -> int:
        """The section number of table entry `index`, from SYMTAB_SHNDX if it does not fit."""
        section = self._section_low[index] | self._section_high[index] << 8
        if section == SHN_XINDEX and index < len(self._extended_sections):
            return self._extended_sections[index]
        return section


def _byte_of(entries: bytes, size: int, place: int, entry: int) -> int:
    """The byte at that place of an entry."""
    return entries[entry * size + place]


def _bytes_of(elf: ElfFile, name: str) -> bytes:
    """A section's bytes; none if there is no such section, or it cannot be read."""
    section = next((section for section in elf.sections if section.name == name), None)
    try:
        return elf.section_bytes(section) if section is not None else b""
    except InputError:
        return b""
