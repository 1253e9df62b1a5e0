"""A machine's memory as it is: a LiME image, whose ranges have headers, or a raw one, whose ranges the user gives.

LiME's header (lime_mem_range_header in its doc/README.md): magic, version 1, the first and the last physical address,
eight bytes of zeros; the range's bytes follow. All of it is little-endian.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence

from kplug.errors import InputError, UsageError
from kplug.files.opening import open_file
from kplug.named_tuples import NamedTuple

_LIME = struct.Struct("<IIQQQ")
_LIME_MAGIC, _LIME_VERSION = 0x4C694D45, 1
# /proc/iomem of a large machine has some tens of ranges of RAM.
_MOST_RANGES = 1 << 12
_RANGE = re.compile(r"(?:0x)?([0-9a-f]{1,14})(?:-(?:0x)?([0-9a-f]{1,14}))?", re.IGNORECASE)


class Extent(NamedTuple):
    """Physical memory [start, start + size), at `offset` in the file, which lacks the `lost` bytes after it."""

    start: int
    size: int
    offset: int
    lost: int = 0


def raw_extents(path: str, given: str | None) -> Sequence[Extent]:
    """The memory in a LiME image, or in a raw one whose ranges are `given`; none for any other file."""
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(_LIME.size)
        if _is_lime(head):
            if given is not None:
                raise InputError(f"{path}: a LiME image: its ranges are in it, and none are given with --raw")
            return _lime(path, file.fileno(), size)
    return [] if given is None else _given(path, given, size)


def _is_lime(head: bytes) -> bool:
    return len(head) == _LIME.size and _LIME.unpack(head)[:2] == (_LIME_MAGIC, _LIME_VERSION)


def _lime(path: str, descriptor: int, size: int) -> Sequence[Extent]:
    found: list[Extent] = []
    offset = 0
    while offset < size:
        head = os.pread(descriptor, _LIME.size, offset)
        if not _is_lime(head):
            raise InputError(f"{path}: broken: no LiME header at {offset:#x}, where range {len(found) + 1} should be")
        _, _, first, last, _ = _LIME.unpack(head)
        if last < first or last >= 1 << 56 or len(found) == _MOST_RANGES:
            raise InputError(f"{path}: broken: a LiME header says {first:#x}-{last:#x}")
        offset += _LIME.size
        found.append(_extent(first, last + 1 - first, offset, size))
        offset += last + 1 - first
    return found


def _given(path: str, text: str, size: int) -> Sequence[Extent]:
    """Ranges as /proc/iomem has them (START-LAST), in the order of the file; the last may be a START alone."""
    found: list[Extent] = []
    offset = 0
    for word in text.split(","):
        match = _RANGE.fullmatch(word.strip())
        if match is None:
            raise UsageError(f"--raw {text}: {word.strip() or 'nothing'}: not START or START-LAST in hexadecimal")
        if found and offset >= size:
            raise UsageError(f"--raw {text}: {word.strip()}: {path} ends before it, at {size:#x}")
        first = int(match.group(1), 16)
        count = int(match.group(2), 16) + 1 - first if match.group(2) else size - offset
        if count <= 0:
            raise UsageError(f"--raw {text}: {word.strip()}: ends before it begins, or the file is empty")
        if any(first < each.start + each.size and each.start < first + count for each in found):
            raise UsageError(f"--raw {text}: {word.strip()}: overlaps a range before it")
        found.append(_extent(first, count, offset, size))
        offset += count
    if offset < size:
        raise UsageError(f"--raw {text}: these are {offset:#x} bytes, and {path} has {size:#x}")
    return found


def _extent(start: int, count: int, offset: int, size: int) -> Extent:
    lost = max(0, offset + count - size)
    return Extent(start, count - lost, offset, lost)
