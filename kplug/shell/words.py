"""The words on standard input, one a line."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from typing import TextIO

from kplug.expressions import MAX_LENGTH

# Bytes that are read at once, if they are there.
_READ_BYTES = 1 << 14
# A line much too long for an expression is cut here, and stays too long.
_LONGEST = 2 * MAX_LENGTH


def words(stream: TextIO | None, before_waiting: Callable[[], None]) -> Iterator[str]:
    """The lines of a stream, stripped. `before_waiting` is called when all that was there has been yielded."""
    rest, is_cut = "", False
    for text in _texts(stream, before_waiting) if stream is not None else ():
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            if not is_cut:
                yield line.strip() if len(line) < _LONGEST - 1 else f"{line}\n"[:_LONGEST]
            is_cut = False
        if is_cut:
            rest = ""
        elif len(rest) >= _LONGEST:
            yield rest[:_LONGEST]
            rest, is_cut = "", True
    if not is_cut:
        yield rest.strip()


def _texts(stream: TextIO, before_waiting: Callable[[], None]) -> Iterator[str]:
    """The text of a stream as it comes, with newlines as a text file has them."""
    if not isinstance(stream, io.TextIOWrapper):  # another program's
        while text := stream.readline(_LONGEST):
            yield text
            before_waiting()
        return
    decoder = codecs.getincrementaldecoder(stream.encoding)(stream.errors or "strict")
    lines = io.IncrementalNewlineDecoder(decoder, translate=True)
    # A buffered reader waits for no more than it needs here.
    while data := stream.buffer.read1(_READ_BYTES):
        yield lines.decode(data)
        before_waiting()
    yield lines.decode(b"", final=True)
