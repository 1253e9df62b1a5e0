"""A kernel's log among the outputs of a command, as `kplug annotate` shows the log in a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kplug.log.pieces import Kind, Piece
from kplug.outputs import Log
from kplug.render.safe import safe
from kplug.render.style import Style

if TYPE_CHECKING:
    from kplug.render.log_events import LogSummary
    from kplug.render.log_json import LogJson
    from kplug.render.log_text import LogText


def log_lines(log: Log, style: Style, is_json: bool) -> Iterator[str]:
    """The lines for a log, made safe for a terminal: other bytes than text are escaped, as dmesg does."""
    lines = log.text.decode("utf-8", "backslashreplace").split("\n")[:-1]
    lines = ["\t".join(map(safe, line.split("\t"))) for line in lines]
    if log.answers is None and not log.events:
        yield from lines
        return
    piece = Piece(Kind.LINES, "".join([f"{line}\n" for line in lines]).encode())
    form = _form(log, style, is_json)
    for shown in (form.feed(piece, 1), form.close()):
        yield from shown.decode().splitlines()


def _form(log: Log, style: Style, is_json: bool) -> LogText | LogJson | LogSummary:
    if is_json:
        from kplug.render.log_json import LogJson, Open

        return LogJson(log.answers, Open())
    if log.events:  # the grammar of events takes 40 ms to import
        from kplug.render.log_events import LogSummary

        return LogSummary(style)
    from kplug.render.log_text import LogText

    return LogText(log.answers, style)
