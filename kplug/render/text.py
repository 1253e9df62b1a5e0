"""Answers as text for the user, from the same data as the JSON; coloured only if the front end says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kplug import model
from kplug.arch.types.word import WIDEST_BITS
from kplug.kinds import kind_of
from kplug.model import UNKNOWN_STATE, Annotation, Layer
from kplug.outputs import InModule, NamedFacts, Problem, Table
from kplug.render.remembered import AnswerForms, Form, Shared
from kplug.render.safe import safe
from kplug.render.style import PLAIN, Style
from kplug.render.tables import TableRenderer

_LABEL_WIDTH = 9


class TextRenderer:
    """Turns outputs into lines. What serves many addresses is laid out once, except for its numbers."""

    def __init__(self, style: Style = PLAIN) -> None:
        self._style = style
        self._tables = TableRenderer(style)
        forms = AnswerForms(self._lay_out, "", self._frame, safe)
        self._answers = Shared(forms.of)
        self._heads = Shared(lambda annotation: forms.of(annotation, brief=True))
        self._before_address, self._after_address = style.paint(style.address, "\n").split("\n")
        self._before_head, self._after_head = style.paint(style.symbol, "\n").split("\n")

    def annotation(self, annotation: Annotation, brief: bool = False, place: bool = False) -> str:
        """The answer for one address: the one-line answer, then a line for each layer. No newline at the end.

        `brief`: the one-line answer alone; with `place` the place in the source ends it.
        """
        address, end = annotation.address, ""
        state = not brief and annotation.state is not UNKNOWN_STATE and _state_words(annotation)
        if state:
            end = f"\n{self._labelled('state', state)}"
        for warning in annotation.warnings:
            end += f"\n{self._labelled('warning', safe(warning), self._style.warning)}"
        if brief:
            return f"{self.brief(annotation, place)}{end}"
        text = self._answers.of(annotation).filled(address, f"{address:#018x}", end, safe)
        return text if annotation.bits is None else _as_wide(text, annotation.bits)

    def brief(self, annotation: Annotation, place: bool = False) -> str:
        """The one-line answer; `place`: with FILE:LINE of the source at its end, where that is known."""
        address = annotation.address
        brief = self._heads.of(annotation).filled(address, f"{address:#018x}", "", safe)
        if annotation.bits is not None:
            brief = _as_wide(brief, annotation.bits)
        line = annotation.last(model.LINE) if place else None
        return brief if line is None else f"{brief}  {safe(line.name)}"

    def in_module(self, output: InModule, brief: bool, place: bool) -> str:
        """As `annotation`, with the place in the section instead of an address."""
        address = output.annotation.address
        text, width = self.annotation(output.annotation, brief, place), 2 + (output.annotation.bits or WIDEST_BITS) // 4
        return text.replace(f"{address:#0{width}x}", f"{safe(output.section)}+{address:#x}".ljust(width), 1)

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

    def _frame(self, annotation: Annotation, tail: tuple[str, ...], around: Sequence[str]) -> Form:
        """What is around the layers: the one-line answer, of which address and head are open, and further lines."""
        style = self._style
        words = "".join([f"  {style.paint(style.section, safe(word))}" for word in tail])
        between = f"{self._after_address}  {self._before_head}"
        return [self._before_address, between, f"{self._after_head}{words}{around[0]}", *around[1:], "", ""], ()

    def _lay_out(self, layer: Layer, moved: int | None) -> Form:
        kind = kind_of(layer)
        words, shows_offset = kind.words(layer)
        texts, bases, start = [f"\n{self._labelled(kind.label or kind.name, safe(words))}"], [], layer.start
        if shows_offset and start is not None:
            texts[0] += "  +"
            texts.append("")
            if kind.sized and layer.end is not None and layer.end > start:
                texts[1] = f" of {layer.end - start:#x}"
            bases.append(start)
        elif kind.linked and moved is not None:
            texts[0] += ", link "
            texts.append("")
            bases.append(moved)
        if kind.more is not None:
            texts[-1] += "".join([f"\n{self._labelled('', safe(words))}" for words in kind.more(layer)])
        return texts, bases

    def _labelled(self, label: str, words: str, colour: str | None = None) -> str:
        return f"  {self._style.paint(colour or self._style.label, label.ljust(_LABEL_WIDTH - 1))} {words}"


def _as_wide(text: str, bits: int) -> str:
    """The text with the digits of addresses that the machine has: layers have those of the widest machine."""
    return re.sub(rf"0x0{{{(WIDEST_BITS - bits) // 4}}}(?=[0-9a-f]{{{bits // 4}}}\b)", "0x", text)


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
    if state.kasan is not None:
        words.append(f"KASAN: {state.kasan}")
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
