"""The lines of a log with machine code, as they come: what is said below each, with the event's registers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kplug.annotate.machine_code import code_answer
from kplug.image.banner import START

if TYPE_CHECKING:
    from kplug.annotate.answers import LogAnswers
    from kplug.annotate.machine_code import CodeAnswer
    from kplug.log.event import Event

# An event's lines before its code, and between that and the end of its registers, are no more than this.
CONTEXT = 1 << 14
CODE = b"Code: "
_LINE = re.compile(rb"Code: (?:[0-9a-f]{2,8} ){0,64}[<(][0-9a-f]{2,8}[>)][^\n]{0,512}\n?")
# The end of the registers where they come after the code (arch/x86/kernel/process_64.c, __show_regs()).
_REGISTERS_END = re.compile(rb"CR2: [0-9a-f]{8,16}[^\n]{0,512}\n?")


class CodeLines:
    """Reads the lines of one log, and keeps those near its end."""

    def __init__(self, answers: LogAnswers) -> None:
        self._answers = answers
        self._before = b""
        self._is_open = False  # the registers are still to come
        self._after = 0  # where the last line with code ends in what is kept

    def forget(self) -> None:
        """What comes next does not follow the lines so far."""
        self._before, self._is_open, self._after = b"", False, 0

    def answers_in(self, data: bytes) -> Iterator[tuple[int, CodeAnswer, bool]]:
        """For each line with code in some whole lines, and for the one where its registers end: where the line ends,
        the answer, and whether it is the code's own line."""
        if not self._is_open and CODE not in data:
            self._before = data[-CONTEXT:] if len(data) >= CONTEXT else (self._before + data)[-CONTEXT:]
            return
        shift = len(self._before)
        text = self._before + data
        begin, at = 0, shift
        while True:
            code = _LINE.search(text, at)
            match = code
            if self._is_open:
                match = _REGISTERS_END.search(text, at, len(text) if code is None else code.start()) or code
            if match is None:
                break
            at = match.end()
            if match is code and self._is_open:
                begin = self._after
            event = self._event(text[max(begin, at - CONTEXT) : at], is_cut=at - CONTEXT > begin)
            if event is not None and match is code and not _is_its(event, match.group()):
                event = None
            answer = None if event is None else code_answer(event, self._answers)
            self._is_open = match is code and answer is not None and answer.words is None
            if not self._is_open:
                begin = at
            self._after = at
            if answer is not None and (match is code or answer.words is not None):
                yield at - shift - 1, answer, match is code
        forgotten = max(begin, len(text) - CONTEXT)
        self._before, self._after = text[forgotten:], max(0, self._after - forgotten)

    @staticmethod
    def _event(near: bytes, is_cut: bool) -> Event | None:
        """The event that these lines are of, so far; `is_cut`: the first one is not whole."""
        from kplug.log.event_reader import read_events  # 40 ms to import

        boot = near.rfind(START)
        if boot >= 0:
            near = near[boot:]
        lines = near.splitlines()[1 if is_cut or boot >= 0 else 0 :]
        found = None
        for event in read_events(lines):
            if event.last_line >= len(lines) and event.code is not None:
                found = event
        return found


def _is_its(event: Event, line: bytes) -> bool:
    """Whether an event's code is that of this line. It may be that of one above, which `_LINE` does not match."""
    from kplug.log.registers import code_text, read_code
    from kplug.log.text import read_text

    return event.code == read_code(code_text(read_text(0, line).message) or "")
