"""A log in pieces of whole lines, as they come, with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

from kplug.named_tuples import NamedTuple

# Of a longer line only the beginning is searched.
LONGEST_LINE = 0x10000


class Kind(Enum):
    """What a piece of a log is: whole lines (the log's last one may lack its newline), or a part of a line that is too
    long to be kept whole."""

    LINES = "lines"
    BEGIN = "begin"
    MORE = "more"
    END = "end"


class Piece(NamedTuple):
    kind: Kind
    data: bytes


def pieces(read: Callable[[], bytes]) -> Iterator[Piece]:
    """What `read` gives, until that is nothing, with bounded memory."""
    kept: list[bytes] = []  # the beginning of a line
    size = 0
    is_long = False
    while data := read():
        if is_long:
            end = data.find(b"\n") + 1
            yield Piece(Kind.END if end else Kind.MORE, data[:end] if end else data)
            if not end:
                continue
            is_long, data = False, data[end:]
        cut = data.rfind(b"\n") + 1
        if cut:
            yield Piece(Kind.LINES, b"".join([*kept, data[:cut]]))
            kept, size = [], 0
        if cut < len(data):
            kept.append(data[cut:])
            size += len(data) - cut
        if size > LONGEST_LINE:
            yield Piece(Kind.BEGIN, b"".join(kept))
            kept, size, is_long = [], 0, True
    if kept:
        yield Piece(Kind.LINES, b"".join(kept))
