"""lz4: the frames of lz4_Frame_format.md, as the lz4 tool makes them unless it is told to make the kernel's."""

from __future__ import annotations

from kplug.files.bounded_output import CHUNK, BoundedOutput, broken, truncated
from kplug.files.decoder_backends import c_library, declare, python_module, run_tool
from kplug.files.python_formats import by_decompressor

MAGIC = b"\x04\x22\x4d\x18"
# LZ4F_VERSION in lz4frame.h: the only one there has been.
_VERSION = 100
# The flags in the frame's descriptor.
_DICTIONARY, _CONTENT_SUM, _CONTENT_SIZE, _BLOCK_SUMS = 1, 1 << 2, 1 << 3, 1 << 4
# Blocks of 64 KiB are the smallest that a frame can declare; one may hold less.
_MOST_BLOCKS = 1 << 20


def unpack_with_module(data: memoryview, out: BoundedOutput) -> int:
    frame = python_module("lz4.frame")
    return by_decompressor("lz4", frame.LZ4FrameDecompressor(), (RuntimeError, EOFError), data, out)


def unpack_with_library(data: memoryview, out: BoundedOutput) -> int:
    """LZ4F_decompress (lz4frame.h): it replaces the two sizes by how much it wrote and took."""
    import ctypes

    library = c_library("liblz4.so.1")
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    sizes = ctypes.POINTER(size)
    for name, result, arguments in (
        ("LZ4F_createDecompressionContext", size, [ctypes.POINTER(pointer), ctypes.c_uint]),
        ("LZ4F_freeDecompressionContext", size, [pointer]),
        ("LZ4F_decompress", size, [pointer, pointer, sizes, pointer, sizes, pointer]),
        ("LZ4F_isError", ctypes.c_uint, [size]),
        ("LZ4F_getErrorName", ctypes.c_char_p, [size]),
    ):
        declare(library, name, result, arguments)
    packed = bytes(data[: _frame_end(data)])
    address = ctypes.cast(ctypes.c_char_p(packed), pointer).value or 0
    space = ctypes.create_string_buffer(CHUNK)
    context = pointer()
    if library.LZ4F_isError(library.LZ4F_createDecompressionContext(ctypes.byref(context), _VERSION)):
        raise MemoryError
    try:
        position = 0
        while True:
            written, taken = size(CHUNK), size(len(packed) - position)
            left = library.LZ4F_decompress(
                context, space, ctypes.byref(written), address + position, ctypes.byref(taken), None
            )
            if library.LZ4F_isError(left):
                raise broken("lz4", library.LZ4F_getErrorName(left).decode("ascii", "replace"))
            position += taken.value
            out.write(ctypes.string_at(space, written.value), position)
            if not left:
                return position
            if not written.value and not taken.value:
                raise truncated("lz4")
    finally:
        library.LZ4F_freeDecompressionContext(context)


def unpack_with_tool(data: memoryview, out: BoundedOutput) -> int:
    end = _frame_end(data)
    run_tool("lz4", ("lz4", "-q", "-dc"), data[:end], out)
    return end


def _frame_end(data: memoryview) -> int:
    """The end of the frame at the start of `data`: a walk over the sizes of its blocks."""
    if len(data) < 7:
        raise truncated("lz4")
    flags = data[4]
    if flags >> 6 != 1:
        raise broken("lz4", f"a frame of version {flags >> 6}")
    position = 7 + 8 * bool(flags & _CONTENT_SIZE) + 4 * bool(flags & _DICTIONARY)
    for _ in range(_MOST_BLOCKS):
        size = int.from_bytes(data[position : position + 4], "little") & 0x7FFFFFFF
        position += 4
        if not size:
            break
        position += size + 4 * bool(flags & _BLOCK_SUMS)
        if position > len(data):
            raise truncated("lz4")
    else:
        raise broken("lz4", "it has too many blocks")
    position += 4 * bool(flags & _CONTENT_SUM)
    if position > len(data):
        raise truncated("lz4")
    return position


UNPACKERS = (unpack_with_module, unpack_with_library, unpack_with_tool)
