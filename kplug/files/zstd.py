"""zstd (RFC 8878): its frames, and the ways to unpack one."""

from __future__ import annotations

from kplug.files.bounded_output import CHUNK, BoundedOutput, NotInstalledError, broken, truncated
from kplug.files.decoder_backends import c_library, declare, python_module, run_tool
from kplug.files.python_formats import WINDOW_LOG, by_decompressor

# zstd blocks hold up to 128 KiB each.
_MOST_BLOCKS = 1 << 20


def unpack_with_python(data: memoryview, out: BoundedOutput) -> int:
    """Python's own module since 3.14, or backports.zstd, the same for older versions."""
    try:
        zstd = python_module("compression.zstd")
    except NotInstalledError:
        zstd = python_module("backports.zstd")
    options = {zstd.DecompressionParameter.window_log_max: WINDOW_LOG}
    return by_decompressor("zstd", zstd.ZstdDecompressor(options=options), (zstd.ZstdError, EOFError), data, out)


def unpack_with_module(data: memoryview, out: BoundedOutput) -> int:
    zstandard = python_module("zstandard")
    end = _frame_end(data)
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
    with unpacker.stream_reader(data[:end]) as reader:
        try:
            while chunk := reader.read(CHUNK):
                out.write(chunk)
        except zstandard.ZstdError as error:
            raise broken("zstd", error) from None
    return end


def unpack_with_library(data: memoryview, out: BoundedOutput) -> int:
    """libzstd's streaming decompression (zstd.h): it advances the positions in its last two arguments, the buffers."""
    import ctypes

    class Buffer(ctypes.Structure):  # ZSTD_inBuffer and ZSTD_outBuffer
        _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))

    library = c_library("libzstd.so.1")
    frame = bytes(data[: _frame_end(data)])
    for name, result, arguments in (
        ("ZSTD_createDStream", ctypes.c_void_p, []),
        ("ZSTD_freeDStream", ctypes.c_size_t, [ctypes.c_void_p]),
        ("ZSTD_DCtx_setParameter", ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]),
        (
            "ZSTD_decompressStream",
            ctypes.c_size_t,
            [ctypes.c_void_p, ctypes.POINTER(Buffer), ctypes.POINTER(Buffer)],
        ),
        ("ZSTD_isError", ctypes.c_uint, [ctypes.c_size_t]),
        ("ZSTD_getErrorName", ctypes.c_char_p, [ctypes.c_size_t]),
    ):
        declare(library, name, result, arguments)

    def checked(code: int) -> int:
        if library.ZSTD_isError(code):
            raise broken("zstd", library.ZSTD_getErrorName(code).decode("ascii", "replace"))
        return code

    stream = library.ZSTD_createDStream()
    if not stream:
        raise MemoryError
    try:
        checked(library.ZSTD_DCtx_setParameter(stream, 100, WINDOW_LOG))  # ZSTD_d_windowLogMax
        space = ctypes.create_string_buffer(CHUNK)
        source = Buffer(ctypes.cast(ctypes.c_char_p(frame), ctypes.c_void_p), len(frame), 0)
        while True:
            target = Buffer(ctypes.cast(space, ctypes.c_void_p), CHUNK, 0)
            wanted = checked(library.ZSTD_decompressStream(stream, ctypes.byref(target), ctypes.byref(source)))
            out.write(ctypes.string_at(space, target.position), source.position)
            if not wanted:
                return int(source.position)
            if source.position == len(frame) and target.position < CHUNK:
                raise truncated("zstd")
    finally:
        library.ZSTD_freeDStream(stream)


def unpack_with_tool(data: memoryview, out: BoundedOutput) -> int:
    end = _frame_end(data)
    run_tool("zstd", ("zstd", "-q", "-dc", f"--memory={1 << WINDOW_LOG >> 20}MiB"), data[:end], out)
    return end


def _frame_end(data: memoryview) -> int:
    """The end of the zstd frame at the start of `data`: a walk over the sizes of its blocks (RFC 8878, 3.1.1)."""
    if len(data) < 6:
        raise truncated("zstd")
    descriptor = data[4]
    single, checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
    content_size = (single, 2, 4, 8)[descriptor >> 6]
    position = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size
    for _ in range(_MOST_BLOCKS):
        header = int.from_bytes(data[position : position + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == 3:
            raise broken("zstd", "a block of the reserved type")
        position += 3 + (1 if kind == 1 else size)
        if position > len(data):
            raise truncated("zstd")
        if last:
            break
    else:
        raise broken("zstd", "it has too many blocks")
    position += 4 * checksum
    if position > len(data):
        raise truncated("zstd")
    return position
