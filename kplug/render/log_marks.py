"""How annotations stand in a log, so that they can be taken out again without loss.

Below a line (`--inline`), each on a line of its own that begins with `#> `: `sed '/^#> /d'` removes them. Two of these
lines keep that exact for any input: `OWN` comes before a line of the log that begins with `#> ` itself, `NO_NEWLINE`
after one whose newline was added because annotations follow it.

Beside a line (`--margin`), between its text and its end, after the `SEPARATOR`: `sed 's/ *#> .*//'`, which an
annotation does not contain. A line of the log that has it gets an empty one, so the last one in a line is always ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO

from kplug.log.pieces import LONGEST_LINE

MARK = b"#> "
OWN = MARK + b"the next line is the log's own\n"
NO_NEWLINE = MARK + b"no newline at the end of the log\n"
SEPARATOR = b"  #> "
_BESIDE = re.compile(rb"(?s)(.*)  #> [^\r\n]*(\r*\n?)")


def without_annotations(log: BinaryIO, margin: bool = False) -> Iterator[bytes]:
    """A log that was annotated as it was before, in parts: a line may be longer than memory."""
    parts = iter(partial(log.readline, LONGEST_LINE), b"")
    return _left_of_margin(parts) if margin else _unmarked(parts)


def _left_of_margin(parts: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()  # of the line, what may be an annotation
    for part in parts:
        searched = max(0, len(held) - len(SEPARATOR) + 1)
        held += part
        if part.endswith(b"\n"):
            yield _without_last(held)
            held.clear()
            continue
        start = held.rfind(SEPARATOR, searched)
        if start < 0 and not held.startswith(SEPARATOR):
            start = max(0, len(held) - len(SEPARATOR) + 1)
        if start > 0:
            yield bytes(held[:start])
            del held[:start]
    yield _without_last(held)


def _without_last(line: bytearray) -> bytes:
    found = _BESIDE.fullmatch(line)
    return bytes(line) if found is None else found.group(1) + found.group(2)


def _unmarked(parts: Iterable[bytes]) -> Iterator[bytes]:
    held = b""  # the last newline, which may not be the log's
    is_begin, is_own, is_marked = True, False, False
    for part in parts:
        if is_begin:
            is_marked = part.startswith(MARK) and not is_own
            is_own = part == OWN and is_marked
        is_begin = part.endswith(b"\n")
        if not is_marked:
            end = len(part) - is_begin
            yield held + part[:end]
            held = part[end:]
        elif part == NO_NEWLINE:
            held = b""
    yield held
