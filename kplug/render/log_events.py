"""Events of a log: the JSON contract `kplug.event/1` (docs/json.md), and one line for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kplug.annotate.event_feed import EventFeed, line_of
from kplug.annotate.machine_code import code_answer
from kplug.annotate.sentence import sentence_of
from kplug.render.safe import safe
from kplug.render.style import Style

if TYPE_CHECKING:
    from kplug.annotate.answers import LogAnswers
    from kplug.log.event import Event, Frame
    from kplug.log.faulting import Faulting
    from kplug.log.pieces import Piece

SCHEMA = "kplug.event/1"
_encode = json.JSONEncoder(ensure_ascii=True, separators=(", ", ": ")).encode


def event_object(event: Event, answers: LogAnswers, path: str | None) -> str:
    """The object for one event of the log in that file, without a newline."""
    frames = event.frames
    others = [trace for trace in event.traces if trace.frames is not frames]
    return _encode(
        {
            "schema": SCHEMA,
            "file": path,
            "first_line": event.first_line,
            "last_line": event.last_line,
            "type": event.type,
            "title": event.title,
            "function": event.function,
            "access": event.access,
            "address": _hex(event.address),
            "bytes": event.bytes,
            "cpu": event.cpu,
            "pid": event.pid,
            "comm": event.comm,
            "release": event.release,
            "build": event.build,
            "taint": None if event.taint is None else "".join([taint.letter for taint in event.taint]),
            "taints": None if event.taint is None else [taint.words for taint in event.taint],
            "hardware": event.hardware,
            "complete": event.complete,
            "signature": event.signature,
            "ip": None if event.ip is None else _frame(event.ip, answers),
            "frames": [_frame(frame, answers) for frame in frames],
            "traces": [
                {
                    "context": trace.context,
                    "heading": trace.heading,
                    "cpu": trace.cpu,
                    "pid": trace.pid,
                    "frames": [_frame(frame, answers) for frame in trace.frames],
                }
                for trace in others
            ],
            "registers": {name: _hex(value) for name, value in event.registers.items()},
            "code": _code(event, answers),
            "modules": None if event.modules is None else [module.name for module in event.modules],
            "panic": event.panic,
            "sentence": sentence_of(event, answers),
        }
    )


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


def _frame(frame: Frame, answers: LogAnswers) -> dict[str, Any]:
    layer = line_of(frame, answers)
    return {
        "function": frame.function,
        "offset": _hex(frame.offset),
        "size": _hex(frame.size),
        "module": frame.module,
        "context": frame.context,
        "questionable": frame.questionable,
        "line": frame.place if layer is None else layer.name,
        "inlined": [] if layer is None else layer.details["inlined"],
    }


def _code(event: Event, answers: LogAnswers) -> dict[str, Any] | None:
    code, answer = event.code, code_answer(event, answers)
    if code is None:
        return None
    faulting = None if answer is None else answer.faulting
    return {
        "machine": None if answer is None else answer.machine,
        "bytes": code.data.hex(),
        "unit": code.unit,
        "marked": code.marked,
        "instructions": None
        if answer is None
        else [
            {"offset": each.offset, "bytes": each.data.hex(), "text": each.text or None, "guess": each.guess}
            for each in answer.instructions
        ],
        "faulting": None if faulting is None else {"text": faulting.text, **_operand(faulting)},
        "words": None if answer is None else answer.words,
    }


def _operand(faulting: Faulting) -> dict[str, Any]:
    operand = faulting.operand
    if operand is None:
        return {"operand": None, "agrees": None}
    return {
        "operand": {
            "base": operand.base,
            "base_value": _hex(operand.base_value),
            "index": operand.index,
            "index_value": _hex(operand.index_value),
            "scale": operand.scale,
            "displacement": operand.displacement,
            "segment": operand.segment,
            "address": _hex(operand.address),
            "access": operand.access,
        },
        "agrees": faulting.agrees,
    }


def event_line(event: Event, style: Style, path: str | None = None) -> str:
    """One line for an event: where it is, its title, whose it was, and what happened."""
    where = f"{event.first_line}-{event.last_line}"
    if path is not None:
        where = safe(f"{path}:{where}")
    return "  ".join([style.paint(style.address, where), style.paint(style.symbol, safe(event.title)), *_facts(event)])


def _facts(event: Event) -> Sequence[str]:
    task = " ".join(filter(None, (event.comm, None if event.pid is None else str(event.pid))))
    whose = f"{task} on CPU {event.cpu}" if task and event.cpu is not None else task
    facts = [
        whose,
        event.release,
        None if event.panic is None else "then a panic",
        None if event.complete else "cut off",
        event.sentence,
    ]
    return [safe(fact) for fact in facts if fact]


class LogSummary:
    """The events of a log, one line each, with the log's path if there are several."""

    def __init__(self, style: Style, path: str | None = None) -> None:
        self._style = style
        self._path = path
        self._events = EventFeed()

    def feed(self, piece: Piece, line: int) -> bytes:
        """The lines for the events that are over with the next piece of the log, which begins in that line."""
        return self._lines(self._events.feed(piece, line))

    def close(self) -> bytes:
        """The lines for the events that the end of the log ends."""
        return self._lines(self._events.close())

    def _lines(self, events: Sequence[Event]) -> bytes:
        return "".join([f"{event_line(event, self._style, self._path)}\n" for event in events]).encode()
