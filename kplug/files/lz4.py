"""lz4: the "Legacy frame" of lz4_Frame_format.md, which the kernel's scripts make (`lz4 -l`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kplug.files.bounded_output import BoundedOutput, broken, truncated
from kplug.files.decoder_backends import c_library, declare, python_module, run_tool

MAGIC = b"\x02\x21\x4c\x18"
_BLOCK = 1 << 23
# LZ4_compressBound(): the largest size of a packed block.
_BOUND = _BLOCK + _BLOCK // 255 + 16


def _blocks(data: memoryview) -> Iterator[tuple[int, int]]:
    """Start and size of each packed block. The frame has no end mark: it ends at what cannot be a block's size.

    The kernel puts the unpacked size, four bytes, right after the frame; a small one would look like a block's size.
    """
    position = 4
    while len(data) - position > 4:
        size = int.from_bytes(data[position : position + 4], "little")
        if not 0 < size <= _BOUND:
            return
        if position + 4 + size > len(data):
            raise truncated("lz4")
        yield position + 4, size
        position += 4 + size
    if position == 4:
        raise truncated("lz4")


def _by_blocks(unpack: Callable[[int, int], bytes], data: memoryview, out: BoundedOutput) -> int:
    """`unpack` gives the bytes of the block at an offset. All blocks but the last unpack to the full size."""
    position = 4
    for start, size in _blocks(data):
        chunk = unpack(start, size)
        position = start + size
        out.write(chunk, position)
        if len(chunk) < _BLOCK:
            break
    return position


def unpack_with_module(data: memoryview, out: BoundedOutput) -> int:
    block = python_module("lz4.block")

    def unpack(start: int, size: int) -> bytes:
        try:
            chunk: bytes = block.decompress(bytes(data[start : start + size]), uncompressed_size=_BLOCK)
        except block.LZ4BlockError as error:
            raise broken("lz4", error) from None
        return chunk

    return _by_blocks(unpack, data, out)


def unpack_with_library(data: memoryview, out: BoundedOutput) -> int:
    import ctypes

    library = c_library("liblz4.so.1")
    arguments = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    declare(library, "LZ4_decompress_safe", ctypes.c_int, arguments)
    space = ctypes.create_string_buffer(_BLOCK)

    def unpack(start: int, size: int) -> bytes:
        count = library.LZ4_decompress_safe(bytes(data[start : start + size]), space, size, _BLOCK)
        if count < 0:
            raise broken("lz4")
        return ctypes.string_at(space, count)

    return _by_blocks(unpack, data, out)


def unpack_with_tool(data: memoryview, out: BoundedOutput) -> int:
    end = 4
    for start, size in _blocks(data):
        end = start + size
    run_tool("lz4", ("lz4", "-q", "-dc"), data[:end], out)
    return end
