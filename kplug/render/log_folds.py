"""Which lines of a log's event can be folded: its call traces, and its registers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kplug.log.registers import is_registers, read_registers
from kplug.log.text import read_text
from kplug.named_tuples import NamedTuple

if TYPE_CHECKING:
    from kplug.log.event import Event, Trace

# Fewer lines need no folding.
_LEAST = 4
# Of a longer trace that is not the event's own, the first line is shown.
_LONG = 12
# The heading of a trace has a mark or an empty line between it and the frames.
_MOST_BETWEEN = 2


class Fold(NamedTuple):
    """Lines of a log, `first` to `last`; the first one stays. `words` is what they are."""

    first: int
    last: int
    words: str
    is_open: bool


def folds_of(event: Event, lines: Mapping[int, bytes]) -> Sequence[Fold]:
    """The folds of an event, of which `lines` are at hand, in their order and apart from each other."""
    found: list[Fold] = []
    for fold in sorted(_traces(event, lines)):
        if not found or fold.first > found[-1].last:
            found.append(fold)
    of_traces = {number for fold in found for number in range(fold.first, fold.last + 1)}
    return sorted((*found, *_registers(event, {at: line for at, line in lines.items() if at not in of_traces})))


def _traces(event: Event, lines: Mapping[int, bytes]) -> Iterator[Fold]:
    for trace in event.traces:
        numbers = [frame.line_number for frame in trace.frames]
        if not numbers or not all(number in lines for number in (min(numbers), max(numbers))):
            continue
        first, last = _heading(trace, min(numbers), lines), max(numbers)
        if last - first < _LEAST:
            continue
        is_own = trace.frames is event.frames
        yield Fold(first, last, f"{last - first} lines", is_own or last - first < _LONG)


def _heading(trace: Trace, number: int, lines: Mapping[int, bytes]) -> int:
    """Where the trace's heading is, that of its first frame if there is none."""
    if trace.heading is not None:
        for above in range(number - 1, number - 2 - _MOST_BETWEEN, -1):
            if above in lines and trace.heading in read_text(above, lines[above]).message:
                return above
    return number


def _registers(event: Event, lines: Mapping[int, bytes]) -> Iterator[Fold]:
    first: int | None = None
    for number in range(event.first_line, event.last_line + 2):
        line = lines.get(number) if number <= event.last_line else None
        if line is not None and _has_registers(event, number, line):
            first = number if first is None else first
        elif first is not None:
            if number - first >= _LEAST:
                yield Fold(first, number - 1, "registers", True)
            first = None


def _has_registers(event: Event, number: int, line: bytes) -> bool:
    message = read_text(number, line).message
    return is_registers(message) or not event.registers.keys().isdisjoint(read_registers(message))
