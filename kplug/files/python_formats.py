"""gzip, xz, lzma and bzip2, which Python unpacks itself: RFC 1952, the .xz and .lzma file formats."""

from __future__ import annotations

import zlib
from typing import Any

from kplug.files.bounded_output import CHUNK, BoundedOutput, broken, truncated
from kplug.files.decoder_backends import python_module

_PIECE = 1 << 18
_FIRST_PIECE = 1 << 12
# The kernel's own scripts pack with windows of up to 128 MiB (zstd -22 --ultra; xz_wrap.sh since 6.12).
WINDOW_LOG = 27
# xz's dictionary, and what the decoder needs in addition.
_LZMA_MEMORY_BYTES = (1 << WINDOW_LOG) + (1 << 24)


def unpack_gzip(data: memoryview, out: BoundedOutput) -> int:
    decompressor = zlib.decompressobj(wbits=31)
    position, piece = 0, data[:0]
    while not decompressor.eof:
        if not piece:
            piece = next_piece(data, position)
            position += len(piece)
        try:
            chunk = decompressor.decompress(piece, CHUNK)
        except zlib.error as error:
            raise broken("gzip", error) from None
        if not piece and not chunk:
            raise truncated("gzip")
        out.write(chunk, position)
        piece = memoryview(decompressor.unconsumed_tail)
    return position - len(decompressor.unused_data)


def by_decompressor(
    name: str, decompressor: Any, errors: tuple[type[Exception], ...], data: memoryview, out: BoundedOutput
) -> int:
    """Unpack with an object that has the interface of bz2.BZ2Decompressor."""
    position = 0
    while not decompressor.eof:
        piece = data[:0]
        if decompressor.needs_input:
            piece = next_piece(data, position)
            position += len(piece)
            if not piece:
                raise truncated(name)
        try:
            chunk = decompressor.decompress(piece, CHUNK)
        except errors as error:
            raise broken(name, error) from None
        out.write(chunk, position)
    return position - len(decompressor.unused_data or b"")


def next_piece(data: memoryview, position: int) -> memoryview:
    """The next piece to feed. The first ones are small: if the stream ends in one, the rest of it is copied."""
    return data[position : position + min(max(position, _FIRST_PIECE), _PIECE)]


def unpack_xz(data: memoryview, out: BoundedOutput) -> int:
    lzma = python_module("lzma")
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY_BYTES)
    return by_decompressor("xz", decompressor, (lzma.LZMAError, EOFError), data, out)


def unpack_lzma(data: memoryview, out: BoundedOutput) -> int:
    lzma = python_module("lzma")
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY_BYTES)
    return by_decompressor("lzma", decompressor, (lzma.LZMAError, EOFError), data, out)


def unpack_bzip2(data: memoryview, out: BoundedOutput) -> int:
    decompressor = python_module("bz2").BZ2Decompressor()
    return by_decompressor("bzip2", decompressor, (OSError, EOFError, ValueError), data, out)
