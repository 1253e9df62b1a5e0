"""Reads a log's lines as they come, and finds the events in them: in bounded memory, in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache

from kplug.log.beginnings import beginnings
from kplug.log.common_lines import BORDERS, PANIC, PANIC_OVER_REPORT
from kplug.log.conclusions import conclude
from kplug.log.event import Event
from kplug.log.kinds import EventKind, Wording, kinds
from kplug.log.report import BODY, ENDED, HEAD, LAST, STRAY, Report, match_any
from kplug.log.text import LogText, read_text

# Reports that are open at once: of so many callers, and one in another.
_MOST_CALLERS = 64
_DEEPEST = 4
# Callers whose lines are of another's report; more are not joined to it, as no line may take long.
_MOST_JOINED = 512
# A report is over if its caller has said nothing for so many lines; the lesser one is for one whose end was seen.
_LONGEST_SILENCE, _SILENCE_AFTER_END = 2000, 50
# A line that a console of 80 columns wrapped is put together of so many.
_MOST_WRAPPED = 16
_KEY = 3


def read_events(lines: Iterable[str | bytes]) -> Iterator[Event]:
    """The events in these lines, each as soon as its end is seen."""
    reader = EventReader()
    for number, line in enumerate(lines, 1):
        yield from reader.feed(read_text(number, line))
    yield from reader.close()


class _Begin:
    """A first line of a report: what it is matched by."""

    def __init__(self, kind: EventKind, wording: Wording) -> None:
        self.kind = kind
        self.wording = wording
        self.pattern = re.compile(wording.pattern)


@cache
def _begins() -> tuple[dict[str, tuple[_Begin, ...]], tuple[_Begin, ...], re.Pattern[str]]:
    """The first lines by what they begin with, and those that may begin with anything, the special kinds first."""
    special_first = sorted(kinds(), key=lambda kind: kind.general)
    all_of = [_Begin(kind, wording) for kind in special_first for wording in kind.begins]
    known = [beginnings(begin.wording.pattern, _KEY) for begin in all_of]
    by_key = {
        key: tuple(begin for begin, of in zip(all_of, known) if of is None or key in of)
        for key in frozenset().union(*filter(None, known))
    }
    anywhere = tuple(begin for begin, of in zip(all_of, known) if of is None)
    words = dict.fromkeys(word for begin in anywhere for word in begin.wording.has or ("",))
    return by_key, anywhere, re.compile("|".join(map(re.escape, words)) or "(?!)")


def begins(message: str) -> tuple[EventKind, Wording, re.Match[str]] | None:
    """The kind of event whose report begins with this line, if one does."""
    by_key, anywhere, words = _begins()
    candidates = by_key.get(message[:_KEY])
    if candidates is None:
        # Nearly all lines end here.
        if words.search(message) is None:
            return None
        candidates = anywhere
    for begin in candidates:
        match = begin.pattern.match(message)
        if match is not None:
            return begin.kind, begin.wording, match
    return None


@cache
def _joining() -> tuple[Wording, ...]:
    return tuple(dict.fromkeys(wording for kind in kinds() for wording in kind.joined_by))


class EventReader:
    """Finds the events of one log. `feed` takes each line and returns the events that are over with it."""

    def __init__(self) -> None:
        # By caller: the reports that are open, one in another.
        self._open: dict[str | None, list[Report]] = {}
        self._borders: dict[str | None, int] = {}
        self._held: LogText | None = None
        self._wrapped: list[LogText] = []
        # Whether a kernel did since it was booted.
        self._has_spoken = False

    def feed(self, line: LogText) -> list[Event]:
        """The events that are over, now that this line has come."""
        if self._held is None:
            if line.fills_the_columns and line.prefixed:
                self._hold(line)
                return []
            silent = self._silent(line.number) if self._open else []
            return [*silent, *self._feed(line, line.number)] if silent else self._feed(line, line.number)
        if line.prefixed or not line.message or len(self._wrapped) >= _MOST_WRAPPED:
            return [*self._release(), *self.feed(line)]
        self._wrapped.append(line)
        raw = self._held.raw.rstrip("\r\n") + line.raw.rstrip("\r\n")
        self._held = read_text(self._held.number, raw)
        return [] if line.fills_the_columns else self._release()

    @property
    def first_line(self) -> int | None:
        """The first line of what is open; None if nothing is. No event will begin before it."""
        began = [report.first_line for reports in self._open.values() for report in reports]
        if self._held is not None:
            began.append(self._held.number)
        return min((*began, *self._borders.values()), default=None)

    def close(self) -> list[Event]:
        """The events that the end of the log ends."""
        done = self._release()
        for reports in {id(each): each for each in self._open.values()}.values():
            while reports:
                done.extend(_innermost(reports, whole=False))
        self._open.clear()
        self._borders.clear()
        return sorted(done, key=lambda event: event.first_line)

    def _silent(self, number: int) -> list[Event]:
        """Close the reports whose callers are silent."""
        done: list[Event] = []
        for key, reports in list(self._open.items()):
            # Several callers may share reports, and these be over with the first of them.
            while self._open.get(key) is reports:
                limit = _SILENCE_AFTER_END if reports[-1].ended else _LONGEST_SILENCE
                if reports[-1].last_line >= number - limit:
                    break
                done.extend(self._over(key))
        return done

    def _hold(self, line: LogText) -> None:
        self._held, self._wrapped = line, [line]

    def _release(self) -> list[Event]:
        """Read what was held for the rest of its line."""
        held, wrapped = self._held, self._wrapped
        self._held, self._wrapped = None, []
        if held is None:
            return []
        if len(wrapped) > 1 and self._is_one(held):
            return self._feed(held, wrapped[-1].number)
        return [event for line in wrapped for event in self._feed(line, line.number)]

    def _is_one(self, joined: LogText) -> bool:
        """Whether the lines together are of a report."""
        if begins(joined.message) is not None:
            return True
        reports = self._open.get(joined.caller)
        return reports is not None and reports[-1].understands(joined)

    def _feed(self, line: LogText, last: int) -> list[Event]:
        key = line.caller
        reports = self._open.get(key)
        if reports is None:
            return self._outside(line, last)
        report = reports[-1]
        begin = begins(line.message)
        if (
            begin is not None
            and not begin[0].outside
            and not self._ends_it(report, begin[0], line)
            and not report.is_own(line.message)
        ):
            kind, wording, match = begin
            if kind.alone:
                return self._begin(line, last, begin)
            # BUG() and WARN() print their border after what their callers say.
            bordered = key in self._borders and not kind.general
            if report.phase == HEAD and not bordered and report.merges(kind):
                report.become(kind, wording, match, last)
                self._borders.pop(key, None)
                return []
            return self._begin(line, last, begin)
        if match_any(BORDERS, line.message) is not None and not report.is_own(line.message):
            self._borders[key] = line.number
            return []
        taken = report.take(line, last)
        if taken == LAST:
            return self._over(key)
        if taken != STRAY:
            self._borders.pop(key, None)
            return []
        return self._stray(line, last)

    @staticmethod
    def _ends_it(report: Report, kind: EventKind, line: LogText) -> bool:
        """Whether the line is of the panic that the report leads to."""
        if match_any((PANIC,), line.message) is None:
            return False
        return (
            report.phase != ENDED
            or kind.type == report.kind.type
            or (kind.general and match_any((PANIC_OVER_REPORT,), line.message) is not None)
        )

    def _stray(self, line: LogText, last: int) -> list[Event]:
        key = line.caller
        reports = self._open[key]
        if len(reports) > 1 and reports[-1].ended and reports[-2].understands(line):
            done = self._over(key)
            return [*done, *self._feed(line, last)]
        if reports[-1].stray(line):
            return self._over(key)
        return []

    def _outside(self, line: LogText, last: int) -> list[Event]:
        """A line of a caller that has no report open."""
        begin = begins(line.message)
        if begin is not None:
            return self._begin(line, last, begin)
        key = line.caller
        if line.message[:1] in ("-", "=", "8") and match_any(BORDERS, line.message) is not None:
            if len(self._borders) > _MOST_CALLERS:
                self._borders.clear()
            self._borders[key] = line.number
        elif self._borders.get(key, line.number) < line.number - 2:
            del self._borders[key]
        if key is not None and 0 < len(self._open) <= _MOST_JOINED and match_any(_joining(), line.message) is not None:
            self._join(line)
        if line.time is not None:
            self._has_spoken = True
        return []

    def _join(self, line: LogText) -> None:
        """Another CPU's lines become part of the report that asked it for them."""
        for reports in self._open.values():
            if match_any(reports[-1].kind.joined_by, line.message) is not None:
                reports[-1].take(line, line.number)
                self._open[line.caller] = reports
                return

    def _begin(self, line: LogText, last: int, begin: tuple[EventKind, Wording, re.Match[str]]) -> list[Event]:
        key = line.caller
        kind, wording, match = begin
        border = self._borders.pop(key, line.number)
        first = border if line.number - border <= 2 else line.number
        if kind.again and not self._has_spoken:
            return []
        self._has_spoken = not kind.again
        before = self.close() if kind.again else []
        if kind.alone:
            return [*before, conclude(Report(kind, wording, match, first, last, line.prefixed), whole=True)]
        done: list[Event] = []
        reports = self._open.get(key)
        if reports is not None:
            outer = reports[-1]
            nests = outer.phase == BODY and not outer.is_whole and kind.ends
            if not nests or len(reports) >= _DEEPEST:
                done = self._over(key)
                reports = self._open.get(key)
        if reports is None and len(self._open) >= _MOST_CALLERS:
            done.extend(self._over(next(iter(self._open))))
        report = Report(kind, wording, match, first, last, line.prefixed)
        if kind.outside:
            report.take(line, last)
        self._open.setdefault(key, []).append(report)
        return done

    def _over(self, key: str | None) -> list[Event]:
        """Close the innermost report of a caller."""
        reports = self._open[key]
        done = _innermost(reports, whole=True)
        if not reports:
            self._open = {each: others for each, others in self._open.items() if others is not reports}
            self._borders.pop(key, None)
        return done


def _innermost(reports: list[Report], whole: bool) -> list[Event]:
    """The event of the last report, which is taken out; none if only lines were left of it that say nothing of the
    kernel's own code."""
    report = reports.pop()
    if reports and report.mixes_with(reports[-1]):
        report.mix()
        reports[-1].mix()
    event = conclude(report, whole)
    return [] if report.kind.outside and event.function is None else [event]
