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

MARK = b"#> "
OWN = MARK + b"the next line is the log's own\n"
NO_NEWLINE = MARK + b"no newline at the end of the log\n"
SEPARATOR = b"  #> "
_BESIDE = re.compile(rb"(?s)(.*)  #> [^\r\n]*(\r*\n?)")


def without_annotations(lines: Iterable[bytes], margin: bool = False) -> Iterator[bytes]:
    """The lines of a log that was annotated, as they were before."""
    return map(_left_of_margin, lines) if margin else _unmarked(lines)


def _left_of_margin(line: bytes) -> bytes:
    found = _BESIDE.fullmatch(line)
    return line if found is None else found.group(1) + found.group(2)


def _unmarked(lines: Iterable[bytes]) -> Iterator[bytes]:
    held = b""  # the last line, of which the newline may not be the log's
    is_own = False
    for line in lines:
        if is_own or not line.startswith(MARK):
            yield held
            held, is_own = line, False
        elif line == OWN:
            is_own = True
        elif line == NO_NEWLINE:
            held = held[:-1]
    yield held
