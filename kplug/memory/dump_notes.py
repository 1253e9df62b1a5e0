"""The notes of a dump in any format: ELF, makedumpfile's compressed one, or either of them flattened.

Their place in makedumpfile's format: struct kdump_sub_header in its IMPLEMENTATION file and diskdump_mod.h.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.memory.dump_header import unflattened_head

_MAX_NOTES_BYTES = 1 << 26
_MAX_TEXT_BYTES = 1 << 16
# In struct kdump_sub_header: (offset, size) of VMCOREINFO since version 3 of the header, of the notes since 4.
_VMCOREINFO_PLACE, _NOTES_PLACE = 32, 48


def note_bytes(path: str, file: BinaryIO) -> bytes:
    """The bytes of the notes of a 64-bit dump, ELF or kdump-compressed; empty for another file.

    OSError, or InputError naming `path`, if they cannot be read.
    """
    head = file.read(1 << 14)
    flattened = head.startswith(b"makedumpfile\0")
    if flattened:
        head = unflattened_head(path, file)
    if head.startswith(b"\x7fELF\x02\x01"):
        table, count = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
        headers = _at(head if flattened else file, table, 56 * count)
        for place in range(0, len(headers) - 55, 56):
            kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", headers, place)
            if kind == 4:
                return _at(head if flattened else file, offset, size)
    return _from_sub_header(head, file if not flattened else head, 4, _NOTES_PLACE, _MAX_NOTES_BYTES)


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


def _from_sub_header(head: bytes, file: BinaryIO | bytes, since: int, place: int, most: int) -> bytes:
    """The bytes at the (offset, size) at `place` of struct kdump_sub_header, from version `since` of the header on."""
    if head.startswith(b"KDUMP   ") and len(head) >= 4096:
        # The sub header is in the second block.
        version, block = struct.unpack_from("<i", head, 8)[0], struct.unpack_from("<i", head, 428)[0]
        if version >= since and 0 < block <= len(head) - 64:
            offset, size = struct.unpack_from("<QQ", head, block + place)
            return _at(file, offset, size) if size <= most else b""
    return b""


def _at(file: BinaryIO | bytes, offset: int, size: int) -> bytes:
    if size > _MAX_NOTES_BYTES or offset > 1 << 62:
        return b""
    if isinstance(file, bytes):
        return file[offset : offset + size]
    file.seek(offset)
    return file.read(size)
