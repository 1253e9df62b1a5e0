"""The notes of a dump in any format: ELF, makedumpfile's compressed one, or either of them flattened.

Their place in makedumpfile's format: struct kdump_sub_header in its IMPLEMENTATION file and diskdump_mod.h.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from kplug.arch.types.word import StructOrder, struct_order
from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.memory.dump_header import after_time, program_header_place, program_headers, unflattened_head

_MAX_NOTES_BYTES = 1 << 26
_MAX_TEXT_BYTES = 1 << 16
_PT_NOTE = 4
# In struct kdump_sub_header: (offset, size) of VMCOREINFO since version 3 of the header, of the notes since 4.
_VMCOREINFO_PLACE, _NOTES_PLACE = 32, 48


def note_bytes(path: str, file: BinaryIO) -> tuple[bytes, bool]:
    """The bytes of the notes of a dump, ELF or kdump-compressed, and whether they are little-endian; no bytes for
    another file.

    OSError, or InputError naming `path`, if they cannot be read.
    """
    head = file.read(1 << 14)
    flattened = head.startswith(b"makedumpfile\0")
    if flattened:
        head = unflattened_head(path, file)
    if head.startswith(b"\x7fELF") and len(head) > 5 and head[4] in (1, 2) and head[5] in (1, 2):
        wide, order = head[4] == 2, struct_order(head[5] == 1)
        table, size, count = program_header_place(order, wide, head)
        headers = _at(head if flattened else file, table, size * count)
        whole = len(headers) - len(headers) % (56 if wide else 32)  # the flattened head may end in one
        for kind, place in program_headers(order, wide, headers[:whole]):
            if kind == _PT_NOTE:
                return _at(head if flattened else file, place.offset, place.file_size), head[5] == 1
    order = _kdump_order(head)
    data = _from_sub_header(head, head if flattened else file, 4, _NOTES_PLACE, _MAX_NOTES_BYTES)
    return data, order == struct_order(True)


def vmcoreinfo_text(path: str) -> str | None:
    """The text of VMCOREINFO that a kdump-compressed dump has in addition to its notes; None if it has none.

    InputError naming `path` if it cannot be read.
    """
    with open_file(path) as file:
        try:
            head = file.read(1 << 14)
            flattened = head.startswith(b"makedumpfile\0")
            if flattened:
                head = unflattened_head(path, file)
            data = _from_sub_header(head, head if flattened else file, 3, _VMCOREINFO_PLACE, _MAX_TEXT_BYTES)
        except (OSError, struct.error) as error:
            raise InputError(f"{path}: its VMCOREINFO cannot be read: {error}") from None
    return data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace") or None


def _kdump_order(head: bytes) -> StructOrder:
    fields = after_time(head) if len(head) >= 4096 else None
    return fields[0] if fields is not None else struct_order(True)


def _from_sub_header(head: bytes, file: BinaryIO | bytes, since: int, place: int, most: int) -> bytes:
    """The bytes at the (offset, size) at `place` of struct kdump_sub_header, from version `since` of the header on."""
    if head.startswith(b"KDUMP   ") and len(head) >= 4096:
        # The sub header is in the second block.
        order = _kdump_order(head)
        version, block = struct.unpack_from(order + "i", head, 8)[0], struct.unpack_from(order + "i", head, 428)[0]
        if version >= since and 0 < block <= len(head) - 64:
            offset, size = struct.unpack_from(order + "QQ", head, block + place)
            return _at(file, offset, size) if size <= most else b""
    return b""


def _at(file: BinaryIO | bytes, offset: int, size: int) -> bytes:
    if size > _MAX_NOTES_BYTES or offset > 1 << 62:
        return b""
    if isinstance(file, bytes):
        return file[offset : offset + size]
    file.seek(offset)
    return file.read(size)
