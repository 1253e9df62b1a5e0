"""The compressions of kernel images and modules, unpacked into a bounded buffer.

gzip, xz, lzma and bzip2 are Python's own. zstd, lz4 and lzo have several ways, tried in turn: an installed module, the
C library that nearly every Linux has (the only way in gdb, whose Python has no packages), the command-line tool.
Formats: RFC 1952, the .xz and .lzma file formats, RFC 8878 (zstd), "Legacy frame" in lz4_Frame_format.md, lzop's
header as lib/decompress_unlzo.c and lzop itself read it.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# How far an unpacking is: the fraction of the compressed bytes that is done.
ProgressCallback = Callable[[float], None]

_PIECE = 1 << 18
_FIRST_PIECE = 1 << 12
_CHUNK = 1 << 20
# bgzip starts a stream each 64 KiB; real files have one, or one each 900 KB.
_MOST_STREAMS = 100_000
_PADDING = re.compile(b"\\0*")
# zstd blocks hold up to 128 KiB each.
_MOST_ZSTD_BLOCKS = 1 << 20
# The kernel's own scripts pack with windows of up to 128 MiB (zstd -22 --ultra; xz_wrap.sh since 6.12).
_WINDOW_LOG = 27
# xz's dictionary, and what the decoder needs beside it.
_LZMA_MEMORY_BYTES = (1 << _WINDOW_LOG) + (1 << 24)


class UnpackError(Exception):
    """Compressed data cannot be unpacked. `str()` is the reason, for a line that names the file.

    `unpacked` is how many bytes came out before that was seen.
    """

    unpacked = 0


class TooLargeError(UnpackError):
    """It unpacks to more than was allowed."""


class _EnoughError(Exception):
    """As much was unpacked as was wanted."""


class _AbsentError(Exception):
    """This way of unpacking is not installed here."""


class Unpacked(NamedTuple):
    """What came out, and how many of the bytes that were given the compressed stream took."""

    data: bytes
    consumed: int


class _Output:
    """Takes what is unpacked; stops what is more than `limit` bytes, or (`enough`) that many."""

    def __init__(self, limit: int, enough: bool, total: int, progress: ProgressCallback | None) -> None:
        self._stream = io.BytesIO()
        self._limit = limit
        self._enough = enough
        self._total = max(total, 1)
        self._progress = progress

    def write(self, chunk: bytes, consumed: int = 0) -> None:
        self._stream.write(chunk)
        if self._enough and self._stream.tell() >= self._limit:
            raise _EnoughError
        if self._stream.tell() > self._limit:
            raise TooLargeError(f"unpacks to more than {_size(self._limit)}")
        if self._progress is not None:
            self._progress(consumed / self._total)

    @property
    def size(self) -> int:
        return self._stream.tell()

    def bytes(self) -> bytes:
        return self._stream.getvalue()


# Takes the stream and what follows it, and returns how many bytes the stream has.
Way = Callable[[memoryview, _Output], int]


class Compression(NamedTuple):
    """A format: the magic that it starts with, the ways to unpack it, and what to install if none is there."""

    name: str
    magic: bytes
    ways: tuple[Way, ...]
    remedy: str = ""


def decompress(name: str, data: bytes | memoryview, limit: int, progress: ProgressCallback | None = None) -> Unpacked:
    """The one stream of format `name` that `data` starts with; whatever follows it is left alone.

    At most `limit` bytes come out, else TooLargeError. UnpackError for data that is broken or ends too early, and
    where no way to unpack it is installed. `progress` is told the fraction that is done.
    """
    return _unpacked(FORMATS[name], memoryview(data), limit, False, progress)


def decompressed_start(name: str, data: bytes | memoryview, size: int) -> bytes:
    """The first `size` bytes that `data` unpacks to; fewer if it ends or breaks before. UnpackError as above."""
    return _unpacked(FORMATS[name], memoryview(data), size, True, None).data


def decompress_all(name: str, data: bytes, limit: int, progress: ProgressCallback | None = None) -> bytes:
    """As `decompress`, for a file: streams laid one after the other are one, as their own tools unpack them.

    UnpackError if anything but a stream, or padding of NULs, follows.
    """
    parts: list[bytes] = []
    position, view = 0, memoryview(data)
    while position < len(data):
        if len(parts) == _MOST_STREAMS:
            raise UnpackError(f"it has more than {_MOST_STREAMS} {name} streams")
        part, consumed = decompress(name, view[position:], limit, progress)
        parts.append(part)
        limit -= len(part)
        padding = _PADDING.match(data, position + consumed)
        position = padding.end() if padding else len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def recognise(head: bytes) -> str | None:
    """The name of the format that data with this start has, or None."""
    return next((name for name, each in FORMATS.items() if head.startswith(each.magic)), None)


def _unpacked(
    compression: Compression, data: memoryview, limit: int, enough: bool, progress: ProgressCallback | None
) -> Unpacked:
    for way in compression.ways:
        out = _Output(limit, enough, len(data), progress)
        try:
            consumed = way(data, out)
        except _AbsentError:
            continue
        except _EnoughError:
            return Unpacked(out.bytes()[:limit], 0)
        except UnpackError as error:
            error.unpacked = out.size
            raise
        return Unpacked(out.bytes(), consumed)
    raise UnpackError(f"nothing here unpacks {compression.name}: {compression.remedy}")


def _broken(name: str, why: object = "") -> UnpackError:
    return UnpackError(f"the {name} data is broken" + (f": {why}" if str(why) else ""))


def _truncated(name: str) -> UnpackError:
    return UnpackError(f"truncated: the {name} data ends too early")


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"


# -- Python's own ------------------------------------------------------------------------------------------------------


def _gzip(data: memoryview, out: _Output) -> int:
    decompressor = zlib.decompressobj(wbits=31)
    position, piece = 0, data[:0]
    while not decompressor.eof:
        if not piece:
            piece = _piece(data, position)
            position += len(piece)
        try:
            chunk = decompressor.decompress(piece, _CHUNK)
        except zlib.error as error:
            raise _broken("gzip", error) from None
        if not piece and not chunk:
            raise _truncated("gzip")
        out.write(chunk, position)
        piece = memoryview(decompressor.unconsumed_tail)
    return position - len(decompressor.unused_data)


def _by_decompressor(
    name: str, decompressor: Any, errors: tuple[type[Exception], ...], data: memoryview, out: _Output
) -> int:
    """By an object with the interface of bz2.BZ2Decompressor."""
    position = 0
    while not decompressor.eof:
        piece = data[:0]
        if decompressor.needs_input:
            piece = _piece(data, position)
            position += len(piece)
            if not piece:
                raise _truncated(name)
        try:
            chunk = decompressor.decompress(piece, _CHUNK)
        except errors as error:
            raise _broken(name, error) from None
        out.write(chunk, position)
    return position - len(decompressor.unused_data)


def _piece(data: memoryview, position: int) -> memoryview:
    """The next piece to feed. The first are small: what is left of one is copied where a stream ends in it."""
    return data[position : position + min(max(position, _FIRST_PIECE), _PIECE)]


def _xz(data: memoryview, out: _Output) -> int:
    lzma = _module("lzma")
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES)
    return _by_decompressor("xz", decompressor, (lzma.LZMAError, EOFError), data, out)


def _lzma(data: memoryview, out: _Output) -> int:
    lzma = _module("lzma")
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY_BYTES)
    return _by_decompressor("lzma", decompressor, (lzma.LZMAError, EOFError), data, out)


def _bzip2(data: memoryview, out: _Output) -> int:
    decompressor = _module("bz2").BZ2Decompressor()
    return _by_decompressor("bzip2", decompressor, (OSError, EOFError, ValueError), data, out)


# -- zstd --------------------------------------------------------------------------------------------------------------


def _zstd_python(data: memoryview, out: _Output) -> int:
    """Python's own since 3.14; backports.zstd is the same for older ones."""
    try:
        zstd = _module("compression.zstd")
    except _AbsentError:
        zstd = _module("backports.zstd")
    options = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
    return _by_decompressor("zstd", zstd.ZstdDecompressor(options=options), (zstd.ZstdError, EOFError), data, out)


