"""A log as a page (HTML): its own lines, what the addresses in them are, its events, and a map.

The lines are written as they come. What is known only at the end (the events, the map, the answers) follows them; the
page shows events and map above.
"""

from __future__ import annotations

import io
import json
from bisect import bisect_right
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable, Iterator, Sequence, Set
from html import escape
from typing import TYPE_CHECKING

from kplug.annotate.event_feed import EventFeed
from kplug.arch.types.memory_map import Area
from kplug.frozen import replace
from kplug.log.finding import Role, found_in, role_of
from kplug.log.pieces import LONGEST_LINE, Kind, Piece
from kplug.model import MODULE
from kplug.outputs import InModule
from kplug.render import log_page
from kplug.render.html_text import as_text, attribute, log_text
from kplug.render.log_events import event_object
from kplug.render.log_folds import Fold, folds_of
from kplug.render.map_svg import Mark, draw
from kplug.render.text import TextRenderer
from kplug.summary import summarize

if TYPE_CHECKING:
    from kplug.annotate.answers import Answer, LogAnswers
    from kplug.log.event import Event

# Texts that the page explains: of lines outside of events, and at most. A browser takes ten times as many, but slowly.
_MOST_OUTSIDE, _MOST_TEXTS = 10_000, 40_000
_MOST_EVENTS = 5000
_MOST_MAPS = 4
# What may be of an event is held so long, in lines and in bytes.
_MOST_HELD, _MOST_BYTES = 20_000, 1 << 24
# A browser lays out such blocks one by one, when they are looked at.
_BLOCK = 200

# What was looked up is kept: a long log has the same again and again.
_MOST_KEPT = 100_000

_Decoder = getincrementaldecoder("utf-8")

# A line: its number, its bytes, and what has the answers for it.
_Line = tuple[int, bytes, "LogHtml"]


