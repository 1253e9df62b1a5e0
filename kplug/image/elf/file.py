"""ELF files: headers, sections, segments, notes and bytes. All bounds are checked before anything is used.

No library is used: gdb's Python has none, and the walk over the tables must not follow links and counts that a hostile
file controls. `type_names` has pyelftools' names of types. Symbols are in `kplug.image.symbols.table`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, BinaryIO

from kplug.arch import registry
from kplug.arch.types.word import WordFormat, struct_order
from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.frozen import replace
from kplug.image.elf import type_names
from kplug.image.elf.names import (
    section_flag_letters,
    section_type_name,
    segment_flag_letters,
    segment_type_name,
)
from kplug.image.elf.section_flags import SHF_COMPRESSED
from kplug.image.elf.sections import Section, Segment
from kplug.named_tuples import NamedTuple

# A kernel has 40 to 120 sections, a module built with -ffunction-sections some thousands; a dump has segments only.
MAX_SECTIONS = 100_000
MAX_SEGMENTS = 10_000
# Each pair of section and segment is checked: 1000 sections in 1000 segments would already be a strange kernel.
MAX_SECTIONS_TIMES_SEGMENTS = 1_000_000
# Notes and section names are small in any real file.
MAX_NOTE_BYTES = 1 << 22
MAX_CONSTANTS_BYTES = 1 << 27
MAX_NAME_TABLE_BYTES = 1 << 26
# The kernel's symbol and string tables are 3 to 10 MB each; debug builds of the largest configurations stay below 64.
MAX_TABLE_BYTES = 1 << 26
# The largest kernels take 200 MiB, without their debug information.
MAX_LOADED_BYTES = 1 << 29

# The file header after e_ident, in the order of `ElfHeader`, for 32 and 64 bits (gABI).
_HEADER_FORMATS = {32: "2H5I6H", 64: "2HI3QI6H"}
# The fields of the two header tables, in file order, and their struct formats for 32 and 64 bits (gABI).
_SECTION_FIELDS = ("name", "type", "flags", "address", "offset", "size", "link", "info", "alignment", "entry_size")
_SECTION_FORMATS = {32: "10I", 64: "2I4Q2I2Q"}
_SEGMENT_FIELDS = {
    32: ("type", "offset", "address", "physical_address", "file_size", "memory_size", "flags", "alignment"),
    64: ("type", "flags", "offset", "address", "physical_address", "file_size", "memory_size", "alignment"),
}
_SEGMENT_FORMATS = {32: "8I", 64: "2I6Q"}

EM_NONE = 0
NT_GNU_BUILD_ID = 3
ELF_MAGIC = b"\x7fELF"


class Note(NamedTuple):
    """One ELF note: owner, type number and bytes. The meaning of the type depends on the owner."""

    owner: str
    type: int
    description: bytes


class Loaded(NamedTuple):
    """A part of the file that is in memory, at its link address; `what` it is, for the user."""

    address: int
    offset: int
    size: int
    what: str


class ElfHeader(NamedTuple):
    """The file header after e_ident; the fields have their gABI names, without the `e_`."""

    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int


class ElfFile:
    """An ELF file opened for reading.

    Raises `InputError`, one line naming the file, for anything missing, truncated or contradictory.
    """

    def __init__(self, path: str, stream: BinaryIO | None = None) -> None:
        """`stream` has the bytes if they are not those of the file at `path` (unpacked, or never on disk)."""
        self.path = path
        self._file = stream or open_file(path)
        self.size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        try:
            self._parse_header()
            self.sections = tuple(self._read_sections())
            self.segments = tuple(self._read_segments())
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def _parse_header(self) -> None:
        identification = self._file.read(16)
        if identification[:4] != ELF_MAGIC:
            raise InputError(f"{self.path}: not an ELF file{_what_else(identification, self.size)}")
        if len(identification) < 16 or identification[4] not in (1, 2) or identification[5] not in (1, 2):
            raise InputError(f"{self.path}: truncated or broken ELF header")
        self.bits: int = 32 * identification[4]
        self.little_endian: bool = identification[5] == 1
        self._os_abi = identification[7]
        form = struct.Struct(struct_order(self.little_endian) + _HEADER_FORMATS[self.bits])
        data = self.read(0, len(identification) + form.size, "the ELF header")
        self.header = ElfHeader(*form.unpack_from(data, len(identification)))
        kind = self.header.type
        self.type: str = type_names.FILE_TYPES.get(kind, str(kind)).removeprefix("ET_")
        self.machine: str = self._machine_name(self.header.machine)

    def _machine_name(self, number: int) -> str:
        """kplug's name for the architecture; the gABI's name for one that is not declared; empty for EM_NONE."""
        architecture = registry.by_elf(number, self.bits)
        if architecture is not None:
            return architecture.name
        if number == EM_NONE:
            return ""
        return type_names.MACHINES.get(number, str(number)).removeprefix("EM_").lower()

    @cached_property
    def word(self) -> WordFormat:
        """How the machine that the file is for has its words."""
        return registry.named(self.machine).word(self.bits, self.little_endian)

    @property
    def relocatable(self) -> bool:
        """Whether section addresses are not yet assigned (ET_REL: modules, object files)."""
        return self.type == "REL"

    def read(self, offset: int, size: int, what: str) -> bytes:
        """`size` bytes at file `offset`; InputError naming `what` if the file does not have them."""
        if offset < 0 or size < 0 or offset + size > self.size:
            where = f"offset {offset:#x}, {size:#x} bytes, file has {self.size:#x}"
            raise InputError(f"{self.path}: {what} lies outside the file ({where})")
        try:
            self._file.seek(offset)
            data = self._file.read(size)
        except OSError as error:
            raise InputError(f"{self.path}: {what} cannot be read: {error.strerror or error}") from None
        if len(data) != size:
            raise InputError(f"{self.path}: {what} is truncated")
        return data

    def _table(self, offset: int, count: int, entry_size: int, form: str, what: str) -> Iterator[tuple[int, ...]]:
        """The `count` entries of a header table, checked against the file's size before the first is read."""
        structure = struct.Struct(struct_order(self.little_endian) + form)
        if not structure.size <= entry_size <= 4 * structure.size:
            raise InputError(f"{self.path}: {what} claims entries of {entry_size} bytes; they have {structure.size}")
        data = self.read(offset, count * entry_size, what)
        if entry_size == structure.size:
            return structure.iter_unpack(data)
        return (structure.unpack_from(data, index * entry_size) for index in range(count))

    def _read_sections(self) -> Iterator[Section]:
        header = self.header
        offset, count, entry_size = header.shoff, header.shnum, header.shentsize
        if offset == 0:
            return
        form, what = _SECTION_FORMATS[self.bits], "the section header table"
        names_index = header.shstrndx
        if count == 0 or names_index == 0xFFFF:
            # More sections than e_shnum can hold: the null section has the real numbers (gABI, "ELF Header").
            first = dict(zip(_SECTION_FIELDS, next(iter(self._table(offset, 1, entry_size, form, what)))))
            count = count or first["size"]
            names_index = first["link"] if names_index == 0xFFFF else names_index
        if count > MAX_SECTIONS:
            raise InputError(f"{self.path}: claims {count} sections; no kernel has over {MAX_SECTIONS}")
        raw = [dict(zip(_SECTION_FIELDS, entry)) for entry in self._table(offset, count, entry_size, form, what)]
        names = b""
        if 0 < names_index < count:
            table = raw[names_index]
            names = self.read(table["offset"], min(table["size"], MAX_NAME_TABLE_BYTES), "the section name table")
        words_of_types = {**type_names.SECTION_TYPES, **type_names.SECTION_TYPES_OF.get(header.machine, {})}
        for index, fields in enumerate(raw):
            number = fields["type"]
            words: dict[str, Any] = {
                "name": _string_at(names, fields["name"]),
                "type": section_type_name(words_of_types.get(number, number)),
                "flag_letters": section_flag_letters(fields["flags"], self.machine, self._os_abi),
            }
            yield Section(index=index, **{**fields, **words})

    def _read_segments(self) -> Iterator[Segment]:
        header = self.header
        offset, count = header.phoff, header.phnum
        if offset == 0:
            return
        if count == 0xFFFF and self.sections:
            count = self.sections[0].info  # PN_XNUM: the null section holds the real number
        if count > MAX_SEGMENTS:
            raise InputError(f"{self.path}: claims {count} program headers; no kernel has over {MAX_SEGMENTS}")
        if count * len(self.sections) > MAX_SECTIONS_TIMES_SEGMENTS:
            raise InputError(f"{self.path}: claims {len(self.sections)} sections in {count} segments; no kernel has")
        entries = self._table(offset, count, header.phentsize, _SEGMENT_FORMATS[self.bits], "the program header table")
        words_of_types = {**type_names.SEGMENT_TYPES, **type_names.SEGMENT_TYPES_OF.get(header.machine, {})}
        for index, entry in enumerate(entries):
            fields = dict(zip(_SEGMENT_FIELDS[self.bits], entry))
            number = fields["type"]
            words: dict[str, Any] = {
                "type": segment_type_name(words_of_types.get(number, number), self.machine),
                "flag_letters": segment_flag_letters(fields["flags"]),
            }
            yield Segment(index=index, **{**fields, **words})

    def section(self, name: str) -> Section | None:
        """The first section of that name, or None."""
        return next((section for section in self.sections if section.name == name), None)

    def section_bytes(self, section: Section, limit: int = MAX_TABLE_BYTES) -> bytes:
        """The section's bytes as stored in the file (NOBITS: none); at most `limit`, else InputError."""
        if section.type == "NOBITS":
            return b""
        if section.flags & SHF_COMPRESSED:
            raise InputError(f"{self.path}: section {section.name} is compressed, which kplug does not read")
        if section.size > limit:
            raise InputError(f"{self.path}: section {section.name} claims {section.size:#x} bytes")
        return self.read(section.offset, section.size, f"section {section.name}")

    def read_address(self, address: int, size: int) -> bytes | None:
        """Bytes at a link address, from the file; None if the file has none there (NOBITS, outside every section)."""
        for each in self.loaded:
            if each.address <= address < each.address + each.size:
                size = min(size, each.address + each.size - address)
                return self.read(each.offset + address - each.address, size, each.what)
        return None

    @cached_property
    def loaded(self) -> tuple[Loaded, ...]:
        """The parts of the file that are in memory: its sections, or the segments of a file without section headers."""
        if self.sections:
            held = (s for s in self.sections if s.occupies_addresses and s.type != "NOBITS")
            return tuple(Loaded(s.address, s.offset, s.size, f"section {s.name}") for s in held)
        loads = (s for s in self.segments if s.type == "LOAD")
        return tuple(Loaded(s.address, s.offset, s.file_size, f"segment {s.index}") for s in loads)

    def constants(self) -> Iterator[tuple[int, bytes]]:
        """The kernel's constants, among other things where sections are not known: link address and bytes."""
        for each in [each for each in self.loaded if each.what == "section .rodata"] or self.loaded:
            if each.size <= MAX_CONSTANTS_BYTES:
                yield each.address, self.read(each.offset, each.size, each.what)

    def holds(self, what: bytes) -> bool:
        """Whether these bytes are somewhere in what it loads. False for a file that loads more than any kernel."""
        if sum(each.size for each in self.loaded) > MAX_LOADED_BYTES:
            return False
        return any(what in self.read(each.offset, each.size, each.what) for each in self.loaded)

    def notes(self) -> tuple[Note, ...]:
        """All notes, from the NOTE sections, or from the NOTE segments of a file without sections (a core dump)."""
        ranges = [(s.offset, s.size) for s in self.sections if s.type == "NOTE"]
        if not ranges:
            ranges = [(s.offset, s.file_size) for s in self.segments if s.type == "NOTE"]
        if sum(size for _, size in ranges) > MAX_NOTE_BYTES:
            raise InputError(f"{self.path}: claims over {MAX_NOTE_BYTES >> 20} MiB of notes; no kernel has that many")
        found: list[Note] = []
        for offset, size in ranges:
            found.extend(notes_in(self.read(offset, size, "a note section"), self.little_endian))
        return tuple(found)

    @property
    def build_id(self) -> str | None:
        """The GNU build ID in hex, or None."""
        return build_id_in(self.notes())

    @property
    def has_symbol_table(self) -> bool:
        """Whether it has symbols of its own, beyond those for dynamic linking."""
        return any(section.type == "SYMTAB" for section in self.sections)

    def laid_out(self, addresses: Mapping[int, int]) -> tuple[Section, ...]:
        """The sections of a relocatable file with the runtime addresses given by section index.

        Sections without an address are not allocated in the result, so that nothing is claimed for them.
        """
        return tuple(
            replace(section, address=addresses[section.index])
            if section.index in addresses
            else replace(section, size=0 if section.allocated else section.size)
            for section in self.sections
        )


