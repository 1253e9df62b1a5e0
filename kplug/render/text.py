"""Answers as text for the user, from the same data as the JSON; coloured only if the front end says so."""

from __future__ import annotations

from collections.abc import Iterator

from kplug import model
from kplug.kinds import kind_of
from kplug.model import UNKNOWN_STATE, Annotation, Layer
from kplug.outputs import InModule, NamedFacts, Problem, Table
from kplug.render.remembered import Form, LayerForms, Shared, verbatim
from kplug.render.safe import safe
from kplug.render.style import PLAIN, Style
from kplug.render.tables import TableRenderer
from kplug.summary import Choice, chosen

_LABEL_WIDTH = 9
# An image has some hundred paths of sections and regions.
_MOST_TAILS = 4096


class TextRenderer:
    """Turns outputs into lines. What serves many addresses is laid out once, except for its numbers."""

    def __init__(self, style: Style = PLAIN) -> None:
        self._style = style
        self._tables = TableRenderer(style)
        self._layers = LayerForms(self._lay_out, "\n")
        self._answers = Shared(lambda annotation: (*self._choice(annotation), self._layers.of(annotation)))
        self._choices = Shared(self._choice)
        self._tails: dict[tuple[str, ...], str] = {}
        self._brief = f"{style.paint(style.address, '%#018x')}  {style.paint(style.symbol, '%s')}%s"

    def annotation(self, annotation: Annotation, brief: bool = False, place: bool = False) -> str:
        """The answer for one address: the one-line answer, then a line for each layer. No newline at the end.

        `brief`: the one-line answer alone; with `place` the place in the source ends it.
        """
        if brief:
            lines = [self.brief(annotation, place)]
        else:
            address, (choice, tail, forms) = annotation.address, self._answers.of(annotation)
            lines = [self._brief % (address, safe(choice.head(address)), tail)]
            lines += [text % tuple([address - base for base in bases]) for text, bases in forms]
            state = annotation.state is not UNKNOWN_STATE and _state_words(annotation)
            if state:
                lines.append(self._labelled("state", state))
        if annotation.warnings:
            lines += [self._labelled("warning", safe(warning), self._style.warning) for warning in annotation.warnings]
        return "\n".join(lines)

    def brief(self, annotation: Annotation, place: bool = False) -> str:
        """The one-line answer; `place`: with FILE:LINE of the source at its end, where that is known."""
        choice, tail = self._choices.of(annotation)
        brief = self._brief % (annotation.address, safe(choice.head(annotation.address)), tail)
        line = annotation.last(model.LINE) if place else None
        return brief if line is None else f"{brief}  {safe(line.name)}"

    def in_module(self, output: InModule, brief: bool, place: bool) -> str:
        """As `annotation`, with the place in the section instead of an address."""
        address = output.annotation.address
        text = self.annotation(output.annotation, brief, place)
        return text.replace(f"{address:#018x}", f"{safe(output.section)}+{address:#x}".ljust(18), 1)

    def problem(self, problem: Problem) -> str:
        """The line for what could not be answered."""
        return self._style.paint(self._style.warning, safe(problem.message))

    def table(self, table: Table, width: int | None = None) -> Iterator[str]:
        """The lines of a table, cut at `width` characters, if that is given."""
        return self._tables.table(table, width)

    def facts(self, facts: NamedFacts) -> Iterator[str]:
        """The lines of named facts."""
        return self._tables.facts(facts)

    # -- what is laid out once -----------------------------------------------------------------------------------------

    def _choice(self, annotation: Annotation) -> tuple[Choice, str]:
        """What the one-line answer is made of, and the words after its head."""
        choice, style = chosen(annotation), self._style
        tail = self._tails.get(choice.tail)
        if tail is None:
            if len(self._tails) > _MOST_TAILS:
                self._tails.clear()
            tail = "".join([f"  {style.paint(style.section, safe(word))}" for word in choice.tail])
            self._tails[choice.tail] = tail
        return choice, tail

    def _lay_out(self, layer: Layer, moved: int | None) -> Form:
        kind = kind_of(layer)
        words, shows_offset = kind.words(layer)
        line = verbatim(self._labelled(kind.label or kind.name, safe(words)))
        start, bases = layer.start, []
        if shows_offset and start is not None:
            line += "  +%#x"
            bases.append(start)
            if kind.sized and layer.end is not None and layer.end > start:
                line += f" of {layer.end - start:#x}"
        elif kind.linked and moved is not None:
            line += ", link %#x"
            bases.append(moved)
        if kind.more is not None:
            line = "\n".join((line, *(verbatim(self._labelled("", safe(words))) for words in kind.more(layer))))
        return line, bases

    def _labelled(self, label: str, words: str, colour: str | None = None) -> str:
        return f"  {self._style.paint(colour or self._style.label, label.ljust(_LABEL_WIDTH - 1))} {words}"


def _state_words(annotation: Annotation) -> str:
    """The memory's state in words, without what is not known; the ELF file's permissions too, if they differ."""
    state = annotation.state
    words = []
    if state.mapped is not None:
        mapped = f"mapped {state.permissions or ''}".rstrip()
        if state.page_size is not None:
            mapped += f" by a page of {size_words(state.page_size)}"
        words.append(mapped if state.mapped else "not mapped")
        segment = annotation.first(model.SEGMENT)
        flags = segment.details["flags"] if segment is not None else None
        if flags is not None and state.permissions not in (None, _rights(flags)):
            words.append(f"the ELF file says {flags}")
    if state.freed is not None:
        words.append("freed" if state.freed else "not freed")
    return "; ".join(words)


def _rights(flags: str) -> str:
    """A segment's flags, written as permissions: "R E" is "r-x"."""
    return "".join(right if letter in flags else "-" for letter, right in (("R", "r"), ("W", "w"), ("E", "x")))


def size_words(size: int) -> str:
    """A number of bytes in the largest binary unit that divides it: "2 MiB"."""
    for shift, unit in ((60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size:#x} bytes"