class Page:
    """The page, and what of its logs is not over yet."""

    def __init__(self) -> None:
        self._events = EventFeed()
        self._held: list[_Line] = []
        self._bytes = 0
        self._over: list[Event] = []  # of which not all lines are written
        self._blocks: list[int] = []  # the first lines of a log's blocks
        self._logs = 0
        self._path: str | None = None
        self._index: list[tuple[int, int, str]] = []
        self._count = 0
        self._entries: dict[str, int] = {}
        self._maps: list[LogHtml] = []
        self._decoder: IncrementalDecoder | None = None  # of a line that is written in parts
        self._unexplained = 0

    # -- from the top --------------------------------------------------------------------------------------------------

    def begin(self, path: str | None) -> bytes:
        """Another log, in that file."""
        self._logs += 1
        self._path = path
        self._blocks = []
        name = attribute("standard input" if path is None else path)
        before = log_page.head(name) if self._logs == 1 else "</div>\n"
        return f'{before}<h2 id="log{self._logs}">{name}</h2>\n<div class="log">'.encode()

    def feed(self, form: LogHtml, piece: Piece, number: int) -> bytes:
        """What can be written with the next piece of the log, which begins in that line."""
        done = self._events.feed(piece, number)
        if piece.kind is Kind.LINES:
            for at, line in enumerate(io.BytesIO(piece.data), number):
                self._held.append((at, line, form))
                self._bytes += len(line)
            return self._known(form, done, self._events.first_line).encode()
        if piece.kind is Kind.BEGIN:
            self._decoder = _Decoder("surrogateescape")
            before = f"{self._known(form, done, None)}{self._block_begin(number, 'b')}"
            return f"{before}{form.marked(piece.data, True, self._decoder.decode)}".encode()
        assert self._decoder is not None
        text = log_text(self._decoder.decode(piece.data)).encode()
        return text + self._line_end() if piece.kind is Kind.END else text

    def close(self, form: LogHtml) -> bytes:
        """What the end of a log ends."""
        return self._line_end() + self._known(form, self._events.close(), None).encode()

    def end(self, notes: Sequence[str]) -> Iterator[bytes]:
        """What follows the last log. `notes`: what is to be said of the answers."""
        yield b"</div>\n"
        yield log_page.index([entry for _, _, entry in sorted(self._index)], self._count).encode()
        yield log_page.maps([picture for form in self._maps for picture in form.maps()]).encode()
        said = [attribute(note) for note in notes]
        if self._unexplained:
            said.append(
                f"{self._unexplained} further places in the log were not looked up: a page explains "
                f"{_MOST_OUTSIDE} texts outside of events at most, and {_MOST_TEXTS} in all"
            )
        yield log_page.notes(said).encode()
        yield log_page.TABLE.encode()
        for entry, identity in self._entries.items():
            yield f'<section id="h{identity}">{entry}</section>\n'.encode()
        yield log_page.END.encode()

    def _line_end(self) -> bytes:
        """The end of a line that was written in parts."""
        decoder, self._decoder = self._decoder, None
        return b"" if decoder is None else f"{log_text(decoder.decode(b'', True))}</div>".encode()

    # -- what others need ----------------------------------------------------------------------------------------------

    def explained(self, entry: str) -> int:
        """The number of an explanation; the same one for the same words."""
        return self._entries.setdefault(entry, len(self._entries) + 1)

    def has_room(self, is_in_event: bool) -> bool:
        """Whether there may be one more explanation; the page says how often not."""
        has_room = len(self._entries) < (_MOST_TEXTS if is_in_event else _MOST_OUTSIDE)
        self._unexplained += not has_room
        return has_room

    def with_map(self, form: LogHtml) -> None:
        """The page has a map with what was found for that kernel."""
        if len(self._maps) < _MOST_MAPS:
            self._maps.append(form)

    # -- lines and events ----------------------------------------------------------------------------------------------

    def _known(self, form: LogHtml, done: Sequence[Event], open_since: int | None) -> str:
        """The lines up to those of an event that is not over; all if these are too many."""
        self._over += done
        is_full = len(self._held) > _MOST_HELD or self._bytes > _MOST_BYTES
        limit = None if is_full or open_since is None else open_since
        count = len(self._held)
        if limit is not None:
            count = bisect_right([number for number, _, _ in self._held], limit - 1)
        lines, self._held = self._held[:count], self._held[count:]
        self._bytes = sum(len(line) for _, line, _ in self._held)
        written = "".join(self._written(lines, open_since))
        for event in done:
            self._count += 1
            if len(self._index) < _MOST_EVENTS:
                block = bisect_right(self._blocks, event.first_line)
                facts = json.loads(event_object(event, form.answers, self._path))
                target = f"l{self._logs}.{self._blocks[block - 1] if block else event.first_line}"
                self._index.append((self._logs, event.first_line, log_page.index_entry(facts, target)))
        if count:
            self._over = [event for event in self._over if event.last_line > lines[-1][0]]
        return written

    def _written(self, lines: Sequence[_Line], open_since: int | None) -> Iterator[str]:
        """Lines that follow each other, in blocks; a block is in events as a whole, or in none."""
        events = sorted(self._over, key=lambda event: event.first_line)
        ends = {number for event in events for number in (event.first_line, event.last_line + 1)} | {open_since}
        begun = {event.first_line: event for event in reversed(events)}
        folds = _folds(events, lines, ends)
        at, last = 0, 0
        while at < len(lines):
            number = lines[at][0]
            while events and events[0].first_line <= number:
                last = max(last, events.pop(0).last_line)
            in_event = number <= last or (open_since is not None and number >= open_since)
            start, parts = at, list[str]()
            while at < len(lines) and (at == start or (lines[at][0] not in ends and at - start < _BLOCK)):
                fold = folds.get(lines[at][0])
                if fold is None:
                    parts.append(lines[at][2].marked(lines[at][1], in_event))
                    at += 1
                else:
                    end = at + fold.last - fold.first + 1
                    parts += _folded(fold, lines[at:end])
                    at = end
            style = f"b{' e' if in_event else ''}{' l' if at - start >= _BLOCK else ''}"
            yield "".join([self._block_begin(number, style, begun.get(number)), *parts, "</div>"])

    def _block_begin(self, number: int, style: str, event: Event | None = None) -> str:
        self._blocks.append(number)
        begins = ""
        if event is not None:
            title = attribute(event.title)
            begins = f' role="group" aria-label="{title}" data-t="{title}"'
        return f'<div class="{style}" id="l{self._logs}.{number}"{begins}>'