def notes_in(data: bytes, little_endian: bool) -> Iterator[Note]:
    """The notes in the bytes of a note section; a broken one ends them."""
    for _, note in notes_at(data, little_endian):
        if isinstance(note, Note):
            yield note


def notes_at(data: bytes, little_endian: bool, alignment: int = 4) -> Iterator[tuple[int, Note | str]]:
    """The notes in the bytes of a note section, with their positions; an invalid note yields the reason and ends them.

    The header is three words in every class and byte order. pyelftools would name the type by the kind of file, but its
    meaning depends on the owner, so the number is kept. `alignment` is the section's: its parts are aligned to
    4 bytes, or to 8 if the section is (gABI, "Note Section"; the kernel's own to 4).
    """
    header = struct.Struct(struct_order(little_endian) + "III")
    position = 0
    while position + header.size <= len(data):
        name_size, description_size, number = header.unpack_from(data, position)
        name_start = position + header.size
        description_start = _aligned(name_start + name_size, alignment)
        end = description_start + description_size
        if end > len(data):
            left = len(data) - name_start
            yield position, f"a note claims {name_size:#x} and {description_size:#x} bytes, and {left:#x} are left"
            return
        owner = data[name_start : name_start + name_size].rstrip(b"\0").decode("ascii", "backslashreplace")
        yield position, Note(owner, number, data[description_start:end])
        position = _aligned(end, alignment)
    if data[position:].strip(b"\0"):
        yield position, f"{len(data) - position} bytes are left, too few for a note"


