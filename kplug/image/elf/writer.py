"""Parts of ELF files for writing: string tables, symbols, section headers (gABI), in any class and byte order."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kplug.arch.types.word import WordFormat, struct_order
from kplug.image.elf.header_only import bare_header
from kplug.named_tuples import NamedTuple

SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_NOTE, SHT_NOBITS = 1, 2, 3, 7, 8
PT_LOAD, PT_NOTE = 1, 4
PF_X, PF_W, PF_R = 1, 2, 4
# The position of e_shoff in the file header, its format, and the position of e_shentsize, e_shnum and e_shstrndx.
_HEADER_PLACES = {32: (0x20, "I", 0x2E), 64: (0x28, "Q", 0x3A)}
_SECTION_FORMS = {32: "10I", 64: "2I4Q2I2Q"}
# A program header, what e_entry and e_phoff are, where e_phentsize and e_phnum are, the order of the fields by those of
# 64 bits.
_SEGMENT_FORMS = {32: ("8I", "2I", 0x2A, (0, 2, 3, 4, 5, 6, 1, 7)), 64: ("2I6Q", "2Q", 0x36, tuple(range(8)))}
_SYMBOL_FORMS = {32: "IIIBBH", 64: "IBBHQQ"}


class SectionHeader(NamedTuple):
    """A section header as stored in the file."""

    name: int
    type: int
    flags: int = 0
    address: int = 0
    offset: int = 0
    size: int = 0
    link: int = 0
    info: int = 0
    alignment: int = 1
    entry_size: int = 0


class ProgramHeader(NamedTuple):
    """A program header, in the order of 64-bit files."""

    type: int
    flags: int
    offset: int
    address: int
    physical_address: int
    file_size: int
    memory_size: int
    alignment: int


class Form:
    """The structures of one class and byte order."""

    def __init__(self, bits: int, little_endian: bool) -> None:
        self._bits = bits
        self.header_size = {32: 52, 64: 64}[bits]
        self._order = struct_order(little_endian)
        self.section = struct.Struct(self._order + _SECTION_FORMS[bits])
        self.symbol = struct.Struct(self._order + _SYMBOL_FORMS[bits])

    def symbol_fields(self, name: int, info: int, section: int, value: int, size: int) -> tuple[int, ...]:
        """What `symbol` packs."""
        return (name, info, 0, section, value, size) if self._bits == 64 else (name, value, size, info, 0, section)

    def symbols_in(self, table: bytes) -> list[tuple[int, int, int, int, int]]:
        """Name, st_info, section index, value and size of each symbol of a table."""
        entries = self.symbol.iter_unpack(table)
        if self._bits == 64:
            return [(name, info, section, value, size) for name, info, _, section, value, size in entries]
        return [(name, info, section, value, size) for name, value, size, info, _, section in entries]

    def with_segments(self, header: bytes, entry: int, segments: Sequence[ProgramHeader]) -> bytes:
        """The file header followed by the program headers."""
        form, pair, place, fields = _SEGMENT_FORMS[self._bits]
        changed = bytearray(header)
        entry_form = struct.Struct(self._order + form)
        struct.pack_into(self._order + pair, changed, 0x18, entry, len(header))
        struct.pack_into(self._order + "2H", changed, place, entry_form.size, len(segments))
        return bytes(changed) + b"".join(entry_form.pack(*(each[at] for at in fields)) for each in segments)

    def with_section_table(self, header: bytes, offset: int, count: int, names_index: int) -> bytes:
        """The file header, pointing at a section header table of `count` entries at `offset`."""
        place, form, words = _HEADER_PLACES[self._bits]
        changed = bytearray(header)
        struct.pack_into(self._order + form, changed, place, offset)
        struct.pack_into(self._order + "3H", changed, words, self.section.size, count, names_index)
        return bytes(changed)


class StringTable:
    """A string table; each string is there once."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._offsets: dict[bytes, int] = {}

    def add(self, text: bytes) -> int:
        """The offset of a string in the table."""
        offset = self._offsets.get(text)
        if offset is None:
            offset = self._offsets[text] = len(self.data)
            self.data += text + b"\0"
        return offset


def relocatable(
    machine: str,
    word: WordFormat,
    headers: Sequence[tuple[str, int, int, int]],
    symbols: Sequence[tuple[bytes, int, int, int, int]],
) -> bytes:
    """The bytes of a relocatable ELF file of that class and byte order.

    `headers` are name, type, flags and size of sections that have no bytes in the file; `symbols` are name, st_info,
    section index, value and size.
    """
    form = Form(word.bits, word.little_endian)
    strings, names = StringTable(), StringTable()
    table = bytearray(form.symbol.size)
    for name, info, section, value, size in symbols:
        table += form.symbol.pack(*form.symbol_fields(strings.add(name), info, section, value & word.mask, size))
    nowhere = 1 << word.bits - 2  # nothing of these sections can be read from the file
    entries = [SectionHeader(0, 0, alignment=0)]
    for text, kind, flags, size in headers:
        entries.append(
            SectionHeader(names.add(text.encode("utf-8", "surrogateescape")), kind, flags, 0, nowhere, size)
        )  # fmt: skip
    own = len(entries)
    header = bare_header(machine, word.bits, little_endian=word.little_endian, relocatable=True)
    offset = len(header)
    for text, kind, content in (
        (".symtab", SHT_SYMTAB, table),
        (".strtab", SHT_STRTAB, strings.data),
        (".shstrtab", SHT_STRTAB, names.data),
    ):
        name_offset = names.add(text.encode())
        entry = SectionHeader(name_offset, kind, offset=offset, size=len(content))
        if kind == SHT_SYMTAB:
            entry = entry._replace(link=own + 1, alignment=word.size, entry_size=form.symbol.size)
        entries.append(entry)
        offset += len(content)
    header = form.with_section_table(header, offset, len(entries), len(entries) - 1)
    return b"".join((header, table, strings.data, names.data, *(form.section.pack(*entry) for entry in entries)))
