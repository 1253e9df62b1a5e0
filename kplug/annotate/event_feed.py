"""The events of a log that comes in pieces, and its frames' source lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kplug import model
from kplug.log.event_reader import EventReader
from kplug.log.pieces import LONGEST_LINE, Kind, Piece
from kplug.log.text import read_text
from kplug.outputs import InModule

if TYPE_CHECKING:
    from kplug.annotate.answers import LogAnswers
    from kplug.log.event import Event, Frame
    from kplug.model import Layer


class EventFeed:
    """Finds the events of logs, one after another."""

    def __init__(self) -> None:
        self._reader = EventReader()

    def feed(self, piece: Piece, number: int) -> list[Event]:
        """The events that are over with this piece, which begins in that line of the log."""
        if piece.kind not in (Kind.LINES, Kind.BEGIN):
            return []
        data = piece.data if piece.kind is Kind.LINES else piece.data[:LONGEST_LINE]
        lines = data.split(b"\n")
        if not lines[-1]:
            del lines[-1]
        return [event for at, line in enumerate(lines, number) for event in self._reader.feed(read_text(at, line))]

    @property
    def first_line(self) -> int | None:
        """Where what is not over began; None if nothing is open."""
        return self._reader.first_line

    def close(self) -> list[Event]:
        """The events that the end of the log ends. What is fed after it is another log."""
        reader, self._reader = self._reader, EventReader()
        return reader.close()


def symbol_text(frame: Frame) -> str | None:
    """The frame as the log has it, `symbol+0xoffset/0xsize [module]`; None for one without a place in its symbol."""
    if frame.function is None or frame.offset is None or frame.size is None:
        return None
    module = "" if frame.module is None else f" [{' '.join(filter(None, (frame.module, frame.build_id)))}]"
    return f"{frame.function}+{frame.offset:#x}/{frame.size:#x}{module}"


def line_of(frame: Frame, answers: LogAnswers) -> Layer | None:
    """The source line of a frame, if the kernel's debug information has it."""
    text = symbol_text(frame)
    for answer in answers.of_symbol(text) if text is not None else ():
        annotation = answer.annotation if isinstance(answer, InModule) else answer
        return annotation.last(model.LINE)
    return None
