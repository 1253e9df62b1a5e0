"""Writes ELF files from section and segment rows, in any class and byte order: the smallest file with those headers.

The contents are holes. Only the section name table and a symbol table, where one is wanted, have bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RawSection:
    """One section header, all numbers as they stand in the file."""

    name: str
    type: int = 1
    flags: int = 0
    address: int = 0
    offset: int = 0
    size: int = 0
    link: int = 0
    info: int = 0
    alignment: int = 1
    entry_size: int = 0


@dataclass(frozen=True)
class RawSegment:
    """One program header."""

    type: int
    flags: int
    offset: int
    address: int
    physical_address: int
    file_size: int
    memory_size: int
    alignment: int


@dataclass(frozen=True)
class RawSymbol:
    """One entry of the symbol table; `section` is the index of its section."""

    name: str
    value: int
    size: int
    info: int
    section: int


@dataclass(frozen=True)
class Kind:
    """What kind of ELF file: word size, byte order, e_machine and e_type."""

    bits: int = 64
    little_endian: bool = True
    machine: int = 62
    type: int = 2
    os_abi: int = 0


_SHT_NOBITS, _SHT_STRTAB, _SHT_SYMTAB = 8, 3, 2


def write_elf(
    path: Path,
    kind: Kind,
    sections: Sequence[RawSection],
    segments: Sequence[RawSegment] = (),
    symbols: Sequence[RawSymbol] | None = None,
) -> str:
    """Write the file: `sections` without the null one, then .shstrtab (before it .symtab and .strtab)."""
    order = "<" if kind.little_endian else ">"
    wide = kind.bits == 64
    header = struct.Struct(order + ("16sHHIQQQIHHHHHH" if wide else "16sHHIIIIIHHHHHH"))
    section_header = struct.Struct(order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII"))
    segment_header = struct.Struct(order + ("IIQQQQQQ" if wide else "IIIIIIII"))

    table = [RawSection("", type=0, alignment=0), *sections]
    end = max([s.offset + (0 if s.type == _SHT_NOBITS else s.size) for s in table] + [header.size])
    end = max(end, header.size + len(segments) * segment_header.size)
    chunks: list[tuple[int, bytes]] = []

    def append(row: RawSection, data: bytes) -> None:
        nonlocal end
        end = (end + 15) & ~15
        table.append(
            RawSection(
                row.name, row.type, row.flags, 0, end, len(data), row.link, row.info, row.alignment, row.entry_size
            )
        )
        chunks.append((end, data))
        end += len(data)

    if symbols is not None:
        entries, names = _symbol_bytes(order, wide, symbols)
        locals_first = 1 + sum(1 for symbol in symbols if symbol.info >> 4 == 0)
        entry_size = 24 if wide else 16
        link = len(table) + 1
        append(
            RawSection(".symtab", _SHT_SYMTAB, link=link, info=locals_first, alignment=8, entry_size=entry_size),
            entries,
        )
        append(RawSection(".strtab", _SHT_STRTAB), names)
    names_index = len(table)
    offsets, data = _string_table([row.name for row in table] + [".shstrtab"])
    append(RawSection(".shstrtab", _SHT_STRTAB), data)

    headers_at = (end + 15) & ~15
    for row, name_offset in zip(table, offsets):
        numbers: tuple[int, ...] = (
            name_offset,
            row.type,
            row.flags,
            row.address,
            row.offset,
            row.size,
            row.link,
            row.info,
            row.alignment,
            row.entry_size,
        )
        chunks.append((headers_at, section_header.pack(*numbers)))
        headers_at += section_header.size
    section_headers_at = headers_at - len(table) * section_header.size
    position = header.size
    for segment in segments:
        where = (segment.offset, segment.address, segment.physical_address, segment.file_size, segment.memory_size)
        if wide:
            numbers = (segment.type, segment.flags, *where, segment.alignment)
        else:
            numbers = (segment.type, *where, segment.flags, segment.alignment)
        chunks.append((position, segment_header.pack(*numbers)))
        position += segment_header.size
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if kind.little_endian else 2, 1, kind.os_abi)) + bytes(8)
    first = header.pack(
        ident,
        kind.type,
        kind.machine,
        1,
        0,
        header.size if segments else 0,
        section_headers_at,
        0,
        header.size,
        segment_header.size if segments else 0,
        len(segments),
        section_header.size,
        len(table),
        names_index,
    )
    with open(path, "wb") as file:
        file.write(first)
        for offset, content in chunks:
            file.seek(offset)
            file.write(content)
    return str(path)


def _string_table(names: Sequence[str]) -> tuple[list[int], bytes]:
    data, offsets = b"\0", []
    for name in names:
        offsets.append(len(data) if name else 0)
        data += name.encode() + b"\0" if name else b""
    return offsets, data


def _symbol_bytes(order: str, wide: bool, symbols: Sequence[RawSymbol]) -> tuple[bytes, bytes]:
    entry = struct.Struct(order + ("IBBHQQ" if wide else "IIIBBH"))
    offsets, names = _string_table([symbol.name for symbol in symbols])
    data = bytes(entry.size)
    for symbol, offset in zip(symbols, offsets):
        if wide:
            data += entry.pack(offset, symbol.info, 0, symbol.section, symbol.value, symbol.size)
        else:
            data += entry.pack(offset, symbol.value, symbol.size, symbol.info, 0, symbol.section)
    return data, names
