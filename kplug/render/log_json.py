"""The JSON contract `kplug.find/1`: one object for each address or symbol of a log (docs/json.md)."""

from __future__ import annotations

from collections.abc import Iterator
from json.encoder import encode_basestring_ascii as _string
from typing import TYPE_CHECKING

from kplug.log.finding import Found, found_in, role_of
from kplug.log.pieces import LONGEST_LINE, Kind, Piece
from kplug.outputs import InModule
from kplug.render.json_lines import JsonLines

if TYPE_CHECKING:
    from kplug.annotate.answers import LogAnswers

SCHEMA = "kplug.find/1"


class LogJson:
    """What a log names, as objects."""

    def __init__(self, answers: LogAnswers) -> None:
        self._answers = answers
        self._json = JsonLines()

    def feed(self, piece: Piece, line: int) -> bytes:
        """The objects for the next piece of the log, which begins in that line."""
        if piece.kind is Kind.LINES:
            return b"".join(self._objects(piece.data, line))
        return b"".join(self._objects(piece.data[:LONGEST_LINE], line)) if piece.kind is Kind.BEGIN else b""

    def _objects(self, data: bytes, line: int) -> Iterator[bytes]:
        counted = start = 0
        for found in found_in(data, self._answers.bits):
            line += data.count(b"\n", counted, found.start)
            start = max(start, data.rfind(b"\n", counted, found.start) + 1)
            counted = found.start
            if found.end - start > LONGEST_LINE:
                continue
            text = data[found.start : found.end].decode("ascii")
            for where in self._where(data, found, text):
                yield (
                    f'{{"schema": "{SCHEMA}", "line": {line}, "column": {found.start - start + 1}, '
                    f'"text": {_string(text)}, "where": {where}}}\n'
                ).encode()

    def _where(self, data: bytes, found: Found, text: str) -> Iterator[str]:
        if not found.is_symbol:
            role = role_of(data, found.start)
            answer = None if role is None else self._answers.of_address(int(text, 16), role)
            if answer is not None:
                yield self._json.annotation(answer)
            return
        answers = self._answers.of_symbol(text)
        for each in answers:
            yield self._json.in_module(each) if isinstance(each, InModule) else self._json.annotation(each)
        if not answers:
            yield "null"
