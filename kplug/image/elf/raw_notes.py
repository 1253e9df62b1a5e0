"""The kernel's notes in an image without sections or segments (a flat Image), found by their form.

.notes is one run of consecutive notes. vDSOs in the image have notes of their own, with a build ID: they are recognised
because they lie inside an ELF file, whose header gives its end.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice

from kplug.arch.types.word import struct_order
from kplug.image.elf.file import NT_GNU_BUILD_ID
from kplug.named_tuples import NamedTuple

_OWNERS = (b"GNU", b"Linux", b"Xen")
_MAX_NOTE_BYTES = 1 << 12
_MOST_FILES = 64
# Kernels have some 20 notes, and half a dozen places that look like one.
_MOST_NOTES = 1 << 12


class RawNotes(NamedTuple):
    """The position of a run of notes in the image, and its bytes."""

    offset: int
    data: bytes


def find_notes(data: bytes, *, little_endian: bool) -> RawNotes | None:
    """The run of notes with the kernel's build ID; None if there is none or several, or if too much looks like
    notes."""
    order = struct_order(little_endian)
    inside = list(_elf_files(data, order))
    found: list[RawNotes] = []
    for start, end, has_build_id in _runs(data, order):
        if has_build_id and not any(first <= start < last for first, last in inside):
            found.append(RawNotes(start, data[start:end]))
    return found[0] if len(found) == 1 else None


def _runs(data: bytes, order: str) -> Iterator[tuple[int, int, bool]]:
    """The runs of notes of these owners: start, end, and whether one is a build ID."""
    notes = sorted(islice(_notes(data, order), _MOST_NOTES + 1))
    if len(notes) > _MOST_NOTES:
        return
    run: tuple[int, int, bool] | None = None
    for start, end, is_build_id in notes:
        if run is not None and start == run[1]:
            run = (run[0], end, run[2] or is_build_id)
            continue
        if run is not None:
            yield run
        run = (start, end, is_build_id)
    if run is not None:
        yield run


def _notes(data: bytes, order: str) -> Iterator[tuple[int, int, bool]]:
    """Possible notes of these owners, one by one."""
    for owner in _OWNERS:
        size = len(owner) + 1
        name = owner.ljust(size + 3 & ~3, b"\0")
        head = re.escape(struct.pack(order + "I", size)) + rb"(.{8})" + re.escape(name)
        for match in re.finditer(head, data, re.DOTALL):
            length, number = struct.unpack(order + "II", match.group(1))
            end = match.end() + (length + 3 & ~3)
            if match.start() % 4 == 0 and length <= _MAX_NOTE_BYTES and end <= len(data):
                yield match.start(), end, owner == b"GNU" and number == NT_GNU_BUILD_ID and length > 0


def _elf_files(data: bytes, order: str) -> Iterator[tuple[int, int]]:
    """The ELF files in the image (vDSOs, purgatory): from their header to the end of their section headers, which
    linkers put last.
    """
    position = data.find(b"\x7fELF")
    for _ in range(_MOST_FILES):
        if position < 0:
            return
        wide = data[position + 4 : position + 5] == b"\2"
        header_size = 64 if wide else 52
        header = data[position : position + header_size]
        if len(header) == header_size:
            offset = struct.unpack_from(order + ("Q" if wide else "I"), header, 40 if wide else 32)[0]
            own_size, size, count = struct.unpack_from(order + "H4xHH", header, 52 if wide else 40)
            end = position + offset + size * count
            # The kernel's code contains the bare magic, too.
            if own_size == header_size and size in (40, 64) and end <= len(data):
                yield position, end
        position = data.find(b"\x7fELF", position + 4)
