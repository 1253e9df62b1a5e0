"""A log with the answers for what it names: below its lines, or beside them. The log's own bytes stay as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kplug import model
from kplug.log.finding import Found, found_in, role_of
from kplug.log.pieces import LONGEST_LINE, Kind, Piece
from kplug.model import Annotation, Layer
from kplug.outputs import InModule
from kplug.render.log_marks import MARK, NO_NEWLINE, OWN, SEPARATOR
from kplug.render.safe import safe
from kplug.render.style import PLAIN, Style
from kplug.summary import chosen, summarize

if TYPE_CHECKING:
    from kplug.annotate.answers import Answer, LogAnswers
    from kplug.stretches import Known

# Answers that are kept: a long log has the same ones again and again, and too many to keep all.
_MOST_KEPT = 50_000
# Of one line: a longer list is no help.
_MOST_IN_LINE = 200
_OWN_MARK = re.compile(rb"(?m)^#> ")

# What the answers of a stretch have in common: the text before the offset, where that counts from, and the text after.
_Form = tuple[bytes, int, bytes, "Known"]


class LogText:
    """Annotates the lines of a log, `margin`: beside them."""

    def __init__(self, answers: LogAnswers, style: Style = PLAIN, margin: bool = False) -> None:
        self._answers = answers
        self._style = style
        self._margin = margin
        self._held: list[bytes] = []  # the notes on a line that has not ended
        self._kept: dict[bytes, Sequence[bytes]] = {}
        self._forms: dict[int, _Form] = {}  # by the id of what is known of a stretch, which is in it to stay

    def feed(self, piece: Piece, line: int) -> bytes:
        """The next piece of the log, which begins in that line, with its annotations."""
        if piece.kind is Kind.LINES:
            return self._annotated(piece.data)
        if piece.kind is Kind.BEGIN:
            searched = piece.data[:LONGEST_LINE]
            self._held = self._of_line(searched, found_in(searched, self._answers.bits))
            is_like_ours = not self._margin and piece.data.startswith(MARK)
            return (OWN if is_like_ours else b"") + piece.data
        if piece.kind is Kind.MORE:
            return piece.data
        notes, self._held = self._held, []
        if self._margin:  # whatever the line has, the last separator is ours
            return _beside(piece.data, b"; ".join(notes))
        return piece.data + b"".join([MARK + note + b"\n" for note in notes])

    def close(self) -> bytes:
        """What follows the end of the log."""
        return b""

    def _annotated(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        copied = line_end = 0  # up to there the log's bytes are in the parts
        here: list[Found] = []
        for found in found_in(data, self._answers.bits):
            if found[0] >= line_end:
                if here:
                    copied = self._put(parts, data, copied, line_end, here)
                line_end = data.find(b"\n", found[0]) + 1 or len(data)
                here = []
            here.append(found)
        if here:
            copied = self._put(parts, data, copied, line_end, here)
        self._copy(parts, data, copied, len(data))
        return b"".join(parts)

    def _of_line(self, data: bytes, found: Sequence[Found]) -> list[bytes]:
        """The notes on what was found in one line."""
        notes: list[bytes] = []
        for each in found[:_MOST_IN_LINE]:
            for note in self._notes(data, each):
                if note not in notes:
                    notes.append(note)
        return notes

    # -- where annotations stand ---------------------------------------------------------------------------------------

    def _put(self, parts: list[bytes], data: bytes, copied: int, line_end: int, found: list[Found]) -> int:
        """The log up to the end of a line, and the notes on what was found in that; returns where it was put to."""
        if line_end - found[0][0] > LONGEST_LINE or len(found) > 1:
            longest = max(data.rfind(b"\n", copied, found[0][0]) + 1, copied) + LONGEST_LINE
            found = [each for each in found if each[1] <= longest]
        notes = self._of_line(data, found)
        if not notes:
            return copied
        if not self._margin:
            self._copy(parts, data, copied, line_end)
            is_open = data[line_end - 1] != 10
            if is_open:
                parts.append(b"\n")
            parts += [MARK + note + b"\n" for note in notes]
            if is_open:
                parts.append(NO_NEWLINE)
            return line_end
        line_start = data.rfind(b"\n", copied, line_end - 1) + 1 or copied
        self._copy(parts, data, copied, line_start)
        parts.append(_beside(data[line_start:line_end], b"; ".join(notes)))
        return line_end

    def _copy(self, parts: list[bytes], data: bytes, start: int, end: int) -> None:
        """The log's lines as they are; with a mark for those that look like annotations."""
        lines = data[start:end]
        if self._margin and SEPARATOR in lines:
            lines = b"".join([_beside(each, b"") if SEPARATOR in each else each for each in lines.splitlines(True)])
        elif not self._margin and MARK in lines:
            lines = _OWN_MARK.sub(OWN + MARK, lines)
        parts.append(lines)

    # -- what they say -------------------------------------------------------------------------------------------------

    def _notes(self, data: bytes, found: Found) -> Sequence[bytes]:
        start, end, is_symbol = found
        text = data[start:end]
        if is_symbol:
            notes = self._kept.get(text)
            if notes is None:
                words = text.decode("ascii")
                notes = self._keep(text, [self._note(words, each) for each in self._answers.of_symbol(words)])
            return notes
        address = int(text, 16)
        note = self._near(text, address)
        if note is not None:
            return (note,)
        role = role_of(data, start)
        if role is None:
            return ()
        key = text + role.value.encode()
        notes = self._kept.get(key)
        if notes is None:
            answer = self._answers.of_address(address, role)
            notes = self._keep(key, [] if answer is None else [self._note(text.decode("ascii"), answer)])
        return notes

    def _keep(self, text: bytes, notes: Sequence[bytes]) -> Sequence[bytes]:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[text] = notes
        return notes

    def _near(self, text: bytes, address: int) -> bytes | None:
        """The note on an address of which all that is around it has the same answer but for the offset."""
        known = self._answers.stretch(address)
        if known is None:
            return None
        form = self._forms.get(id(known)) or self._make_form(address, known)
        if form is None:
            return None
        name, start, tail, _ = form
        return b"%s%s%x%s%s" % (text, name, address - start, tail, self._place(address))

    def _make_form(self, address: int, known: Known) -> _Form | None:
        choice = chosen(Annotation("", address, None, known[2], known[3]))
        counted = choice.before_offset()
        if counted is None:
            return None
        style = self._style
        before, after = style.paint(style.symbol, f"{safe(counted[0])}0x\n").split("\n")
        form = f"  {before}".encode(), counted[1], f"{after}{self._tail(choice.tail)}".encode(), known
        self._forms[id(known)] = form
        return form

    def _tail(self, tail: Sequence[str]) -> str:
        return "".join([f"  {self._style.paint(self._style.section, safe(word))}" for word in tail])

    def _place(self, address: int) -> bytes:
        for layer in self._answers.places(address):
            return f"  {_line_words(layer)}".encode()
        return b""

    def _note(self, text: str, answer: Answer) -> bytes:
        """The note on what was found: the log's own words, and what they do not say."""
        annotation = answer.annotation if isinstance(answer, InModule) else answer
        summary, style = summarize(annotation), self._style
        head = _head(annotation, summary.head)
        words = text
        if not text.startswith(f"{head}/"):
            words += f"  {style.paint(style.symbol, safe(head))}"
        words += self._tail([word for word in summary.tail if not text.endswith(word)])
        line = annotation.last(model.LINE)
        if line is not None:
            words += f"  {_line_words(line)}"
        for warning in annotation.warnings:
            words += f"  {style.paint(style.warning, f'({safe(warning)})')}"
        return words.encode("utf-8", "backslashreplace")


def _head(annotation: Annotation, head: str) -> str:
    """The head of the one-line answer; of an area alone its name, as an offset in a terabyte tells nothing."""
    area = annotation.last(model.AREA)
    return area.name if area is not None and head.startswith(f"{area.name}+") else head


def _line_words(layer: Layer) -> str:
    """The place in the source, and where it was inlined."""
    chain = layer.details["inlined"]
    words = safe(layer.name)
    if chain:
        into = ", ".join(f"{each['function']} {each['file']}:{each['line']}" for each in chain[1:])
        words += f" ({safe(chain[0]['function'])}, inlined into {safe(into)})"
    return words


def _beside(line: bytes, notes: bytes) -> bytes:
    """A line with notes between its text and its end."""
    end = len(line) - (line[-1:] == b"\n")
    while line[end - 1 : end] == b"\r":
        end -= 1
    return line[:end] + SEPARATOR + notes + line[end:]