def _zstd_module(data: memoryview, out: _Output) -> int:
    zstandard = _module("zstandard")
    end = _zstd_frame_end(data)
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
    with unpacker.stream_reader(data[:end]) as reader:
        try:
            while chunk := reader.read(_CHUNK):
                out.write(chunk)
        except zstandard.ZstdError as error:
            raise _broken("zstd", error) from None
    return end


def _zstd_library(data: memoryview, out: _Output) -> int:
    """libzstd's streaming decompression (zstd.h): the last two arguments are positions in buffers that it moves."""
    import ctypes

    class Buffer(ctypes.Structure):  # ZSTD_inBuffer and ZSTD_outBuffer
        _fields_ = (("start", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))

    library = _library("libzstd.so.1")
    frame = bytes(data[: _zstd_frame_end(data)])
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
        _declare(library, name, result, arguments)

    def checked(code: int) -> int:
        if library.ZSTD_isError(code):
            raise _broken("zstd", library.ZSTD_getErrorName(code).decode("ascii", "replace"))
        return code

    stream = library.ZSTD_createDStream()
    if not stream:
        raise MemoryError
    try:
        checked(library.ZSTD_DCtx_setParameter(stream, 100, _WINDOW_LOG))  # ZSTD_d_windowLogMax
        space = ctypes.create_string_buffer(_CHUNK)
        source = Buffer(ctypes.cast(ctypes.c_char_p(frame), ctypes.c_void_p), len(frame), 0)
        target = Buffer(ctypes.cast(space, ctypes.c_void_p), _CHUNK, 0)
        while True:
            target.position = 0
            wanted = checked(library.ZSTD_decompressStream(stream, ctypes.byref(target), ctypes.byref(source)))
            out.write(ctypes.string_at(space, target.position), source.position)
            if not wanted:
                return int(source.position)
            if source.position == len(frame) and target.position < _CHUNK:
                raise _truncated("zstd")
    finally:
        library.ZSTD_freeDStream(stream)


