"""Tables and named facts as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kplug.model import Annotation
from kplug.outputs import Address, Brief, Column, Hex, HumanSize, NamedFacts, Range, Size, Table
from kplug.render.safe import safe
from kplug.render.style import Style
from kplug.summary import summarize

# A table's cell: (colour, text) of each part.
_Cell = tuple[tuple[str, str], ...]


class TableRenderer:
    """Turns tables and facts into lines."""

    def __init__(self, style: Style) -> None:
        self._style = style

    def table(self, table: Table, width: int | None = None) -> Iterator[str]:
        """The lines of a table: headings, then rows. Columns are as wide as their widest cell; empty ones are left out.

        Lines are cut at `width` characters, if that is given.
        """
        columns = [column for column in table.columns if any(row.get(column.key) is not None for row in table.rows)]
        cells = [[self._table_cell(row, column, table.indented) for column in columns] for row in table.rows]
        lengths = [[sum(len(text) for _, text in cell) for cell in row] for row in cells]
        widths = [max(len(column.heading), *(row[number] for row in lengths)) for number, column in enumerate(columns)]
        aligned = [(column.right, width) for column, width in zip(columns, widths)]
        if table.title:
            yield safe(table.title)
        headings = [((self._style.heading, column.heading),) for column in columns]
        if any(column.heading for column in columns):
            yield self._table_line(headings, aligned, width)
        for row in cells:
            yield self._table_line(row, aligned, width)

    def _table_cell(self, row: Mapping[str, Any], column: Column, indented: str) -> _Cell:
        value = row.get(column.key)
        if isinstance(value, Brief):
            return tuple(self._brief_cell(value.annotation))
        text = _cell(value)
        colour: str = getattr(self._style, column.role) if column.role else ""
        return ((colour, "  " * row["depth"] + text if column.key == indented else text),)

    def _brief_cell(self, annotation: Annotation) -> Iterator[tuple[str, str]]:
        head, tail = summarize(annotation)
        yield self._style.symbol, safe(head)
        for word in tail:
            yield "", "  "
            yield self._style.section, safe(word)

    def _table_line(self, row: Sequence[_Cell], aligned: Sequence[tuple[bool, int]], limit: int | None) -> str:
        """One line of cells, no longer than `limit`; each column gives (aligned to the right?, width)."""
        pieces: list[tuple[str, str]] = []
        for number, (cell, (right, width)) in enumerate(zip(row, aligned)):
            padding = " " * (width - sum(len(text) for _, text in cell))
            pieces += [("", "  ")] if number else []
            pieces += [("", padding), *cell] if right else [*cell, ("", padding)]
        while pieces and not pieces[-1][1].strip():
            pieces.pop()
        line, length = "", 0
        for colour, text in pieces:
            if limit is not None and length + len(text) > limit:
                return line + self._style.paint(colour, text[: max(0, limit - length)]) if limit > length else line
            line += self._style.paint(colour, text) if text else ""
            length += len(text)
        return line.rstrip()

    def facts(self, facts: NamedFacts) -> Iterator[str]:
        """The lines of named facts, aligned. Items of a list are numbered, those of a mapping are below its first."""
        lines = list(_fact_lines(facts.facts))
        width = max((len(label) for label, _ in lines), default=0)
        for label, words in lines:
            yield f"{self._style.paint(self._style.label, label.ljust(width))}  {words}".rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Range):
        return f"{value.start:#x}-{value.end:#x}"
    if isinstance(value, list):
        return " ".join(map(_cell, value))
    if isinstance(value, HumanSize):
        return human_size(value)
    if isinstance(value, Address):
        return f"{value:#0{2 + value.bits // 4}x}"
    return f"{value:#x}" if isinstance(value, (Hex, Size)) else safe(str(value))


def human_size(size: int) -> str:
    """A number of bytes in the largest unit that fits: exact (`64 TiB`), or with one decimal digit."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = max(0, min(len(units) - 1, (size.bit_length() - 1) // 10))
    whole, rest = divmod(size, 1 << 10 * power)
    return f"{size / (1 << 10 * power):.1f} {units[power]}" if rest else f"{whole} {units[power]}"


def _fact_lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(label, words) of each line."""
    for name, value in facts.items():
        label = name.replace("_", " ")
        if not isinstance(value, list):
            yield label, _cell(value) or "not known"
            continue
        single = label.removesuffix("s")
        for number, item in enumerate(value, 1):
            numbered = f"{single} {number}" if len(value) > 1 else single
            if not isinstance(item, dict):
                yield numbered, _cell(item)
                continue
            first, *others = _fact_lines(item)
            yield numbered, first[1]
            yield from (("  " + sub_label, words) for sub_label, words in others)