def _aligned(position: int, alignment: int) -> int:
    return (position + alignment - 1) // alignment * alignment


def build_id_in(notes: Iterable[Note]) -> str | None:
    """The GNU build ID among the notes, in hex; None if there is none."""
    for note in notes:
        if note.owner == "GNU" and note.type == NT_GNU_BUILD_ID and note.description:
            return note.description.hex()
    return None


DUMPS = ((b"KDUMP", "a kdump-compressed dump"), (b"DISKDUMP", "a diskdump"), (b"makedumpfile", "a flattened dump"))
_OTHER_KINDS = (
    (b"MZ", "a bootable kernel image"),
    (b"\x1f\x8b", "gzip data"),
    (b"\xfd7zXZ", "xz data"),
    (b"BZh", "bzip2 data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    *DUMPS,
)


def _what_else(magic: bytes, size: int) -> str:
    """A hint at what the file is instead, for the user who named it."""
    if size == 0:
        return " (it is empty)"
    for start, kind in _OTHER_KINDS:
        if magic.startswith(start):
            return f" (it looks like {kind})"
    return ""


def _string_at(table: bytes, offset: int) -> str:
    """The NUL-terminated string at `offset`; empty if the table has none."""
    end = table.find(b"\0", offset) if offset < len(table) else -1
    return table[offset:end].decode("utf-8", "backslashreplace") if end >= 0 else ""
