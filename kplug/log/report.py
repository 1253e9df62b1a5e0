"""One report in the reading: takes line after line, and says of each whether it is of the report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from kplug.log import registers as regs
from kplug.log.common_lines import AFTER_END, END_OF_PANIC, END_OF_TRACE, PANIC, WITHIN
from kplug.log.event import Frame, Trace
from kplug.log.headers import HEADERS, MODULES
from kplug.log.kinds import EventKind, Heading, Wording
from kplug.log.report_data import ReportData
from kplug.log.text import LogText
from kplug.log.traces import HEADINGS, TraceReader, read_frames

# How far a report goes: its first lines, its middle, what comes after its end, a panic at its end.
HEAD, BODY, ENDED, PANICKED = range(4)
# Whether a line is of the report; the last one closes it.
STRAY, BELONGS, LAST = range(3)
# How many lines of others it may have in it at once.
_STRAYS, _STRAYS_AFTER_END = 30, 3
_OF_A_PROGRAM = 0.02
_MOST_TRACES = 500
_MOST_FRAMES = 8000
# What a mail program's line ends with that goes on in the next one, and how that begins.
_UNFINISHED = re.compile(
    r"[^\n]{0,120}?(?P<name>\b(?:[RE][A-Z0-9]{2}|R\d|[FG]S|CR\d|EFLAGS|x\d{1,2}|Comm|Tainted)\s?:)\s*$"
)
_FINISHED = re.compile(r"[0-9a-f]{8}|[0-9a-f]{4}:")


def match_any(wordings: tuple[Wording, ...], message: str) -> tuple[Wording, re.Match[str]] | None:
    for wording, pattern in zip(wordings, _compiled(wordings)):
        match = pattern.match(message)
        if match is not None:
            return wording, match
    return None


@cache
def _compiled(wordings: tuple[Wording, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(wording.pattern) for wording in wordings)


@cache
def _headings(own: tuple[Heading, ...]) -> tuple[tuple[Heading, re.Pattern[str]], ...]:
    return tuple((heading, re.compile(heading.pattern)) for heading in (*own, *HEADINGS))


def _are_different(one: Mapping[str, str | None], other: Mapping[str, str | None]) -> bool:
    """Whether these are two tasks. A task may change its CPU while it reports; those that idle have one PID."""
    pids = one.get("pid"), other.get("pid")
    cpus = one.get("cpu"), other.get("cpu")
    return None not in pids and (pids[0] != pids[1] or (pids[0] == "0" and None not in cpus and cpus[0] != cpus[1]))


class Report:
    """A report whose lines are being read; `kplug.log.conclusions` makes its event."""

    def __init__(
        self, kind: EventKind, wording: Wording, match: re.Match[str], first: int, last: int, prefixed: bool
    ) -> None:
        self.kind = kind
        self.phase = HEAD
        self.title, self.sentence = wording.title, wording.sentence
        self.first_line = first
        self.last_line = last
        self.facts: dict[str, str] = {}
        self.ended = False
        # Whether lines of another task's report are among its own.
        self.mixed = False
        self._reporter: dict[str, str | None] = {}
        self._strays = 0.0
        # Where one CPU reports of another, it may print its own state first.
        self._of_another_cpu = False
        self._prefixed = prefixed
        self._trace: TraceReader | None = None
        self._traces: list[TraceReader] = []
        self.data = ReportData()
        self._unfinished: str | None = None
        self.ip: Frame | None = None
        self.state(wording, match)

    # What it states

    def state(self, wording: Wording, match: re.Match[str], but: tuple[str, ...] = ()) -> None:
        """Keep what a line states, as far as no line before it did."""
        for name, value in (*match.groupdict().items(), *wording.states):
            if value is not None and name not in but:
                self.facts.setdefault(name, value)

    def become(self, kind: EventKind, wording: Wording, match: re.Match[str], last: int) -> None:
        """A further first line: of another kind if that says more than the first one."""
        if self.kind.general and not kind.general:
            # What blamed a function before is the general wording.
            self.kind, self.title, self.sentence = kind, wording.title, wording.sentence
            for name, value in match.groupdict().items():
                if value is not None:
                    self.facts[name] = value
        self.state(wording, match)
        self._strays, self.last_line = 0, last

    def merges(self, kind: EventKind) -> bool:
        """Whether a first line of that kind, in the first lines of this report, is of the same event."""
        return self.kind.general or kind.general

    def mixes_with(self, outer: Report) -> bool:
        """Whether the report in whose lines it was is another task's: nothing says then which line is whose."""
        return self.mixed or _are_different(self._reporter, outer._reporter)

    def mix(self) -> None:
        self.mixed = True

    def is_own(self, message: str) -> bool:
        """Whether the line is one that the kind declares for the middle of its reports."""
        if self.phase == ENDED:
            return False
        own = match_any(self.kind.details, message) or match_any(self.kind.ends, message)
        return own is not None or any(pattern.match(message) for _, pattern in _headings(self.kind.headings))

    def understands(self, line: LogText) -> bool:
        """Whether the line is like those that are in the middle of reports; asked where that is not certain."""
        message = line.message
        if self.phase == ENDED or not message:
            return False
        return (
            self.is_own(message)
            or any(match_any(each, message) for each in (regs.POINTERS, HEADERS, WITHIN, (END_OF_TRACE, PANIC)))
            or self._is_registers(message)
            or any(pattern.match(message) for _, pattern in _headings(()))
            or regs.code_text(message) is not None
            or MODULES.match(message) is not None
            or bool(read_frames(message, line.number, "task", loose=True))
            or TraceReader(None, None).mark(message) is not None
        )

    # Lines

    def take(self, line: LogText, last: int) -> int:
        """Whether the line is of this report: STRAY, BELONGS or LAST."""
        taken = self._take(line)
        if taken != STRAY:
            self._strays, self.last_line = 0, last
        return taken

    def stray(self, line: LogText) -> bool:
        """Count a line that is not of it; whether there are too many now."""
        if line.message:
            # Among lines with a prefix, those without are of programs that write to the same console.
            self._strays += 1 if line.prefixed or not self._prefixed else _OF_A_PROGRAM
        limit = _STRAYS_AFTER_END if self.phase == ENDED else _STRAYS
        return self._strays > limit

    def _take(self, line: LogText) -> int:
        message = line.message
        if not message:
            return STRAY
        if self._unfinished is not None and _FINISHED.match(message) is not None:
            message = f"{self._unfinished} {message}"
            line = line._replace(message=message)
        unfinished = _UNFINISHED.match(message)
        self._unfinished = unfinished.group("name") if unfinished is not None else None
        panic = match_any((PANIC,), message)
        if panic is not None:
            self.state(*panic)
            self.phase, self._trace = PANICKED, None
            return BELONGS
        if match_any((END_OF_PANIC,), message) is not None:
            self.ended = True
            return LAST
        if self.phase == ENDED:
            return self._take_after_end(line)
        end = match_any(self.kind.ends, message) or match_any((END_OF_TRACE,), message)
        if end is not None:
            if self.phase != PANICKED:
                self.phase = ENDED
            self.ended, self._trace = True, None
            self.state(*end)
            return BELONGS
        detail = match_any(self.kind.details, message)
        if detail is not None:
            self.state(*detail)
            if self._trace is not None and self._trace.frames:
                self._trace = None  # a heading is of the next frames, whatever is said of them first
            return BELONGS
        return BELONGS if self._take_common(line) else STRAY

    def _take_after_end(self, line: LogText) -> int:
        found = match_any(AFTER_END, line.message)
        if found is not None:
            self.state(*found)
            return BELONGS
        if not self.kind.resumes:
            return STRAY
        is_again = (
            match_any(regs.POINTERS, line.message) or regs.code_text(line.message) or self._is_registers(line.message)
        )
        return BELONGS if is_again else STRAY

    @staticmethod
    def _is_registers(message: str) -> bool:
        return bool(regs.read_registers(message)) or regs.is_registers(message)

    def _take_common(self, line: LogText) -> bool:
        message = line.message
        if self._trace is not None and self._trace.take(message, line.number):
            self._past_head()
            return True
        pointer = match_any(regs.POINTERS, message)
        if pointer is not None:
            self._take_pointer(line, pointer[1])
            return True
        if self._take_heading(line) or self._take_header(line):
            return True
        if self.data.take(line, self._in_trace):
            self._enter_body()
            return True
        after = match_any(AFTER_END, message)
        found = after or match_any(WITHIN, message)
        if found is not None:
            self.state(*found)
            # A kernel that reboots after a panic prints no end of it.
            self.ended = self.ended or (after is not None and self.phase == PANICKED)
            return True
        frames = read_frames(message, line.number, "task")
        if frames or (self._trace is None and message.startswith("<")):
            trace = TraceReader(None, None)
            if not trace.take(message, line.number):
                return False
            self._begin_trace(trace)
            return True
        return False

    def _enter_body(self) -> None:
        if self.phase == HEAD:
            self.phase = BODY

    def _past_head(self) -> None:
        """A line came that is neither of the first ones nor data."""
        self._enter_body()
        self.data.begin_anew()

    def _begin_trace(self, trace: TraceReader) -> None:
        self._past_head()
        self._trace = trace
        if self._of_another_cpu:
            trace.set_aside()
        if len(self._traces) < _MOST_TRACES and sum(len(each.frames) for each in self._traces) < _MOST_FRAMES:
            self._traces.append(trace)

    def _take_pointer(self, line: LogText, match: re.Match[str]) -> None:
        stated = {name: value for name, value in match.groupdict().items() if value is not None}
        self._past_head()
        if self.data.turn_to_program(line.message) or self._of_another_cpu:
            return
        frame = regs.ip_frame(stated, line.number)
        name = regs.pointer_name(line.message)
        if name is not None:
            self.facts.setdefault("pointer", name)
        if "cpu" in stated:
            self.facts.setdefault("cpu", stated["cpu"])
        if self._trace is not None and self._trace.frames:
            # At the end of old oopses the pointer is repeated.
            if frame.function is not None and not self.is_ip(frame):
                self._trace.add(frame)
        elif self.ip is None or (self.ip.function is None and frame.function is not None):
            self.ip = frame
        self.data.take_registers(line.message, self._in_trace)

    def is_ip(self, frame: Frame) -> bool:
        return self.ip is not None and (self.ip.function, self.ip.offset) == (frame.function, frame.offset)

    def _take_heading(self, line: LogText) -> bool:
        for heading, pattern in _headings(self.kind.headings):
            match = pattern.match(line.message)
            if match is None:
                continue
            stated = match.groupdict()
            # Whose trace it is need not be who reports.
            cpu, pid, _ = (stated.pop(name, None) for name in ("cpu", "pid", "comm"))
            self._turn_to(cpu)
            for name, value in stated.items():
                self.facts.setdefault(name, value)
            trace = TraceReader(heading, line.message, int(cpu) if cpu else None, int(pid) if pid else None)
            last = self._trace
            if heading in HEADINGS and last is not None and not last.frames:
                trace = TraceReader(None, line.message, last.cpu) if last.main else last
                if last is trace:
                    return True
                self._traces = [each for each in self._traces if each is not last]
            self._begin_trace(trace)
            rest = line.message[match.end() :].strip()
            if rest:
                trace.take(rest, line.number)
            return True
        return False

    def _take_header(self, line: LogText) -> bool:
        found = match_any(HEADERS, line.message)
        if found is None:
            return False
        stated = found[1].groupdict()
        self._past_head()
        self._turn_to(stated.get("cpu"))
        self._note_reporter(stated)
        self.state(*found, but=("comm", "pid") if self._of_another_cpu else ())
        return True

    def _note_reporter(self, stated: dict[str, str | None]) -> None:
        if not self.kind.ends or self.phase == PANICKED:
            return  # other CPUs' states may be in it
        self.mixed = self.mixed or _are_different(self._reporter, stated)
        for name in ("cpu", "pid"):
            if self._reporter.get(name) is None:
                self._reporter[name] = stated.get(name)

    def _turn_to(self, cpu: str | None) -> None:
        """The lines that follow are of this CPU, as a kind knows whose reports have several."""
        if cpu is not None and self.kind.joined_by:
            self._of_another_cpu = self.facts.get("cpu", cpu) != cpu

    @property
    def _in_trace(self) -> bool:
        return any(trace.frames for trace in self._traces)

    @property
    def is_whole(self) -> bool:
        """Whether it is at its end, as far as the report alone can tell."""
        traces = [trace for trace in self._traces if trace.frames]
        return self.ended or (not self.kind.ends and bool(traces) and (traces[-1].is_whole or self._trace is None))

    @property
    def traces(self) -> tuple[Trace, ...]:
        return tuple(trace.trace for trace in self._traces if trace.frames)
