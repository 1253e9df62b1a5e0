"""Groups the lines of a script into units to run: a command, or a Python statement with all its lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from kplug.named_tuples import NamedTuple
from kplug.repl.python import is_block, is_whole

_CONTINUES = re.compile(r"\s|#|(?:elif|else|except|finally)\b")


class SourceChunk(NamedTuple):
    """A unit to run, and the number of its first line."""

    number: int
    text: str


def chunks(lines: Iterable[str], is_command: Callable[[str], bool]) -> Iterator[SourceChunk]:
    """The chunks of a script. A command is yielded immediately; a block ends before the first line not part of it."""
    numbered = enumerate(lines, 1)
    ahead = next(numbered, None)
    while ahead is not None:
        number, line = ahead
        line = line.rstrip("\n")
        if not line.strip() or line.lstrip().startswith("#"):
            ahead = next(numbered, None)
            continue
        if is_command(line):
            yield SourceChunk(number, line)
            ahead = next(numbered, None)
            continue
        text, ahead = line, None
        while not is_whole(text) or is_block(text):  # only then wait for the next line
            ahead = next(numbered, None)
            if ahead is None or (is_whole(text) and not _continues(ahead[1])):
                break
            text, ahead = text + "\n" + ahead[1].rstrip("\n"), None
        yield SourceChunk(number, text)
        ahead = ahead or next(numbered, None)


def _continues(line: str) -> bool:
    """Whether a line after a block may belong to it."""
    return not line.strip() or _CONTINUES.match(line) is not None