def _zstd_tool(data: memoryview, out: _Output) -> int:
    end = _zstd_frame_end(data)
    _by_tool("zstd", ("zstd", "-q", "-dc", f"--memory={1 << _WINDOW_LOG >> 20}MiB"), data[:end], out)
    return end


def _zstd_frame_end(data: memoryview) -> int:
    """Where the zstd frame that `data` starts with ends: a walk over the sizes of its blocks (RFC 8878, 3.1.1)."""
    if len(data) < 6:
        raise _truncated("zstd")
    descriptor = data[4]
    single, checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
    content_size = (single, 2, 4, 8)[descriptor >> 6]
    position = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content_size
    for _ in range(_MOST_ZSTD_BLOCKS):
        header = int.from_bytes(data[position : position + 3], "little")
        last, kind, size = header & 1, header >> 1 & 3, header >> 3
        if kind == 3:
            raise _broken("zstd", "a block of the reserved type")
        position += 3 + (1 if kind == 1 else size)
        if position > len(data):
            raise _truncated("zstd")
        if last:
            break
    else:
        raise _broken("zstd", "it has too many blocks")
    position += 4 * checksum
    if position > len(data):
        raise _truncated("zstd")
    return position


# -- lz4, the legacy frame ---------------------------------------------------------------------------------------------

_LZ4_BLOCK = 1 << 23
# LZ4_compressBound(): what a block is packed to at most.
_LZ4_BOUND = _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16


def _lz4_blocks(data: memoryview) -> Iterator[tuple[int, int]]:
    """Start and size of each packed block. The frame has no end mark: what cannot be a block's size is not of it.

    The kernel puts the unpacked size, four bytes, right behind it; for a small one that would look like a block's.
    """
    position = 4
    while len(data) - position > 4:
        size = int.from_bytes(data[position : position + 4], "little")
        if not 0 < size <= _LZ4_BOUND:
            return
        if position + 4 + size > len(data):
            raise _truncated("lz4")
        yield position + 4, size
        position += 4 + size
    if position == 4:
        raise _truncated("lz4")


def _by_blocks(unpack: Callable[[int, int], bytes], data: memoryview, out: _Output) -> int:
    """`unpack` gives the bytes of the block at an offset. All blocks but the last unpack to the full size."""
    position = 4
    for start, size in _lz4_blocks(data):
        chunk = unpack(start, size)
        position = start + size
        out.write(chunk, position)
        if len(chunk) < _LZ4_BLOCK:
            break
    return position


def _lz4_module(data: memoryview, out: _Output) -> int:
    block = _module("lz4.block")

    def unpack(start: int, size: int) -> bytes:
        try:
            chunk: bytes = block.decompress(bytes(data[start : start + size]), uncompressed_size=_LZ4_BLOCK)
        except block.LZ4BlockError as error:
            raise _broken("lz4", error) from None
        return chunk

    return _by_blocks(unpack, data, out)


