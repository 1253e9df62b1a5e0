"""A log with the answers for what it names: below its lines, or beside them. The log's own bytes stay as they are."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kplug import model
from kplug.annotate.code_lines import CodeLines
from kplug.log.finding import addresses_in, numbers, role_of, symbols_in
from kplug.log.pieces import LONGEST_LINE, Kind, Piece
from kplug.model import Annotation, Layer
from kplug.outputs import InModule
from kplug.render.log_marks import MARK, NO_NEWLINE, OWN, SEPARATOR
from kplug.render.safe import safe
from kplug.render.style import PLAIN, Style
from kplug.summary import Choice, chosen, summarize

if TYPE_CHECKING:
    from kplug.annotate.answers import Answer, LogAnswers
    from kplug.annotate.machine_code import CodeAnswer
    from kplug.stretches import Known

# Answers that are kept: a long log has the same ones again and again, and too many to keep all.
_MOST_KEPT = 50_000
_PAGE_BITS = 12
# Instructions before and after the one at the instruction pointer.
_AROUND = 6, 4

# What the answers up to an end have in common: the text before the offset, where that counts from, and the text after;
# or else what says it for each address.
_Form = tuple[int, bytes, int, bytes, "Choice | None"]


class LogText:
    """Annotates the lines of a log, `margin`: beside them."""

    def __init__(self, answers: LogAnswers, style: Style = PLAIN, margin: bool = False) -> None:
        self._answers = answers
        self._style = style
        self._margin = margin
        self._is_open = False  # whether a line has not ended, and the notes on that
        self._held: list[bytes] = []
        self._code = CodeLines(answers)
        self._kept: dict[bytes, Sequence[bytes]] = {}
        self._forms: dict[int, _Form] = {}  # by the starts of their stretches
        self._pages: dict[int, tuple[list[int], list[_Form]]] = {}  # the starts, sorted, and forms of those asked for

    def feed(self, piece: Piece, line: int) -> bytes:
        """The next piece of the log, which begins in that line, with its annotations."""
        if piece.kind is Kind.LINES:
            return self._annotated(piece.data)
        if piece.kind is Kind.BEGIN:
            searched = piece.data[:LONGEST_LINE]
            self._code.forget()
            self._is_open = True
            self._held = [note for _, note in self._notes_in(searched)]
            is_like_ours = not self._margin and piece.data.startswith(MARK)
            return (OWN if is_like_ours else b"") + piece.data
        if piece.kind is Kind.MORE:
            return piece.data
        notes, self._held, self._is_open = self._held, [], False
        return b"".join(self._with_notes(piece.data, notes, is_always=True))

    def close(self) -> bytes:
        """What follows the end of the log: the notes on a line that is too long to be kept, and has no end."""
        notes, self._held, is_open, self._is_open = self._held, [], self._is_open, False
        self._code.forget()
        return b"".join(self._with_notes(b"", notes, is_always=True)) if is_open else b""

    def _annotated(self, data: bytes) -> bytes:
        notes = self._notes_in(data)
        code = [(end, note) for end, answer, is_own in self._code.answers_in(data) for note in self._on(answer, is_own)]
        if code:
            notes = sorted([*notes, *code], key=lambda each: each[0])
        is_usual = not self._margin and MARK not in data and data[-1:] == b"\n"
        return self._below(data, notes) if is_usual else b"".join(self._line_by_line(data, notes))

    def _notes_in(self, data: bytes) -> list[tuple[int, bytes]]:
        """Where something was found in the lines, and the notes on that, in their order."""
        answers = self._answers
        digits = answers.bits // 4
        starts = addresses_in(data, answers.bits)
        texts = [data[start : start + digits] for start in starts]
        pages, has_lines, notes = self._pages, answers.has_lines, list[tuple[int, bytes]]()
        append = notes.append
        for start, text, address in zip(starts, texts, numbers(texts, answers.bits)):
            page = pages.get(address >> _PAGE_BITS)
            form = None
            if page is not None:
                position = bisect_right(page[0], address)
                if position:
                    form = page[1][position - 1]
                    if address >= form[0]:
                        form = None
            if form is None:
                form = self._form(address)
                if form is None:
                    note = self._of_address(data, start, text, address)
                    if note:
                        append((start, note))
                    continue
            _, name, base, tail, choice = form
            if choice is not None:
                note = self._with_head(text, address, choice, tail)
            else:
                note = b"%s%s%x%s" % (text, name, address - base, tail)
            append((start, note + self._place(address) if has_lines else note))
        symbols = symbols_in(data)
        if symbols:
            for start, end, _ in symbols:
                notes += [(start, note) for note in self._of_symbol(data[start:end])]
            notes.sort(key=lambda each: each[0])
        return notes if _has_short_lines(data) else _in_beginnings(data, notes)

    # -- where annotations stand ---------------------------------------------------------------------------------------

    def _below(self, data: bytes, notes: Sequence[tuple[int, bytes]]) -> bytes:
        """Whole lines, of which none looks like an annotation, with the notes below."""
        parts: list[bytes] = []
        append = parts.append
        copied = line_end = 0  # up to there the log's bytes are in the parts
        last = b""
        for start, note in notes:
            if start >= line_end:
                line_end = data.find(b"\n", start) + 1
                append(data[copied:line_end])
                copied = line_end
            elif note == last:
                continue
            append(b"#> %s\n" % note)
            last = note
        append(data[copied:])
        return b"".join(parts)

    def _line_by_line(self, data: bytes, notes: Sequence[tuple[int, bytes]]) -> Iterator[bytes]:
        """Any lines with the notes below or beside them; one that follows its like is left out, as in `_below`."""
        end, at = 0, 0
        for line in io.BytesIO(data):
            end += len(line)
            here: list[bytes] = []
            while at < len(notes) and notes[at][0] < end:
                if notes[at][1] not in here[-1:]:
                    here.append(notes[at][1])
                at += 1
            yield from self._with_notes(line, here)

    def _with_notes(self, line: bytes, notes: Sequence[bytes], is_always: bool = False) -> Iterator[bytes]:
        """A line, or the end of one, with notes; `is_always`: what is before it may look like a note."""
        if self._margin:
            yield _beside(line, b"; ".join(notes)) if notes or is_always or SEPARATOR in line else line
            return
        if line.startswith(MARK) and not is_always:
            yield OWN
        yield line
        if notes:
            is_open = line[-1:] != b"\n"
            yield b"\n" if is_open else b""
            yield from (MARK + note + b"\n" for note in notes)
            yield NO_NEWLINE if is_open else b""

    # -- what they say -------------------------------------------------------------------------------------------------

    def _of_symbol(self, text: bytes) -> Sequence[bytes]:
        notes = self._kept.get(text)
        if notes is None:
            words = text.decode("ascii")
            notes = self._keep(text, [self._note(words, each) for each in self._answers.of_symbol(words)])
        return notes

    def _of_address(self, data: bytes, start: int, text: bytes, address: int) -> bytes | None:
        role = role_of(data, start)
        if role is None:
            return None
        key = text + role.value.encode()
        notes = self._kept.get(key)
        if notes is None:
            answer = self._answers.of_address(address, role)
            notes = self._keep(key, [] if answer is None else [self._note(text.decode("ascii"), answer)])
        return notes[0] if notes else None

    def _on(self, code: CodeAnswer, is_own: bool) -> Iterator[bytes]:
        """The notes on machine code; `is_own`: at its own line, not where its registers are complete."""
        if is_own:
            for each in code.around(*((0, 0) if self._margin else _AROUND)):
                mark = "=>" if not each.offset else " ?" if each.guess else "  "
                place = self._style.paint(self._style.symbol, safe(code.place(each)))
                yield f"{mark} {place}  {safe(each.text)}".encode()
        if code.words is not None:
            yield safe(code.words).encode()

    def _keep(self, text: bytes, notes: Sequence[bytes]) -> Sequence[bytes]:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[text] = notes
        return notes

    def _form(self, address: int) -> _Form | None:
        """What is said of all addresses around one; None where each has an answer of its own."""
        stretch = self._answers.stretch(address)
        if stretch is None:
            return None
        start, known = stretch
        form = self._forms.get(start)
        if form is None:
            form = self._forms[start] = self._make_form(address, known)
        starts, forms = self._pages.setdefault(address >> _PAGE_BITS, ([], []))
        position = bisect_right(starts, start)
        starts.insert(position, start)
        forms.insert(position, form)
        return form

    def _make_form(self, address: int, known: Known) -> _Form:
        choice = chosen(Annotation("", address, None, known[2], known[3]))
        counted, tail, style = choice.before_offset(), self._tail(choice.tail), self._style
        if counted is None:
            return known[0], b"", 0, tail.encode(), choice
        before, after = style.paint(style.symbol, f"{safe(counted[0])}0x\n").split("\n")
        return known[0], f"  {before}".encode(), counted[1], f"{after}{tail}".encode(), None

    def _with_head(self, text: bytes, address: int, choice: Choice, tail: bytes) -> bytes:
        head = self._style.paint(self._style.symbol, safe(choice.head(address)))
        return b"%s  %s%s" % (text, head.encode(), tail)

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


def _has_short_lines(data: bytes) -> bool:
    """Whether no line is too long to be searched as a whole, as nearly always."""
    half = LONGEST_LINE // 2
    return all(data.find(b"\n", start, start + half) >= 0 for start in range(0, len(data) - half, half))


def _in_beginnings(data: bytes, notes: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Those of the notes that are on the beginning of their line."""
    return [
        each
        for each in notes
        if data.find(b"\n", max(0, each[0] - LONGEST_LINE), each[0]) >= 0 or each[0] < LONGEST_LINE
    ]


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
