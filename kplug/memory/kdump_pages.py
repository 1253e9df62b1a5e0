"""The list of pages in makedumpfile's format: where their data is, and which of it the file lacks."""

from __future__ import annotations

import struct
from typing import BinaryIO

PAGE_DESCRIPTOR = 24  # offset, size, flags, page_flags
_DESCRIPTORS, _DESCRIPTOR_READS = 4096, 1024
_WHOLE_LIST = 1 << 16  # pages: 256 MiB of memory, some milliseconds


def cut_pages(file: BinaryIO, order: str, table: int, pages: int, size: int) -> list[int]:
    """The numbers (in the list of pages) of those whose data reaches past the end of the file.

    libkdumpfile 0.5 maps the file and is killed (SIGBUS) when it reads them. In a long list only the last part is
    checked, since pages are written in order; a short one is checked completely.
    """
    start = 0 if pages <= _WHOLE_LIST else pages - _DESCRIPTORS
    data = bytes_at(file, table + start * PAGE_DESCRIPTOR, (pages - start) * PAGE_DESCRIPTOR)
    whole = data[: len(data) // PAGE_DESCRIPTOR * PAGE_DESCRIPTOR]
    descriptors = struct.iter_unpack(order + "qIIQ", whole)
    return [
        number for number, (offset, length, _, _) in enumerate(descriptors, start) if offset < size < offset + length
    ]


def page_frame(dumped: bytes, number: int) -> int:
    """The page frame number of the n-th page in the dump, from the set bits of the bitmap."""
    for index, byte in enumerate(dumped):
        count = bin(byte).count("1")
        if number < count:
            return index * 8 + [bit for bit in range(8) if byte >> bit & 1][number]
        number -= count
    return len(dumped) * 8


def data_end(file: BinaryIO, order: str, table: int, pages: int) -> int:
    """The end of the last page's data. Pages of zeros share the data of the first one, so the last descriptors may
    point there: then more of them are read, up to a limit.
    """
    first = table + pages * PAGE_DESCRIPTOR
    stop, end = pages, 0
    for _ in range(_DESCRIPTOR_READS):
        start = max(0, stop - _DESCRIPTORS)
        data = bytes_at(file, table + start * PAGE_DESCRIPTOR, (stop - start) * PAGE_DESCRIPTOR)
        whole = data[: len(data) // PAGE_DESCRIPTOR * PAGE_DESCRIPTOR]
        end = max((o + n for o, n, _, _ in struct.iter_unpack(order + "qIIQ", whole) if o > first), default=0)
        stop = start
        if end or not start:
            break
    return end


def bytes_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """The bytes at an offset from a header; fewer at the end of the file, none at an impossible offset."""
    if offset >= 1 << 56:
        return b""
    file.seek(offset)
    return file.read(size)
