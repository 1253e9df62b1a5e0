"""The compressions of kernel images and modules, unpacked into a bounded buffer.

Python itself unpacks gzip, xz, lzma and bzip2. For zstd, lz4 and lzo there are several ways, tried in turn: an
installed Python module, the C library that nearly every Linux has (the only way in gdb, whose Python has no packages),
the command-line tool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from kplug.files import lz4, lz4_frame, lzop, python_formats, zstd
from kplug.files.bounded_output import (
    BoundedOutput,
    EnoughError,
    MissingUnpackerError,
    NotInstalledError,
    ProgressCallback,
    Unpacked,
    UnpackError,
)
from kplug.named_tuples import NamedTuple

# bgzip starts a stream every 64 KiB; other real files have a single one, or one every 900 KB.
_MOST_STREAMS = 100_000
_PADDING = re.compile(b"\\0*")

# Unpacks the stream at the start of the data, which may be followed by other data; returns the stream's size.
Unpacker = Callable[[memoryview, BoundedOutput], int]


class Compression(NamedTuple):
    """A format: its magic, the ways to unpack it, and what to install if none of them is available.

    `variants` are other magics under the same name, with the ways to unpack what begins with them.
    """

    name: str
    magic: bytes
    unpackers: tuple[Unpacker, ...]
    remedy: str = ""
    variants: Mapping[bytes, tuple[Unpacker, ...]] = {}

    @property
    def magics(self) -> tuple[bytes, ...]:
        return (self.magic, *self.variants)

    def unpackers_of(self, data: memoryview) -> tuple[Unpacker, ...]:
        """The ways to unpack data that begins so."""
        return next((ways for magic, ways in self.variants.items() if data[: len(magic)] == magic), self.unpackers)


def decompress(name: str, data: bytes | memoryview, limit: int, progress: ProgressCallback | None = None) -> Unpacked:
    """Unpack the one stream of format `name` that `data` starts with; what follows the stream is ignored.

    Raises TooLargeError if more than `limit` bytes come out, and UnpackError if the data is corrupt or truncated, or if
    no way to unpack it is installed. `progress` is called with the fraction that is done, 0 to 1.
    """
    return _unpacked(FORMATS[name], memoryview(data), limit, False, progress)


def decompressed_start(name: str, data: bytes | memoryview, size: int) -> bytes:
    """The first `size` bytes that `data` unpacks to, fewer if there are no more. Raises UnpackError as `decompress`."""
    return _unpacked(FORMATS[name], memoryview(data), size, True, None).data


def decompress_all(name: str, data: bytes, limit: int, progress: ProgressCallback | None = None) -> bytes:
    """As `decompress`, for a whole file: several streams in a row are concatenated, as the formats' own tools do.

    Raises UnpackError if anything follows but another stream or padding of NULs.
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
    """The name of the format of data that starts like this, or None."""
    return next((name for name, each in FORMATS.items() if head.startswith(each.magics)), None)


def _unpacked(
    compression: Compression, data: memoryview, limit: int, enough: bool, progress: ProgressCallback | None
) -> Unpacked:
    for unpack in compression.unpackers_of(data):
        out = BoundedOutput(limit, enough, len(data), progress)
        try:
            consumed = unpack(data, out)
        except NotInstalledError:
            continue
        except EnoughError:
            return Unpacked(out.bytes()[:limit], 0)
        except UnpackError as error:
            raise type(error)(str(error), out.size) from None
        return Unpacked(out.bytes(), consumed)
    raise MissingUnpackerError(f"cannot unpack {compression.name}: {compression.remedy}")


FORMATS: dict[str, Compression] = {
    each.name: each
    for each in (
        # In the order in which scripts/extract-vmlinux looks for them.
        Compression("gzip", b"\x1f\x8b\x08", (python_formats.unpack_gzip,)),
        Compression("xz", b"\xfd7zXZ\x00", (python_formats.unpack_xz,), "this Python has no lzma module"),
        Compression("bzip2", b"BZh", (python_formats.unpack_bzip2,), "this Python has no bz2 module"),
        Compression("lzma", b"\x5d\x00\x00\x00", (python_formats.unpack_lzma,), "this Python has no lzma module"),
        Compression(
            "lzo",
            lzop.MAGIC,
            (lzop.unpack_with_module, lzop.unpack_with_library, lzop.unpack_with_tool),
            "install liblzo2 (Debian: liblzo2-2, Fedora: lzo) or lzop",
        ),
        Compression(
            "lz4",
            lz4.MAGIC,
            (lz4.unpack_with_module, lz4.unpack_with_library, lz4.unpack_with_tool),
            "install liblz4 (Debian: liblz4-1, Fedora: lz4-libs), the lz4 tool, or pip install lz4",
            {lz4_frame.MAGIC: lz4_frame.UNPACKERS},
        ),
        Compression(
            "zstd",
            b"\x28\xb5\x2f\xfd",
            (zstd.unpack_with_python, zstd.unpack_with_module, zstd.unpack_with_library, zstd.unpack_with_tool),
            "install libzstd (Debian: libzstd1, Fedora: libzstd), the zstd tool, or pip install zstandard",
        ),
    )
}
