"""The table that `make bench` ends with: each figure of today, its spread, its limit and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.pairs import Spread, Verdict, ratios

_HEAD = ("", "kplug", "peer", "figure", "quartiles", "limit", "verdict")


@dataclass(frozen=True)
class Row:
    """A line of the table, or with no cells the title of a section."""

    what: str
    cells: tuple[str, ...]
    verdict: Verdict
    note: str = ""


@dataclass
class Report:
    """Collects the rows."""

    rows: list[Row] = field(default_factory=list)

    def section(self, title: str) -> None:
        print(f"... {title}", flush=True)
        self.rows.append(Row(title, (), Verdict.NO_LIMIT))

    def ratio(
        self,
        what: str,
        ours: Sequence[float],
        peer: Sequence[float],
        limit: float | None,
        unit: str = "s",
        at_least: bool = False,
    ) -> None:
        """kplug's runs over its peer's, pair by pair; `at_least`: the peer's over kplug's."""
        pairs = ratios(peer, ours) if at_least else ratios(ours, peer)
        beside = (_value(Spread.of(ours).middle, unit), _value(Spread.of(peer).middle, unit))
        self._add(what, beside, Spread.of(pairs), limit, "", at_least)

    def figure(self, what: str, ours: Sequence[float], unit: str, limit: float | None = None) -> None:
        """What has no peer beside it."""
        self._add(what, ("", ""), Spread.of(ours), limit, unit, False)

    def processor(
        self, what: str, wall: Sequence[float], spent: Sequence[float], limit: float | None, peer: Sequence[float] = ()
    ) -> None:
        """Milliseconds of the processor, limited by themselves: where there is no pair, a busy machine would move the
        time on the wall. That is told beside it, and a peer's.
        """
        beside = _value(Spread.of(wall).middle, "ms"), _value(Spread.of(peer).middle, "ms") if peer else ""
        self._add(what, beside, Spread.of(spent), limit, "ms", False)

    def not_measured(self, what: str, why: str) -> None:
        self.rows.append(Row(what, ("",) * 5, Verdict.NOT_MEASURED, why))

    def failed(self, what: str, why: str) -> None:
        self.rows.append(Row(what, ("",) * 5, Verdict.FAILED, why))

    def _add(
        self, what: str, beside: tuple[str, str], spread: Spread, limit: float | None, unit: str, at_least: bool
    ) -> None:
        quartiles = f"{_number(spread.low)} .. {_number(spread.high)}"
        bound = "" if limit is None else f"{'>=' if at_least else '<='} {round(limit, 3):g}{_unit(unit)}"
        cells = (*beside, _value(spread.middle, unit), quartiles, bound)
        self.rows.append(Row(what, cells, spread.verdict(limit, at_least)))

    @property
    def good(self) -> bool:
        """Nothing failed, and no limit is missed beyond the spread."""
        return not any(row.verdict in (Verdict.MISSED, Verdict.FAILED) for row in self.rows)

    def text(self) -> str:
        first = max((len(row.what) + 2 for row in self.rows if row.cells), default=0)
        filled = [row.cells for row in self.rows if row.cells]
        widths = [max(len(head), *(len(cells[at]) for cells in filled)) if filled else len(head)
                  for at, head in enumerate(_HEAD[1:-1])]  # fmt: skip
        lines = [_line(_HEAD[0], _HEAD[1:-1], _HEAD[-1], first, widths)]
        for row in self.rows:
            if not row.cells:
                lines.append(row.what)
                continue
            ending = f"{row.verdict.value}: {row.note}" if row.note else row.verdict.value
            lines.append(_line(f"  {row.what}", row.cells, ending, first, widths))
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        count = {verdict: sum(row.verdict is verdict for row in self.rows) for verdict in Verdict}
        limited = count[Verdict.HOLDS] + count[Verdict.WITHIN_SPREAD] + count[Verdict.MISSED]
        parts = [f"{limited} limit{'s' * (limited != 1)}: {count[Verdict.HOLDS]} hold"]
        parts += [f"{count[each]} {each.value}" for each in (Verdict.WITHIN_SPREAD, Verdict.MISSED) if count[each]]
        parts += [f"{count[each]} {each.value}" for each in (Verdict.NOT_MEASURED, Verdict.FAILED) if count[each]]
        return ", ".join(parts)


def _line(what: str, cells: Sequence[str], ending: str, first: int, widths: Sequence[int]) -> str:
    columns = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths))
    return f"{what:<{first}}  {columns}  {ending}".rstrip()


def _number(value: float) -> str:
    """Three digits, and no exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def _value(value: float, unit: str) -> str:
    return f"{_number(value)}{_unit(unit)}"
