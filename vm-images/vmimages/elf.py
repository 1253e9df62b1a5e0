"""As much ELF as is needed here: sections by name, and the build ID. The files come from elsewhere, so every offset
is checked before it is used."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from .errors import VMError

_NT_GNU_BUILD_ID = 3
_SHT_NOBITS = 8
_MAX_SECTIONS = 100_000
_MAX_BYTES = 64 << 20
_MAX_OFFSET = 1 << 62  # beyond it seek() fails in another way


def section(file: BinaryIO, wanted: str) -> bytes | None:
    """The bytes of the section `wanted`, None if there is no such section."""
    file.seek(0)
    head = file.read(64)
    if head[:4] != b"\x7fELF" or len(head) < 52:
        raise VMError(f"{_name(file)}: not an ELF file")
    order = ">" if head[5] == 2 else "<"
    wide = head[4] == 2
    try:
        if wide:
            (offset,) = struct.unpack_from(order + "Q", head, 40)
            entry_size, count, names_index = struct.unpack_from(order + "HHH", head, 58)
        else:
            (offset,) = struct.unpack_from(order + "I", head, 32)
            entry_size, count, names_index = struct.unpack_from(order + "HHH", head, 46)
        layout = struct.Struct(order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII"))
        if entry_size < layout.size or count > _MAX_SECTIONS:
            raise struct.error
        table = _read(file, offset, entry_size * count)
        rows = [layout.unpack_from(table, index * entry_size) for index in range(count)]
        if names_index >= count:
            return None
        names = _read(file, rows[names_index][4], rows[names_index][5])
        for row in rows:
            end = names.find(b"\0", row[0])
            if names[row[0] : end].decode("latin-1") == wanted and row[1] != _SHT_NOBITS:
                return _read(file, row[4], row[5])
    except struct.error:
        raise VMError(f"{_name(file)}: the ELF section table is broken") from None
    return None


def build_id(path: Path) -> str:
    """The build ID of an ELF file, in hex."""
    with path.open("rb") as file:
        order = ">" if file.read(6)[5:] == b"\2" else "<"
        for name in (".notes", ".note.gnu.build-id"):
            data = section(file, name)
            found = build_id_in_notes(data, order) if data is not None else None
            if found:
                return found
    raise VMError(f"{path}: no build ID")


def build_id_in_notes(data: bytes, order: str = "<") -> str | None:
    """The build ID among ELF notes, such as those in /sys/kernel/notes."""
    position = 0
    while position + 12 <= len(data):
        name_size, size, kind = struct.unpack_from(order + "III", data, position)
        start = position + 12 + (name_size + 3) // 4 * 4
        name = data[position + 12 : position + 12 + name_size].rstrip(b"\0")
        # The owner decides what a type means: Xen's notes have a type 3 of their own.
        if name == b"GNU" and kind == _NT_GNU_BUILD_ID:
            return data[start : start + size].hex()
        position = start + (size + 3) // 4 * 4
    return None


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > _MAX_BYTES or offset > _MAX_OFFSET:
        raise struct.error
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise struct.error
    return data


def _name(file: BinaryIO) -> str:
    return str(getattr(file, "name", "the file"))
