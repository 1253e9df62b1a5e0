"""Answers as text for the user, from the same data as the JSON; coloured only if the front end says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kplug import model
from kplug.kinds import Kind, kind_of
from kplug.model import UNKNOWN_STATE, Annotation, Layer
from kplug.outputs import InModule, NamedFacts, Problem, Table
from kplug.render.remembered import MAX_REMEMBERED, OuterLayers, verbatim
from kplug.render.safe import safe
from kplug.render.style import PLAIN, Style
from kplug.render.tables import TableRenderer
from kplug.summary import summarize

_LABEL_WIDTH = 9


class TextRenderer:
    """Turns outputs into lines. A layer that serves many addresses is laid out once, except for its offset."""

    def __init__(self, style: Style = PLAIN) -> None:
        self._style = style
        self._tables = TableRenderer(style)
        # By the layer's id: the layer (kept alive so that its id stays unique), where offsets count from (None: no
        # offset is shown), its line, what follows the offset, and its kind if that adds more.
        self._layers: dict[int, tuple[Layer, int | None, str, str, Kind | None]] = {}
        self._outer = OuterLayers(self._lay_out_outer)

    def annotation(self, annotation: Annotation, brief: bool = False, place: bool = False) -> str:
        """The answer for one address: the one-line answer, then a line for each layer. No newline at the end.

        `brief`: the one-line answer alone; with `place` the place in the source ends it.
        """
        lines = [self.brief(annotation, brief and place)]
        if not brief:
            address, laid_out = annotation.address, self._layers
            outer = self._outer.text(annotation)
            if outer is not None:
                lines.append(outer)
            for layer in annotation.layers if outer is None else annotation.layers[-1:]:
                _, start, line, of, special = laid_out.get(id(layer)) or self._lay_out(layer)
                lines.append(line if start is None else f"{line}  +{address - start:#x}{of}")
                if special is None:
                    continue
                if special.linked and start is None and annotation.link_address is not None:
                    lines[-1] = f"{line}, link {annotation.link_address:#x}"
                if special.more is not None:
                    lines += [self._labelled("", safe(words)) for words in special.more(layer)]
            state = annotation.state is not UNKNOWN_STATE and _state_words(annotation)
            if state:
                lines.append(self._labelled("state", state))
        if annotation.warnings:
            lines += [self._labelled("warning", safe(warning), self._style.warning) for warning in annotation.warnings]
        return "\n".join(lines)

    def brief(self, annotation: Annotation, place: bool = False) -> str:
        """The one-line answer; `place`: with FILE:LINE of the source at its end, where that is known."""
        style = self._style
        head, tail = summarize(annotation)
        if style is PLAIN and not place:
            return safe("  ".join((f"{annotation.address:#018x}", head, *tail)))
        address = self._style.paint(style.address, f"{annotation.address:#018x}")
        words = [self._style.paint(style.section, safe(word)) for word in tail]
        line = annotation.last(model.LINE) if place else None
        if line is not None:
            words.append(safe(line.name))
        return "  ".join([address, self._style.paint(style.symbol, safe(head)), *words])

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

    # -- one layer -----------------------------------------------------------------------------------------------------

    def _lay_out(self, layer: Layer) -> tuple[Layer, int | None, str, str, Kind | None]:
        if len(self._layers) > MAX_REMEMBERED:
            self._layers.clear()
        kind = kind_of(layer)
        words, shows_offset = kind.words(layer)
        of = ""
        if kind.sized and layer.start is not None and layer.end is not None:
            of = f" of {layer.end - layer.start:#x}" if layer.end > layer.start else ""
        start = layer.start if shows_offset else None
        line, special = self._labelled(kind.label or kind.name, safe(words)), kind.linked or kind.more is not None
        entry = self._layers[id(layer)] = layer, start, line, of, kind if special else None
        return entry

    def _lay_out_outer(self, annotation: Annotation, layers: Sequence[Layer]) -> tuple[str, Sequence[int]]:
        lines, bases = [], []
        for layer in layers:
            _, start, line, of, special = self._layers.get(id(layer)) or self._lay_out(layer)
            line = verbatim(line)
            if start is not None:
                line += f"  +%#x{of}"
                bases.append(start)
            elif special is not None and special.linked and annotation.link_address is not None:
                line += ", link %#x"
                bases.append(annotation.address - annotation.link_address)
            lines.append(line)
            if special is not None and special.more is not None:
                lines += [verbatim(self._labelled("", safe(words))) for words in special.more(layer)]
        return "\n".join(lines), bases

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
