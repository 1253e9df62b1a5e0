"""What one pass over the lines of /proc/kallsyms tells, which may begin before all of them are there."""

from __future__ import annotations

from kplug.files.read_ahead import Text
from kplug.linker.boundary_names import is_conventional, pattern_of_names

# To cut a block apart takes some 10 microseconds.
_BLOCK_BYTES = 1 << 12


class LineScan:
    """Where blocks of lines begin, and the number of the line there; and the names among which boundary symbols of that
    architecture are, each with its last place in the text.

    `conventional` are those of them that `may_be_boundary` asks for.
    """

    def __init__(self, machine: str) -> None:
        self._pattern = pattern_of_names(machine)
        self.end = 0
        self.starts, self.numbers = [0], [0]
        self.names: dict[bytes, int] = {}
        self.conventional: set[bytes] = set()

    def go_on(self, text: Text, end: int) -> None:
        """Look at the lines up to `end`, where one ends."""
        start, number = self.starts[-1], self.numbers[-1]
        while 0 < (following := text.find(b"\n", start + _BLOCK_BYTES, end) + 1) < end:
            number += _lines_in(text[start:following])
            start = following
            self.starts.append(start)
            self.numbers.append(number)
        names = {match[1]: match.start(1) for match in self._pattern.finditer(text, self.end, end)}
        self.names.update(names)
        self.conventional.update(filter(is_conventional, names))
        self.end = end


def _lines_in(block: bytes) -> int:
    """How many lines end in it. count() looks at each byte, replace() finds them by memchr(): half the time."""
    return len(block) - len(block.replace(b"\n", b""))
