"""A dump in several files: of `makedumpfile --split` each has the pages of a range of memory, and all have its notes.

struct kdump_sub_header in makedumpfile's diskdump_mod.h: `split`, and the first and last page frame of the file. How
many files there are is written nowhere: the dump is whole if their ranges leave nothing out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence

from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.frozen import Frozen
from kplug.memory.dump_header import KDUMP_SIGNATURE, after_time
from kplug.memory.dump_notes import note_bytes

_HEAD_BYTES = 1 << 17
# Offsets in the sub header of 64-bit machines: `split` since version 2 of the header; start_pfn and end_pfn, and their
# copies of 64 bits with max_mapnr_64 since version 6.
_SPLIT, _RANGE, _WIDE_RANGE, _SUB_HEADER_BYTES = 12, 16, 80, 104
# Files that are looked at in a part's folder.
_MOST_NEIGHBOURS = 1 << 12


class Part(Frozen):
    """A file of a split dump: the physical memory [start, end) of the `size` bytes that the dump covers. `notes` are
    the same in all files of one dump, and differ from those of any other.
    """

    path: str
    start: int
    end: int
    size: int
    notes: bytes


def part_of(path: str) -> Part | None:
    """The file as a part of a split dump; None if it is not one. InputError if it cannot be read."""
    with open_file(path) as file:
        try:
            head = file.read(_HEAD_BYTES)
            if not head.startswith(KDUMP_SIGNATURE):
                return None
            place = _place(head)
            if place is None:
                return None
            file.seek(0)
            notes, _ = note_bytes(path, file)
        except (OSError, struct.error) as error:
            raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return Part(path, *place, notes)


def _place(head: bytes) -> tuple[int, int, int] | None:
    """The file's range and the dump's size, in bytes of memory; None if the dump is not split."""
    fields = after_time(head) if len(head) >= 4096 else None
    if fields is None:
        return None
    order, _, block, _, _, pages = fields
    version = struct.unpack_from(order + "i", head, 8)[0]
    sub = head[block : block + _SUB_HEADER_BYTES]
    if version < 2 or len(sub) < _SUB_HEADER_BYTES or struct.unpack_from(order + "i", sub, _SPLIT)[0] != 1:
        return None
    start, end = struct.unpack_from(order + "QQ", sub, _RANGE)
    if version >= 6:
        start, end, pages = struct.unpack_from(order + "QQQ", sub, _WIDE_RANGE)
    if not 0 <= start <= end <= pages or pages * block > 1 << 56:
        raise struct.error("its range of a split dump is broken")
    return start * block, end * block, pages * block


def parts_of(path: str, given: Sequence[str]) -> Sequence[Part]:
    """The files of the dump that `path` is a part of, in the order of their memory: those `given`, and those that lie
    beside it. Empty if it is not split. InputError for a given one that is none of them.
    """
    own = part_of(path)
    if own is None:
        if given:
            raise InputError(f"{given[0]}: several -c are for the parts of a split dump, and {path} is no part of one")
        return ()
    found = [own]
    for other in given:
        part = part_of(other)
        if part is None or not _belong_together(part, own):
            raise InputError(f"{other}: not a part of the dump that {path} is a part of")
        found.append(part)
    if missing(found):
        found += _beside(own)
    # Of a part that is there twice one will do.
    return sorted({(part.start, part.end): part for part in reversed(found)}.values(), key=lambda part: part.start)


def _belong_together(part: Part, other: Part) -> bool:
    return bool(part.notes) and (part.notes, part.size) == (other.notes, other.size)


def _beside(own: Part) -> Iterable[Part]:
    """The other parts in the folder of one."""
    folder = os.path.dirname(own.path)
    try:
        names = sorted(os.listdir(folder or "."))[:_MOST_NEIGHBOURS]
    except OSError:
        return
    for name in names:
        path = os.path.join(folder, name)
        try:
            part = part_of(path) if os.path.isfile(path) and path != own.path else None
        except InputError:
            continue
        if part is not None and _belong_together(part, own):
            yield part


def missing(parts: Sequence[Part]) -> Sequence[range]:
    """The physical memory that the dump covers and none of the parts."""
    found, end = [], 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.start > end:
            found.append(range(end, part.start))
        end = max(end, part.end)
    size = parts[0].size if parts else 0
    return [*found, range(end, size)] if end < size else found


def missing_words(parts: Sequence[Part]) -> str | None:
    """That parts of the dump are missing, and which, for the user; None if it is whole."""
    lost = missing(parts)
    if not lost:
        return None
    here = "one part" if len(parts) == 1 else f"{len(parts)} parts"
    gaps = ", ".join(f"{gap.start:#x}-{gap.stop:#x}" for gap in lost)
    return (
        f"only {here} of a split dump (makedumpfile --split): those with physical memory {gaps} of "
        f"0x0-{parts[0].size:#x} are missing (give each with another -c)"
    )
