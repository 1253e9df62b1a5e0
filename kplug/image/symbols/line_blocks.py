"""The lines of a long text by number: they are cut apart a block at a time, where one is asked for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Callable

from kplug.files.read_ahead import Text

# Of so many blocks, a sample of the lines has one.
_SAMPLE_STEP = 8


class LineBlocks:
    """The lines of `text` up to `end`, where one ends, in blocks that begin at `starts`, at lines of these `numbers`.

    `check` looks at the lines of a block when it is cut apart.
    """

    def __init__(
        self,
        text: Text,
        end: int,
        check: Callable[[Sequence[bytes]], None],
        starts: Sequence[int],
        numbers: Sequence[int],
        added: Sequence[tuple[int, bytes]] = (),
    ) -> None:
        self._text = text
        self._end = end
        self._check = check
        self._cut: dict[int, Sequence[bytes]] = {}
        # Where each block begins, and the number of the line there.
        self._starts, self._numbers = starts, numbers
        self._added = added
        self._length = numbers[-1] + text[starts[-1] : end].count(b"\n") + len(list(self._added_in(len(starts) - 1)))

    def with_added(self, added: Sequence[tuple[int, bytes]]) -> LineBlocks:
        """The same with these lines too, each before the one that begins at a position in the text: in order."""
        places = [place for place, _ in added]
        # What is added before all lines is in the first block; before the others is what is added up to their starts.
        numbers, begin = [0], 1
        for before, place in enumerate(places):
            end = max(bisect_left(self._starts, place), begin)
            numbers += map(before.__add__, self._numbers[begin:end])
            begin = end
        numbers += map(len(places).__add__, self._numbers[begin:])
        return LineBlocks(self._text, self._end, self._check, self._starts, numbers, added)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> bytes:
        block = bisect_right(self._numbers, number) - 1
        lines = self._cut.get(block) or self._block(block)
        return lines[number - self._numbers[block]]

    def _block(self, block: int) -> Sequence[bytes]:
        lines = self._cut[block] = self._lines(block)
        self._check([*lines, *self._firsts(block + 1, block + 2)])
        return lines

    def _lines(self, block: int) -> list[bytes]:
        start, end = self._starts[block], self._end_of(block)
        lines = bytes(self._text[start : end - 1]).split(b"\n")
        for before, (place, line) in enumerate(self._added_in(block)):
            lines.insert(self._text[start:place].count(b"\n") + before, line)
        return lines

    def _end_of(self, block: int) -> int:
        return self._starts[block + 1] if block + 1 < len(self._starts) else self._end

    def _added_in(self, block: int) -> Iterable[tuple[int, bytes]]:
        """The lines that were added in a block, or at its end."""
        start, end = self._starts[block] if block else -1, self._end_of(block)
        return ((place, line) for place, line in self._added if start < place <= end)

    def _firsts(self, first: int, end: int, step: int = 1) -> Iterable[bytes]:
        return (bytes(self._text[start : self._text.find(b"\n", start)]) for start in self._starts[first:end:step])

    def sample(self) -> Sequence[bytes]:
        """The lines of the first and the last block, and the first one of some blocks in between."""
        last = len(self._starts) - 1
        return [*self._lines(0), *self._firsts(1, last, _SAMPLE_STEP), *(self._lines(last) if last else ())]

    def number_at(self, position: int) -> int:
        """The number of the line that holds that position of the text."""
        block = bisect_right(self._starts, position) - 1
        number = self._numbers[block] + self._text[self._starts[block] : position].count(b"\n")
        return number + sum(place <= position for place, _ in self._added_in(block)) if self._added else number

    def start_of(self, number: int) -> int:
        """Where the line of that number begins; for the number after the last, where the lines end. For lines of the
        text, without any that were added."""
        if number >= self._length:
            return self._end
        block = bisect_right(self._numbers, number) - 1
        before = self._block(block)[: number - self._numbers[block]]
        return self._starts[block] + sum(map(len, before)) + len(before)