def _lz4_library(data: memoryview, out: _Output) -> int:
    import ctypes

    library = _library("liblz4.so.1")
    arguments = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    _declare(library, "LZ4_decompress_safe", ctypes.c_int, arguments)
    space = ctypes.create_string_buffer(_LZ4_BLOCK)
    packed = bytes(data)
    address = ctypes.cast(ctypes.c_char_p(packed), ctypes.c_void_p).value or 0

    def unpack(start: int, size: int) -> bytes:
        count = library.LZ4_decompress_safe(address + start, space, size, _LZ4_BLOCK)
        if count < 0:
            raise _broken("lz4")
        return ctypes.string_at(space, count)

    return _by_blocks(unpack, data, out)


def _lz4_tool(data: memoryview, out: _Output) -> int:
    end = 4
    for start, size in _lz4_blocks(data):
        end = start + size
    _by_tool("lz4", ("lz4", "-q", "-dc"), data[:end], out)
    return end


# -- lzo, in lzop's container ------------------------------------------------------------------------------------------

_LZOP_MAGIC = b"\x89LZO\x00\r\n\x1a\n"
# Flags in lzop's header: which checksums each block has, and that a filter was used.
_ADLER32_UNPACKED, _ADLER32_PACKED, _CRC32_UNPACKED, _CRC32_PACKED = 0x1, 0x2, 0x100, 0x200
_LZOP_FILTER = 0x800
# Blocks are 256 KiB; lzop itself refuses what is larger than 64 MiB.
_LZO_BLOCK_MOST = 1 << 26


def _by_lzo(unpack: Callable[[int, int, int], bytes], data: memoryview, out: _Output) -> int:
    """`unpack` takes a block's offset, packed size and unpacked size."""
    flags, position = _lzop_header(data)

    def word(at: int) -> int:
        if at + 4 > len(data):
            raise _truncated("lzo")
        return int.from_bytes(data[at : at + 4], "big")

    while True:
        size = word(position)
        position += 4
        if not size:
            return position
        packed_size = word(position)
        position += 4
        if not 0 < packed_size <= size <= _LZO_BLOCK_MOST:
            raise _broken("lzo", f"a block of {packed_size} bytes that are to be {size}")
        sums = []
        for flag, function in ((_ADLER32_UNPACKED, zlib.adler32), (_CRC32_UNPACKED, zlib.crc32)):
            if flags & flag:
                sums.append((function, word(position)))
                position += 4
        if packed_size < size:  # what could not be made smaller is stored, and has these once
            position += 4 * (bool(flags & _ADLER32_PACKED) + bool(flags & _CRC32_PACKED))
        if position + packed_size > len(data):
            raise _truncated("lzo")
        if packed_size == size:
            chunk = bytes(data[position : position + size])
        else:
            chunk = unpack(position, packed_size, size)
        if len(chunk) != size or any(function(chunk) != value for function, value in sums):
            raise _broken("lzo", "a checksum is wrong")
        position += packed_size
        out.write(chunk, position)


def _lzop_header(data: memoryview) -> tuple[int, int]:
    """The flags in lzop's header, and where the header ends."""
    try:
        start = len(_LZOP_MAGIC)
        version, _, _, method, _, flags = struct.unpack_from(">HHHBBI", data, start)
        position = start + 12 + (4 if flags & _LZOP_FILTER else 0) + 12  # the file's mode and time
        position += 1 + data[position]  # and its name
        checksum = int.from_bytes(data[position : position + 4], "big")
    except (struct.error, IndexError):
        raise _truncated("lzo") from None
    if len(data) < position + 4:
        raise _truncated("lzo")
    function = zlib.crc32 if flags & 0x1000 else zlib.adler32
    if data[: len(_LZOP_MAGIC)] != _LZOP_MAGIC or function(data[start:position]) != checksum:
        raise _broken("lzo", "the header's checksum is wrong")
    if version < 0x940 or method not in (1, 2, 3) or flags & _LZOP_FILTER:
        raise _broken("lzo", f"version {version:#x}, method {method}, flags {flags:#x} are none that a kernel has")
    return flags, position + 4


def _lzo_module(data: memoryview, out: _Output) -> int:
    lzo = _module("lzo")

    def unpack(start: int, packed_size: int, size: int) -> bytes:
        try:
            chunk: bytes = lzo.decompress(bytes(data[start : start + packed_size]), False, size)
        except lzo.error as error:
            raise _broken("lzo", error) from None
        return chunk

    return _by_lzo(unpack, data, out)