class LogHtml:
    """The answers of one kernel for a log's lines. `page` is shared by all that the log is given to in turn; `name` is
    that of the kernel, `areas` gives its address space."""

    def __init__(self, answers: LogAnswers, page: Page, name: str, areas: Callable[[], Sequence[Area]]) -> None:
        self.answers = answers
        self._page = page
        self._areas = areas
        self._text = TextRenderer()
        self._name = name
        self._modules: dict[int, Area] = {}
        self._known: dict[tuple[bytes, Role | bool], int | None] = {}
        self._marks: dict[int, Mark] = {}

    def feed(self, piece: Piece, line: int) -> bytes:
        """The next piece of the log, which begins in that line, as far as it can be written."""
        return self._page.feed(self, piece, line)

    def close(self) -> bytes:
        """What the end of the log ends."""
        return self._page.close(self)

    def marked(self, data: bytes, is_in_event: bool, decode: Callable[[bytes], str] = as_text) -> str:
        """Some of the log, with a link from each address and symbol to what it is."""
        parts, end = [], 0
        for start, stop, is_symbol in found_in(data[:LONGEST_LINE], self.answers.bits):
            role = is_symbol or role_of(data, start)
            if start < end or role is None:
                continue
            text = data[start:stop]
            number = self._explained(text, role, is_in_event)
            if number is not None:
                parts.append(f'{log_text(decode(data[end:start]))}<a href="#h{number}">{log_text(decode(text))}</a>')
                end = stop
        return "".join([*parts, log_text(decode(data[end:]))])

    def _explained(self, text: bytes, role: Role | bool, is_in_event: bool) -> int | None:
        key = text, role
        if key in self._known:
            return self._known[key]
        if not self._page.has_room(is_in_event):
            return None
        words = text.decode("ascii")
        if isinstance(role, Role):
            answer = self.answers.of_address(int(words, 16), role)
            answers: Sequence[Answer] = () if answer is None else (answer,)
        else:
            answers = self.answers.of_symbol(words)
        number = None
        if answers:
            number = self._page.explained(f"<h3>{attribute(words)}</h3>{''.join(map(self._entry, answers))}")
            for each in answers:
                self._mark(each, number)
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[key] = number
        return number

    def _entry(self, answer: Answer) -> str:
        """The one-line answer, and the layers below it, as `kplug where` prints them."""
        annotation = answer.annotation if isinstance(answer, InModule) else answer
        if isinstance(answer, InModule):
            text = self._text.in_module(answer, brief=False, place=False)
        else:
            text = self._text.annotation(answer)
        layers = escape(text.partition("\n")[2])
        return f"<p>{attribute(str(summarize(annotation)))}</p>{f'<pre>{layers}</pre>' if layers else ''}"

    def _mark(self, answer: Answer, number: int) -> None:
        if isinstance(answer, InModule):
            return  # it has no address
        if not self._marks:
            self._page.with_map(self)
        self._marks.setdefault(answer.address, Mark(answer.address, summarize(answer).head, f"#h{number}"))
        module = answer.first(MODULE)
        if module is not None and module.start is not None and module.end is not None:
            self._modules[module.start] = Area(module.name, module.start, module.end, module.source)

    def maps(self) -> Iterator[tuple[str, str]]:
        """The kernel's name, and where what was found is in its address space, if kplug has a map of that."""
        areas = [self._with_modules(area) for area in self._areas()]
        if areas:
            yield self._name, draw(areas, [*self._marks.values()], f"Address space of {self._name}")

    def _with_modules(self, area: Area) -> Area:
        """The area, with those modules as parts that are in it and in no part of it."""
        found = [each for _, each in sorted(self._modules.items()) if area.start <= each.start < each.end <= area.end]
        parts = [*area.parts]
        for module in found:
            if all(module.end <= part.start or part.end <= module.start for part in parts):
                parts.append(module)
        return replace(area, parts=tuple(sorted(parts, key=lambda part: part.start))) if found else area


def _folds(events: Sequence[Event], lines: Sequence[_Line], ends: Set[int | None]) -> dict[int, Fold]:
    """The folds in these lines, by their first one; none goes on where something else begins."""
    by_number = {number: line for number, line, _ in lines} if events else {}
    return {
        fold.first: fold
        for event in reversed(events)
        for fold in folds_of(event, by_number)
        if ends.isdisjoint(range(fold.first + 1, fold.last + 1))
    }


def _folded(fold: Fold, lines: Sequence[_Line]) -> Iterator[str]:
    first, *others = [form.marked(line, True) for _, line, form in lines]
    is_open = " open" if fold.is_open else ""
    yield f'<details{is_open}><summary data-n="{attribute(fold.words)}">{first}</summary>'
    yield from others
    yield "</details>"
