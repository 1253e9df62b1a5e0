"""Finding the kallsyms names and their markers, from a token table backwards."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat

from kplug.arch.types.word import LITTLE, struct_order
from kplug.frozen import Frozen, replace
from kplug.image.kallsyms.tables import (
    MAX_NAME_CODES,
    MAX_NAMES_BYTES,
    MAX_PADDING,
    MAX_SYMBOLS,
    NAMES_PER_MARKER,
    TokenTable,
)

# Reads bytes at a position; fewer, or none, at the end.
Read = Callable[[int, int], bytes]

# No kernel has fewer symbols than this; three markers are the fewest that are not a coincidence.
MIN_SYMBOLS = 2 * NAMES_PER_MARKER + 1
_MIN_NAME_BYTES = 2
_MAX_NAME_BYTES = MAX_NAME_CODES + 2
# KSYM_NAME_LEN: the maximal size of the names after the last marker.
_USUAL_NAME_BYTES = 514
# How far before the token table the markers may begin: next to it, or with the sequence numbers between (6.2, 6.3).
_MARKER_WINDOWS = (1 << 16, 1 << 20, 4 * MAX_SYMBOLS)
# The start of readable memory is sought with this precision.
_GRAIN = 4
_ZEROS = re.compile(rb"\0{4,}")


class Markers(Frozen):
    """A run of numbers that may be markers."""

    position: int
    width: int
    values: Sequence[int]


class NamesTable(Frozen):
    """Names that fit the markers, and the count before them."""

    count_position: int
    position: int
    end: int
    number: int
    word_size: int
    markers: Markers


def words(data: bytes | bytearray, width: int, byte_order: str, signed: bool = False) -> Sequence[int]:
    """The words in `data`, of 4 or 8 bytes."""
    letter = {4: "i", 8: "q"}[width]
    form = struct_order(byte_order == LITTLE) + f"{len(data) // width}{letter if signed else letter.upper()}"
    return struct.unpack(form, data[: len(data) // width * width])


def marker_tables(token_table: TokenTable, read: Read) -> Iterator[Markers]:
    """Candidates for the markers before a token table, the nearest first."""
    searched = token_table.start
    for size in _MARKER_WINDOWS:
        low, data = bytes_before(token_table.start, size, read)
        if low >= searched:
            return
        for zero_start, zero_end in _zeros_before(data, low, searched):
            for width in (4, 8):
                # Markers begin with 0; the first non-zero byte is in the second one.
                second = zero_end - (zero_end - token_table.start) % width
                first = second - width
                if first < zero_start or first < low:
                    continue
                values = _rising_run(data, first - low, width, token_table.byte_order)
                for length in range(len(values), max(len(values) - 3, MIN_SYMBOLS // NAMES_PER_MARKER), -1):
                    if _reaches(length, token_table.start - first - width * length):
                        yield Markers(first, width, values[:length])
        searched = low


def bytes_before(end: int, size: int, read: Read) -> tuple[int, bytes]:
    """Position and bytes of the last `size` bytes before `end`, or of as many as there are."""
    size = min(size, end)
    data = read(end - size, size)
    if len(data) == size:
        return end - size, data
    # Memory before `end` is readable, but further down it is not: find its start.
    has, has_not, found = 0, size, b""
    while has_not - has > _GRAIN:
        middle = (has + has_not) // 2
        data = read(end - middle, middle)
        if len(data) == middle:
            has, found = middle, data
        else:
            has_not = middle
    return end - has, found


def _zeros_before(data: bytes, position: int, limit: int) -> list[tuple[int, int]]:
    """Start and end of the runs of zeros in `data`, which is at `position`; last first, none far beyond `limit`."""
    zeros = [(position + match.start(), position + match.end()) for match in _ZEROS.finditer(data)]
    return [run for run in reversed(zeros) if run[0] <= limit]


def _reaches(markers: int, distance: int) -> bool:
    """Whether the distance from the markers to the tokens is possible: only padding, or the sequence numbers."""
    most = markers * NAMES_PER_MARKER
    if most - NAMES_PER_MARKER >= MAX_SYMBOLS:
        return False
    least_sequence = 3 * (most - NAMES_PER_MARKER + 1)
    return 0 <= distance <= MAX_PADDING or least_sequence <= distance <= 3 * most + 2 * MAX_PADDING


def _rising_run(data: bytes, start: int, width: int, byte_order: str) -> Sequence[int]:
    """The numbers from `start` on that increase as markers do."""
    least, most = NAMES_PER_MARKER * _MIN_NAME_BYTES, NAMES_PER_MARKER * _MAX_NAME_BYTES
    size = 64
    while True:
        values = words(data[start : start + size * width], width, byte_order)
        for number in range(1, len(values)):
            if not least <= values[number] - values[number - 1] <= most:
                return values[:number]
        if start + size * width >= len(data) or size * NAMES_PER_MARKER > MAX_SYMBOLS:
            return values
        size *= 4


def name_tables(markers: Markers, token_table: TokenTable, read: Read) -> Iterator[NamesTable | None]:
    """Candidates for the names before the markers, by their count; None for each whose lengths do not fit."""
    order = token_table.byte_order
    length, last = len(markers.values), markers.values[-1]
    if last > MAX_NAMES_BYTES:
        return
    high = markers.position - last
    if high <= 0:
        return
    low, data = bytes_before(high, NAMES_PER_MARKER * _USUAL_NAME_BYTES + 2 * MAX_PADDING, read)
    odd = (markers.position - low) % 4
    low += odd
    least, most = (length - 1) * NAMES_PER_MARKER, min(length * NAMES_PER_MARKER, MAX_SYMBOLS)
    for number, count in enumerate(words(data[odd:], 4, order)):
        if least < count <= most:
            for found in _names_after(low + 4 * number, count, markers, order, read):
                end = _names_end(found.position, count, markers.values, markers.position, read)
                yield None if end is None else replace(found, end=end)


def _names_after(position: int, count: int, markers: Markers, order: str, read: Read) -> Iterator[NamesTable]:
    """The possible starts of the names after the 32 bits of their count, with the word size for each."""
    if markers.width == 8:  # up to 4.19, 64 bits: the count is a word
        start = position if order == LITTLE else position - 4
        if words(read(start, markers.width), markers.width, order) == (count,):
            yield NamesTable(start, start + markers.width, 0, count, markers.width, markers)
        return
    if read(position + 4, 4) == bytes(4):  # aligned to 8
        yield NamesTable(position, position + 8, 0, count, 8, markers)
    yield NamesTable(position, position + 4, 0, count, 4, markers)


def _names_end(position: int, number: int, markers: Sequence[int], end: int, read: Read) -> int | None:
    """The end of the names, if the first and the last of them fit the markers and the zeros before the markers."""
    for block in (0, len(markers) // 2, len(markers) - 2):
        expected = markers[block + 1] - markers[block]
        if walk(read(position + markers[block], expected), NAMES_PER_MARKER) != expected:
            return None
    start = position + markers[-1]
    rest = read(start, end - start)
    size = walk(rest, number - NAMES_PER_MARKER * (len(markers) - 1))
    if size is None or len(rest) - size > MAX_PADDING or any(rest[size:]):
        return None
    return start + size


def walk(data: bytes, number: int, position: int = 0) -> int | None:
    """The end of that many names from `position` on; None if `data` does not contain them.

    In kernels up to 6.0 a length byte with bit 7 set means 128 codes or more; it is read as two bytes all the same,
    since every name seen so far compressed to less.
    """
    size = len(data)
    try:
        for _ in repeat(None, number):
            length = data[position]
            if length > 0x7F:
                position += 1
                length = length & 0x7F | data[position] << 7
            if not length:
                return None
            position += length + 1
    except IndexError:
        return None
    return position if position <= size else None