def _lzo_library(data: memoryview, out: _Output) -> int:
    import ctypes

    library = _library("liblzo2.so.2")
    pointer = ctypes.c_void_p
    arguments = [pointer, ctypes.c_ulong, pointer, ctypes.POINTER(ctypes.c_ulong), pointer]
    _declare(library, "lzo1x_decompress_safe", ctypes.c_int, arguments)
    packed = bytes(data)
    address = ctypes.cast(ctypes.c_char_p(packed), pointer).value or 0
    space = ctypes.create_string_buffer(1 << 18)

    def unpack(start: int, packed_size: int, size: int) -> bytes:
        nonlocal space
        if size > len(space):
            space = ctypes.create_string_buffer(size)
        count = ctypes.c_ulong(size)
        if library.lzo1x_decompress_safe(address + start, packed_size, space, ctypes.byref(count), None):
            raise _broken("lzo")
        return ctypes.string_at(space, count.value)

    return _by_lzo(unpack, data, out)


def _lzo_tool(data: memoryview, out: _Output) -> int:
    """The tool gives up on what follows the stream, so its end is found first: without unpacking, by the sizes."""
    flags, position = _lzop_header(data)
    while size := int.from_bytes(data[position : position + 4], "big"):
        packed_size = int.from_bytes(data[position + 4 : position + 8], "big")
        sums = bool(flags & _ADLER32_UNPACKED) + bool(flags & _CRC32_UNPACKED)
        if packed_size < size:
            sums += bool(flags & _ADLER32_PACKED) + bool(flags & _CRC32_PACKED)
        position += 8 + 4 * sums + packed_size
        if position > len(data):
            raise _truncated("lzo")
    if position + 4 > len(data):
        raise _truncated("lzo")
    _by_tool("lzo", ("lzop", "-q", "-dc"), data[: position + 4], out)
    return position + 4


# -- ways --------------------------------------------------------------------------------------------------------------


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise _AbsentError from None


def _library(name: str) -> Any:
    """A C library by its soname. The search for a name (ctypes.util) would start compilers."""
    try:
        import ctypes

        return ctypes.CDLL(name)
    except (ImportError, OSError):
        raise _AbsentError from None


def _declare(library: Any, name: str, result: Any, arguments: list[Any]) -> None:
    try:
        function = getattr(library, name)
    except AttributeError:
        raise _AbsentError from None
    function.restype, function.argtypes = result, arguments


def _by_tool(name: str, command: tuple[str, ...], data: memoryview, out: _Output) -> None:
    """By a command-line tool that unpacks its standard input; it is stopped when its output is too much."""
    import subprocess
    import tempfile

    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.seek(0)
        try:
            process = subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        except OSError:
            raise _AbsentError from None
        with process:
            assert process.stdout is not None
            try:
                while chunk := process.stdout.read(_CHUNK):
                    out.write(chunk)
            except BaseException:
                process.kill()
                raise
    if process.returncode:
        raise _broken(name, f"{command[0]} gave up on it")


FORMATS: dict[str, Compression] = {
    each.name: each
    for each in (
        # In the order in which scripts/extract-vmlinux looks for them.
        Compression("gzip", b"\x1f\x8b\x08", (_gzip,)),
        Compression("xz", b"\xfd7zXZ\x00", (_xz,), "this Python has no lzma module"),
        Compression("bzip2", b"BZh", (_bzip2,), "this Python has no bz2 module"),
        Compression("lzma", b"\x5d\x00\x00\x00", (_lzma,), "this Python has no lzma module"),
        Compression(
            "lzo",
            _LZOP_MAGIC,
            (_lzo_module, _lzo_library, _lzo_tool),
            "install liblzo2 (Debian: liblzo2-2, Fedora: lzo) or lzop",
        ),
        Compression(
            "lz4",
            b"\x02\x21\x4c\x18",
            (_lz4_module, _lz4_library, _lz4_tool),
            "install liblz4 (Debian: liblz4-1, Fedora: lz4-libs), the lz4 tool, or pip install lz4",
        ),
        Compression(
            "zstd",
            b"\x28\xb5\x2f\xfd",
            (_zstd_python, _zstd_module, _zstd_library, _zstd_tool),
            "install libzstd (Debian: libzstd1, Fedora: libzstd), the zstd tool, or pip install zstandard",
        ),
    )
}
