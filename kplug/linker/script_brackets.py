"""Which symbols of a linker script bracket something, and how the script names it."""

from __future__ import annotations

from collections.abc import Iterable
from os.path import commonpath

from kplug.frozen import Frozen
from kplug.linker.script import Assignment, Input, LinkerScript, OutputSection

_FEW = 16  # input statements; a pair around more of them has no single name


class Bracket(Frozen):
    """Two symbols that the script assigns around something; `name` is the script's name for what they bracket."""

    name: str
    start_symbol: str
    end_symbol: str


class _Mark(Frozen):
    """A symbol that takes the location counter's value, and where in the script it does.

    `section` counts the output sections begun before it, `depth` is 1 inside one; `content` counts everything placed
    before it, so that two marks of one count hold nothing between them.
    """

    symbol: str
    section: int
    inside: bool
    content: int
    position: int


def brackets(script: LinkerScript, known: Iterable[str] = ()) -> list[Bracket]:
    """The pairs of symbols that bracket something in the script, in the order of their starts.

    First come the symbols whose names pair up. Then, among the rest, two that follow each other with input between
    them and no other unpaired mark in between. `known` are symbols that are already paired.
    """
    marks: list[_Mark] = []
    inputs: list[tuple[str, ...]] = []  # what was placed, in order
    sections: list[tuple[str, int, int]] = []  # name, and which of the inputs are its own: [first, last)
    for item in script.statements:
        inner: tuple[Assignment | Input, ...] = (item,) if isinstance(item, Assignment) else item.statements
        is_section = isinstance(item, OutputSection)
        if isinstance(item, OutputSection) and item.discarded:
            continue
        first = len(inputs)
        for statement in inner:
            if isinstance(statement, Input):
                inputs.append(statement.patterns)
            elif statement.symbol != "." and statement.here:
                marks.append(_Mark(statement.symbol, len(sections), is_section, len(inputs), len(marks)))
            elif statement.symbol == "." and "ALIGN" not in statement.expression:
                inputs.append(())  # space left free: content without a name
        if isinstance(item, OutputSection):
            sections.append((item.name, first, len(inputs)))
    pairs = _pairs(marks, frozenset(known))
    pairs.sort(key=lambda pair: (pair[0].position, -pair[1].position))
    return [
        Bracket(_bracket_name(start, end, inputs, sections), start.symbol, end.symbol)
        for start, end in pairs
        if end.content > start.content or end.section > start.section
    ]


def _pairs(marks: list[_Mark], known: frozenset[str]) -> list[tuple[_Mark, _Mark]]:
    by_symbol = {mark.symbol: mark for mark in marks}
    pairs: list[tuple[_Mark, _Mark]] = []
    taken = set(known)
    for mark in marks:
        if mark.symbol in known:
            continue
        for end_symbol in partners(mark.symbol):
            end = by_symbol.get(end_symbol)
            if end is not None and end_symbol not in known and end.position > mark.position:
                pairs.append((mark, end))
                taken.update((mark.symbol, end_symbol))
                break
    left = [mark for mark in marks if mark.symbol not in taken]
    position = 0
    while position + 1 < len(left):
        start, end = left[position], left[position + 1]
        if (
            start.inside == end.inside
            and (not start.inside or start.section == end.section)
            and (end.content > start.content)
            and not any(mark.symbol in taken for mark in marks[start.position + 1 : end.position])
        ):
            pairs.append((start, end))
            position += 2
        else:
            position += 1
    return pairs


def partners(start: str) -> tuple[str, ...]:
    """The names that a symbol's partner at the other end may have, likeliest first."""
    found: list[str] = []
    for prefix in ("__start_", "_start_"):
        if start.startswith(prefix):
            stem = start[len(prefix) :]
            found += [prefix.replace("start", "stop") + stem, prefix.replace("start", "end") + stem]
    for suffix in ("_start", "_begin", "start", "begin"):
        if start.endswith(suffix) and len(start) > len(suffix):
            stem = start[: -len(suffix)]
            found += [f"{stem}{'_' * suffix.startswith('_')}{end}" for end in ("end", "stop")]
            break
    for prefix in ("__s", "_s"):
        if start.startswith(prefix):
            found.append(prefix[:-1] + "e" + start[len(prefix) :])
            break
    found += [start + "_end", start + "end"]
    return tuple(found)


def _bracket_name(start: _Mark, end: _Mark, inputs: list[tuple[str, ...]], sections: list[tuple[str, int, int]]) -> str:
    """The one output section that the pair encloses, else the one input pattern, else the stem of the names."""
    if not start.inside and not end.inside:
        if end.section - start.section == 1:
            return plain(sections[start.section][0])
    elif start.inside and end.inside and start.section == end.section < len(sections):
        name, first, last = sections[start.section]
        if start.content == first and end.content == last:
            return plain(name)
        if end.content - start.content <= _FEW:
            words = {plain(pattern) for patterns in inputs[start.content : end.content] for pattern in patterns}
            if len(words) == 1:
                return words.pop()
    return stem(start.symbol, end.symbol)


def plain(name: str) -> str:
    """A region's name from a section's name or pattern: without the leading dots, underscores and wildcards."""
    return name.strip("*+").lstrip("._").rstrip("._") or name


def stem(start_symbol: str, end_symbol: str) -> str:
    """The common stem of the names of two boundary symbols."""
    for word in ("__start_", "_start_"):
        if start_symbol.startswith(word):
            return start_symbol[len(word) :].strip("_") or start_symbol
    for word in ("_start", "_begin"):
        if start_symbol.endswith(word):
            return start_symbol[: -len(word)].strip("_") or start_symbol
    if end_symbol.startswith(start_symbol):
        return start_symbol.strip("_")
    if start_symbol.lstrip("_")[:1] == "s" and start_symbol.lstrip("_")[1:] == end_symbol.lstrip("_")[1:]:
        return start_symbol.lstrip("_")[1:]
    return commonpath([start_symbol, end_symbol]).strip("_") or start_symbol.strip("_")
