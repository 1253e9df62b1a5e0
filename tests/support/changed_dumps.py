"""Dumps made from real ones: without their VMCOREINFO, in other compressions, with broken bytes."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

BLOCK = 4096
# Page flags of makedumpfile's format (diskdump_mod.h).
SNAPPY, ZSTD = 0x4, 0x20
_ZLIB = 0x1
_STATUS, _SUB_BLOCKS, _BITMAP_BLOCKS = 424, 432, 436
_VMCOREINFO, _NOTES = BLOCK + 32, BLOCK + 48
_DESCRIPTOR = struct.Struct("<qIIQ")


def without_note(dump: Path, into: Path) -> Path:
    """A copy whose VMCOREINFO note has another name (ELF), or whose header has none and no notes (kdump)."""
    data = bytearray(dump.read_bytes())
    if data.startswith(b"\x7fELF"):
        at = data.index(b"VMCOREINFO\0", 0, 1 << 20)
        data[at : at + 1] = b"X"
    else:
        data[_VMCOREINFO : _VMCOREINFO + 32] = bytes(32)
    into.write_bytes(data)
    return into


def note_of(dump: Path) -> str:
    """The VMCOREINFO in an ELF dump's note."""
    head = dump.open("rb").read(1 << 20)
    match = re.search(rb"OSRELEASE=[\n -~]+\n", head)
    assert match is not None
    return match[0].decode("ascii")


def moved_note(text: str, by: int) -> str:
    """The VMCOREINFO of the same build at another place: what a kernel that ran before leaves behind."""
    text = re.sub(r"(?<=^KERNELOFFSET=)[0-9a-f]+", lambda m: f"{int(m[0], 16) + by:x}", text, flags=re.MULTILINE)
    return re.sub(r"(?<=\)=)ffffffff[0-9a-f]{8}$", lambda m: f"{int(m[0], 16) + by:x}", text, flags=re.MULTILINE)


def compressor(flag: int) -> Callable[[bytes], bytes] | None:
    """What compresses a page, by the system's own library; None if there is none."""
    name = ctypes.util.find_library("snappy" if flag == SNAPPY else "zstd")
    if name is None:
        return None
    library = ctypes.CDLL(name)

    def compress(page: bytes) -> bytes:
        out = ctypes.create_string_buffer(3 * BLOCK)
        if flag == SNAPPY:
            size = ctypes.c_size_t(len(out))
            assert library.snappy_compress(page, ctypes.c_size_t(len(page)), out, ctypes.byref(size)) == 0
            return out.raw[: size.value]
        library.ZSTD_compress.restype = ctypes.c_size_t
        length = library.ZSTD_compress(out, ctypes.c_size_t(len(out)), page, ctypes.c_size_t(len(page)), 1)
        assert length <= len(out)
        return out.raw[:length]

    return compress


def recompressed(dump: Path, into: Path, flag: int, compress: Callable[[bytes], bytes]) -> Path:
    """A zlib-compressed kdump in another compression."""
    data = dump.read_bytes()
    sub_blocks, bitmap_blocks = struct.unpack_from("<iI", data, _SUB_BLOCKS)
    bitmap = (1 + sub_blocks) * BLOCK
    half = bitmap_blocks * BLOCK // 2
    pages = bin(int.from_bytes(data[bitmap + half : bitmap + 2 * half], "little")).count("1")
    table = bitmap + 2 * half
    start = table + pages * _DESCRIPTOR.size
    descriptors, body, known = bytearray(), bytearray(), dict[int, bytes]()
    for number in range(pages):
        offset, size, flags, page_flags = _DESCRIPTOR.unpack_from(data, table + number * _DESCRIPTOR.size)
        if offset not in known:
            page = data[offset : offset + size]
            packed = compress(zlib.decompress(page) if flags & _ZLIB else page)
            if len(packed) >= BLOCK:
                packed, flags = zlib.decompress(page) if flags & _ZLIB else page, 0
            else:
                flags = flag
            known[offset] = _DESCRIPTOR.pack(start + len(body), len(packed), flags, page_flags)
            body += packed
        descriptors += known[offset]
    head = bytearray(data[:table])
    struct.pack_into("<I", head, _STATUS, flag)
    into.write_bytes(bytes(head) + bytes(descriptors) + bytes(body))
    return into


def first_bytes(dump: Path, into: Path, count: int) -> Path:
    """A copy that ends after so many bytes (negative: so many before its end)."""
    size = os.path.getsize(dump)
    left = count if count >= 0 else size + count
    with dump.open("rb") as source, into.open("wb") as out:
        while left > 0:
            data = source.read(min(left, 1 << 24))
            if not data:
                break
            out.write(data)
            left -= len(data)
    return into
