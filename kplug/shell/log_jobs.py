"""A long file in several processes: each takes every n-th part of it, and writes in turn, so that nothing is copied."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence

from kplug.annotate.code_lines import CODE, CONTEXT
from kplug.errors import InputError
from kplug.named_tuples import NamedTuple

_PART_BYTES = 1 << 22
_MOST_KEPT = 4 * _PART_BYTES
_SEARCH_BYTES = 1 << 16
_TURN = b"."
# How a process says that it could not go on.
_FAILED, _NO_READER = 1, 2


class Part(NamedTuple):
    """A part of a file, of whole lines."""

    start: int
    end: int


def parts(descriptor: int, cuts: Sequence[int]) -> Iterator[Part]:
    """The file in parts that end where lines do; `cuts`: where there must be an end."""
    size = os.fstat(descriptor).st_size
    start = 0
    for cut in (*sorted(cuts), size):
        while start < cut:
            end = min(_part_end(descriptor, start + _PART_BYTES, size), cut)
            yield Part(start, end)
            start = end


def _part_end(descriptor: int, position: int, size: int) -> int:
    """Where a line ends, from there on, and no report whose machine code is explained may go on."""
    position = _line_end(descriptor, position, size)
    while position < size and CODE in os.pread(descriptor, 2 * CONTEXT, max(0, position - CONTEXT)):
        position = _line_end(descriptor, position + CONTEXT, size)
    return position


def _line_end(descriptor: int, position: int, size: int) -> int:
    """Where a line ends, from there on."""
    while position < size:
        data = os.pread(descriptor, _SEARCH_BYTES, position)
        found = data.find(b"\n")
        if found >= 0:
            return position + found + 1
        position += len(data) or size
    return size


def reader_of(descriptor: int, part: Part) -> Callable[[], bytes]:
    """What reads a part, a block at a time."""
    position = part.start

    def read() -> bytes:
        nonlocal position
        try:
            data = os.pread(descriptor, min(1 << 20, part.end - position), position)
        except OSError as error:
            raise InputError(f"the log cannot be read: {error.strerror}") from None
        position += len(data)
        return data

    return read


def in_processes(
    count: int, all_parts: Sequence[Part], work: Callable[[Part], Iterator[bytes]], report: Callable[[], bytes]
) -> Sequence[bytes]:
    """Write what `work` gives for each part to standard output, in their order; what the processes `report` at the end.

    BrokenPipeError if nobody reads it; InputError if a process could not go on.
    """
    sys.stdout.flush()
    output = sys.stdout.fileno()
    turns = [os.pipe() for _ in range(count)]
    reports = [os.pipe() for _ in range(count)]
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            status = _FAILED
            try:
                status = _work(number, count, all_parts, work, report, turns, reports, output)
            finally:
                os._exit(status)
        children.append(child)
    os.write(turns[0][1], _TURN)
    for pair in turns:
        os.close(pair[0])
        os.close(pair[1])
    found = []
    for reading, writing in reports:
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            found.append(stream.read())
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if _NO_READER in statuses:
        raise BrokenPipeError
    if any(statuses):
        raise InputError("a process that annotates the log ended before it was done (-j 1 uses none)")
    return found


def _work(
    number: int,
    count: int,
    all_parts: Sequence[Part],
    work: Callable[[Part], Iterator[bytes]],
    report: Callable[[], bytes],
    turns: Sequence[tuple[int, int]],
    reports: Sequence[tuple[int, int]],
    output: int,
) -> int:
    """What one process does; returns its exit status."""
    mine, following = turns[number][0], turns[(number + 1) % count][1]
    for pair in (*turns, *reports):  # so that the end of one process ends the others
        for descriptor in pair:
            if descriptor not in (mine, following, reports[number][1]):
                os.close(descriptor)
    for part in all_parts[number::count]:
        data = work(part)
        kept = [] if part.end - part.start > _MOST_KEPT else list(data)  # a very long line is not kept
        if os.read(mine, 1) != _TURN:
            return _FAILED
        try:
            for each in (*kept,) or data:
                _write(output, each)
        except BrokenPipeError:
            return _NO_READER
        with contextlib.suppress(BrokenPipeError):  # the other one has had its last part
            os.write(following, _TURN)
    _write(reports[number][1], report())
    return 0


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
