"""docs/support.md: what each cell answered, as the results in the cache have it. Nothing else writes its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matrix import results
from matrix.cells import CELLS, GDB, HALVES, Cell
from matrix.results import FAILED, PASSED, STOPPED, Result
from support.first_answer import MEGABYTES
from support.paths import DOCS

PAGE = DOCS / "support.md"
BEGIN = "<!-- `make matrix` writes what follows. -->\n"
NOT_RUN = "not run"
HEADING = "| cell | outcome | compared | first answer | its memory | took | code of |"
#: What the first answer may take of what amd64's does, from a file of the same size.
LIMIT = 2.0
_TITLES = {
    "static": "From files",
    "booted": "Kernels that run, and their dumps",
    GDB: "gdb",
    "Python": "Python",
    "build": "Other builds",
}


def write(page: Path = PAGE) -> None:
    page.write_text(written(page.read_text(), results.read()))


def written(page: str, known: Mapping[str, Result], cells: Sequence[Cell] = CELLS) -> str:
    """The page with its tables as these results have them."""
    before, mark, _ = page.partition(BEGIN)
    assert mark, f"the page has no line {BEGIN.strip()!r}"
    return before + BEGIN + "".join(f"{line}\n" for line in _lines(known, cells))


def _lines(known: Mapping[str, Result], cells: Sequence[Cell]) -> Iterator[str]:
    for half in HALVES:
        of_half = [cell for cell in cells if cell.half == half]
        if of_half:
            yield from ("", f"## {_TITLES[half]}", "", *_overview(known, of_half))
    yield from ("", "## Each cell", "", HEADING, "|" + " --- |" * HEADING.count(" | ") + " --- |")
    for cell in cells:
        yield _row(cell, known.get(cell.name), known)


def _overview(known: Mapping[str, Result], cells: Sequence[Cell]) -> Iterator[str]:
    """A row for each kernel or tool, a column for each thing that is asked of it."""
    sources = list(dict.fromkeys(cell.source for cell in cells))
    yield "| | " + " | ".join(sources) + " |"
    yield "| --- |" + " --- |" * len(sources)
    by_name = {cell.name: cell for cell in cells}
    for subject in dict.fromkeys(cell.subject for cell in cells):
        row = [by_name.get(f"{subject}/{source}") for source in sources]
        yield f"| {subject} | " + " | ".join(_short(known.get(cell.name)) if cell else "" for cell in row) + " |"


def _short(result: Result | None) -> str:
    if result is None:
        return NOT_RUN
    if result.outcome == PASSED:
        return (
            f"{_passed(result)} of {sum(result.compared.values()):,}" if result.compared else f"{_done(result)} tests"
        )
    return f"**{result.outcome}**" if result.outcome == FAILED else f"{STOPPED} by {result.layer}"


def _passed(result: Result) -> str:
    return f"{result.differed:,} differ"


def _done(result: Result) -> int:
    return result.tests - result.skipped


def _row(cell: Cell, result: Result | None, known: Mapping[str, Result]) -> str:
    if result is None:
        return f"| {cell.name} | {NOT_RUN} | | | | | |"
    compared = ", ".join(f"{number:,} {what}" for what, number in result.compared.items())
    words = [compared + f": {_passed(result)}" if compared else f"{_done(result)} tests" if _done(result) else ""]
    words += [", ".join(f"{what} {value}" for what, value in sorted(result.about.items()))]
    outcome = result.outcome
    if result.why:
        outcome += f" ({result.layer}: {_plain(result.why)})" if result.layer else f" ({_plain(result.why)})"
    columns = (
        cell.name,
        outcome,
        "; ".join(word for word in words if word),
        _first_answer(cell, result, known),
        _memory(result),
        f"{result.seconds:.0f} s" if result.seconds else "",
        result.commit,
    )
    return "| " + " | ".join(columns) + " |"


def _plain(text: str) -> str:
    """Words of a program as they may stand in a table."""
    return " ".join(text.replace("|", "/").replace("<", "(").replace(">", ")").split())[:200]


def _memory(result: Result) -> str:
    if result.first_megabytes is None:
        return ""
    return f"{result.first_megabytes:.0f} MB" + (", **over the limit**" if result.first_megabytes > MEGABYTES else "")


def _first_answer(cell: Cell, result: Result, known: Mapping[str, Result]) -> str:
    if result.first_answer is None:
        return ""
    ratio = ratio_to_amd64(cell, result, known)
    told = "" if ratio is None else f", {ratio:.1f} of amd64's" + (", **over the limit**" if ratio > LIMIT else "")
    return f"{result.first_answer:.2f} s{told}"


def ratio_to_amd64(
    cell: Cell, result: Result, known: Mapping[str, Result], cells: Sequence[Cell] = CELLS
) -> float | None:
    """The first answer's time beside that of amd64's file whose size is nearest; of a larger file it may take more."""
    size, others = result.file_megabytes, []
    for each in cells:
        other = known.get(each.name)
        if other is None or (each.half, each.source) != (cell.half, cell.source) or each is cell:
            continue
        if each.subject.startswith("amd64") and other.first_answer and other.file_megabytes:
            others.append(other)
    if not others or not size or not result.first_answer:
        return None
    nearest = min(others, key=lambda other: abs((other.file_megabytes or 0) - size))
    assert nearest.first_answer
    assert nearest.file_megabytes
    return result.first_answer / nearest.first_answer / max(1.0, size / nearest.file_megabytes)
