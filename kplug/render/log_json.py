"""A log as objects: `kplug.event/1` for its events, `kplug.find/1` for what others of its lines name (docs/json.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring_ascii as _string
from typing import TYPE_CHECKING, Union

from kplug.annotate.event_feed import EventFeed
from kplug.log.finding import Role, found_in, role_of
from kplug.log.pieces import LONGEST_LINE, Kind, Piece
from kplug.outputs import InModule
from kplug.render.json_lines import JsonLines
from kplug.render.log_events import event_object

if TYPE_CHECKING:
    from kplug.annotate.answers import LogAnswers
    from kplug.log.event import Event

SCHEMA = "kplug.find/1"
# What may be of an event is held so long.
_MOST_HELD = 50_000

# What an address is there, or that it is a symbol.
_Role = Union[Role, bool, None]
# Line, column, text.
_Find = tuple[int, int, str, _Role]


class Open:
    """What of a log is not over yet: its events, and what was found that may be of one. `path` is where the log is."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.events = EventFeed()
        self.finds: list[_Find] = []

    def begin(self, path: str | None) -> None:
        """Another log, in that file."""
        self.path = path


class LogJson:
    """What a log names, as objects. `is_open` is shared by all that the log is given to in turn."""

    def __init__(self, answers: LogAnswers, is_open: Open) -> None:
        self._answers = answers
        self._json = JsonLines()
        self._open = is_open

    def feed(self, piece: Piece, line: int) -> bytes:
        """The objects that are known with the next piece of the log, which begins in that line."""
        events = self._open.events.feed(piece, line)
        if piece.kind is Kind.LINES:
            self._open.finds.extend(self._in(piece.data, line))
        elif piece.kind is Kind.BEGIN:
            self._open.finds.extend(self._in(piece.data[:LONGEST_LINE], line))
        return self._known(events, self._open.events.first_line)

    def close(self) -> bytes:
        """The objects that the end of the log ends."""
        return self._known(self._open.events.close(), None)

    def _known(self, events: Sequence[Event], open_since: int | None) -> bytes:
        """The events that are over, and what was found outside of them, up to what is not over yet."""
        finds = self._open.finds
        finds[:] = list(_outside(events, finds))
        objects = [(event.last_line, 0, event_object(event, self._answers, self._open.path)) for event in events]
        held = []
        for line, column, text, role in finds:
            if open_since is not None and line >= open_since and len(finds) < _MOST_HELD:
                held.append((line, column, text, role))
            else:
                objects += [(line, column, find) for find in self._objects(line, column, text, role)]
        finds[:] = held
        return "".join([f"{text}\n" for _, _, text in sorted(objects, key=lambda each: each[:2])]).encode()

    def _in(self, data: bytes, line: int) -> Iterator[_Find]:
        counted = begin = 0
        for start, end, is_symbol in found_in(data, self._answers.bits):
            line += data.count(b"\n", counted, start)
            begin = max(begin, data.rfind(b"\n", counted, start) + 1)
            counted = start
            if end - begin <= LONGEST_LINE:
                yield line, start - begin + 1, data[start:end].decode("ascii"), is_symbol or role_of(data, start)

    def _objects(self, line: int, column: int, text: str, role: _Role) -> Iterator[str]:
        path = "null" if self._open.path is None else _string(self._open.path)
        for where in self._where(text, role):
            yield (
                f'{{"schema": "{SCHEMA}", "file": {path}, "line": {line}, "column": {column}, '
                f'"text": {_string(text)}, "where": {where}}}'
            )

    def _where(self, text: str, role: _Role) -> Iterator[str]:
        if role is not True:
            answer = self._answers.of_address(int(text, 16), role) if isinstance(role, Role) else None
            if answer is not None:
                yield self._json.annotation(answer)
            return
        answers = self._answers.of_symbol(text)
        for each in answers:
            yield self._json.in_module(each) if isinstance(each, InModule) else self._json.annotation(each)
        if not answers:
            yield "null"


def _outside(events: Sequence[Event], finds: Sequence[_Find]) -> Iterator[_Find]:
    """Those of the finds, which are in the log's order, that are in no event's lines."""
    begun = sorted(((event.first_line, event.last_line) for event in events), reverse=True)
    last = 0
    for find in finds:
        while begun and begun[-1][0] <= find[0]:
            last = max(last, begun.pop()[1])
        if find[0] > last:
            yield find
