"""lzo in lzop's container. The header is read as lib/decompress_unlzo.c and lzop itself do."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from kplug.files.bounded_output import BoundedOutput, broken, truncated
from kplug.files.decoder_backends import c_library, declare, python_module, run_tool

MAGIC = b"\x89LZO\x00\r\n\x1a\n"
# Flags in lzop's header: which checksums each block has, and that a filter was used.
_ADLER32_UNPACKED, _ADLER32_PACKED, _CRC32_UNPACKED, _CRC32_PACKED = 0x1, 0x2, 0x100, 0x200
_FILTER = 0x800
# Blocks are 256 KiB; lzop itself refuses blocks larger than 64 MiB.
_LARGEST_BLOCK = 1 << 26


def _by_blocks(unpack: Callable[[int, int, int], bytes], data: memoryview, out: BoundedOutput) -> int:
    """`unpack` takes a block's offset, packed size and unpacked size."""
    flags, position = _header(data)

    def word(at: int) -> int:
        if at + 4 > len(data):
            raise truncated("lzo")
        return int.from_bytes(data[at : at + 4], "big")

    while True:
        size = word(position)
        position += 4
        if not size:
            return position
        packed_size = word(position)
        position += 4
        if not 0 < packed_size <= size <= _LARGEST_BLOCK:
            raise broken("lzo", f"a block of {packed_size} bytes that should unpack to {size}")
        sums = []
        for flag, function in ((_ADLER32_UNPACKED, zlib.adler32), (_CRC32_UNPACKED, zlib.crc32)):
            if flags & flag:
                sums.append((function, word(position)))
                position += 4
        if packed_size < size:  # a block that could not be made smaller is stored, with one set of checksums
            position += 4 * (bool(flags & _ADLER32_PACKED) + bool(flags & _CRC32_PACKED))
        if position + packed_size > len(data):
            raise truncated("lzo")
        if packed_size == size:
            chunk = bytes(data[position : position + size])
        else:
            chunk = unpack(position, packed_size, size)
        if len(chunk) != size or any(function(chunk) != value for function, value in sums):
            raise broken("lzo", "a checksum is wrong")
        position += packed_size
        out.write(chunk, position)


def _header(data: memoryview) -> tuple[int, int]:
    """The flags in lzop's header, and the header's end."""
    try:
        start = len(MAGIC)
        version, _, _, method, _, flags = struct.unpack_from(">HHHBBI", data, start)
        position = start + 12 + (4 if flags & _FILTER else 0) + 12  # the file's mode and time
        position += 1 + data[position]  # the file's name
        checksum = int.from_bytes(data[position : position + 4], "big")
    except (struct.error, IndexError):
        raise truncated("lzo") from None
    if len(data) < position + 4:
        raise truncated("lzo")
    function = zlib.crc32 if flags & 0x1000 else zlib.adler32
    if data[: len(MAGIC)] != MAGIC or function(data[start:position]) != checksum:
        raise broken("lzo", "the header's checksum is wrong")
    if version < 0x940 or method not in (1, 2, 3) or flags & _FILTER:
        raise broken("lzo", f"version {version:#x}, method {method}, flags {flags:#x} are not those of a kernel image")
    return flags, position + 4


def unpack_with_module(data: memoryview, out: BoundedOutput) -> int:
    lzo = python_module("lzo")

    def unpack(start: int, packed_size: int, size: int) -> bytes:
        try:
            chunk: bytes = lzo.decompress(bytes(data[start : start + packed_size]), False, size)
        except lzo.error as error:
            raise broken("lzo", error) from None
        return chunk

    return _by_blocks(unpack, data, out)


def unpack_with_library(data: memoryview, out: BoundedOutput) -> int:
    import ctypes

    library = c_library("liblzo2.so.2")
    pointer = ctypes.c_void_p
    arguments = [ctypes.c_char_p, ctypes.c_ulong, pointer, ctypes.POINTER(ctypes.c_ulong), pointer]
    declare(library, "lzo1x_decompress_safe", ctypes.c_int, arguments)
    space = ctypes.create_string_buffer(1 << 18)

    def unpack(start: int, packed_size: int, size: int) -> bytes:
        nonlocal space
        if size > len(space):
            space = ctypes.create_string_buffer(size)
        count = ctypes.c_ulong(size)
        packed = bytes(data[start : start + packed_size])
        if library.lzo1x_decompress_safe(packed, packed_size, space, ctypes.byref(count), None):
            raise broken("lzo")
        return ctypes.string_at(space, count.value)

    return _by_blocks(unpack, data, out)


def unpack_with_tool(data: memoryview, out: BoundedOutput) -> int:
    """The end of the stream, from the blocks' sizes, without unpacking: the tool fails on data after the stream."""
    flags, position = _header(data)
    while size := int.from_bytes(data[position : position + 4], "big"):
        packed_size = int.from_bytes(data[position + 4 : position + 8], "big")
        sums = bool(flags & _ADLER32_UNPACKED) + bool(flags & _CRC32_UNPACKED)
        if packed_size < size:
            sums += bool(flags & _ADLER32_PACKED) + bool(flags & _CRC32_PACKED)
        position += 8 + 4 * sums + packed_size
        if position > len(data):
            raise truncated("lzo")
    if position + 4 > len(data):
        raise truncated("lzo")
    run_tool("lzo", ("lzop", "-q", "-dc"), data[: position + 4], out)
    return position + 4
