"""What the texts begin with that a pattern matches: by it a line finds the few patterns that may be its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kplug.named_tuples import NamedTuple

# More beginnings than this are not told apart.
_MOST = 64
_QUANTIFIER = re.compile(r"[?*+]|\{\d{1,6}(?:,\d{0,6})?\}")
_GROUP = re.compile(r"\((?:\?:|\?P<\w{1,40}>)?")
_CLASS = re.compile(r"\[(?P<characters>[^\]\\^-]{1,8})\]")


class _Begun(NamedTuple):
    """A beginning; `open`: what follows in the pattern goes on with it."""

    text: str
    open: bool


def beginnings(pattern: str, length: int) -> frozenset[str] | None:
    """What each text that the pattern matches begins with, so many characters long; None if that is not known."""
    found = _alternatives(pattern, length)
    if any(len(begun.text) < length for begun in found) or len(found) > _MOST:
        return None
    return frozenset(begun.text[:length] for begun in found)


def _alternatives(pattern: str, length: int) -> list[_Begun]:
    return [begun for part in _split(pattern) for begun in _sequence(part, length)]


def _split(pattern: str) -> list[str]:
    """The alternatives of a pattern."""
    ends = [position for position, character, depth in _walk(pattern, 0) if character == "|" and depth == 0]
    return [pattern[start:end] for start, end in zip([0, *(end + 1 for end in ends)], [*ends, len(pattern)])]


def _end_of_group(pattern: str, start: int) -> int:
    return next(position for position, _, depth in _walk(pattern, start) if depth == 0)


def _walk(pattern: str, start: int) -> Iterator[tuple[int, str, int]]:
    """The characters from there on that are in no class and not escaped, each with how many groups are open then."""
    depth, position = 0, start
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
        elif character == "[":
            position = _end_of_class(pattern, position)
        else:
            depth += (character == "(") - (character == ")")
            yield position, character, depth
        position += 1


def _end_of_class(pattern: str, start: int) -> int:
    """Where the ] is of the class that begins there."""
    position = start + 2 if pattern[start + 1 : start + 2] != "^" else start + 3
    while pattern[position] != "]":
        position += 2 if pattern[position] == "\\" else 1
    return position


def _sequence(pattern: str, length: int) -> list[_Begun]:
    """The beginnings of a pattern that has no alternatives but in groups."""
    found, position = [_Begun("", True)], 0
    while position < len(pattern) and len(found) <= _MOST:
        if not any(begun.open and len(begun.text) < length for begun in found):
            break
        element, position = _element(pattern, position, length)
        quantifier = _QUANTIFIER.match(pattern, position)
        if quantifier is not None:
            position = quantifier.end() + pattern[quantifier.end() :].startswith("?")
            if quantifier.group() == "?":
                element = [*element, _Begun("", True)]
            else:
                element = [_Begun("", False)]
        longer = (
            _Begun((begun.text + more.text)[:length], more.open) for begun in found if begun.open for more in element
        )
        found = list(dict.fromkeys((*(begun for begun in found if not begun.open), *longer)))
    return found


def _element(pattern: str, position: int, length: int) -> tuple[list[_Begun], int]:
    """What one element of a pattern begins with, and where the next one is."""
    character = pattern[position]
    if character == "(":
        end = _end_of_group(pattern, position) + 1
        group = _GROUP.match(pattern, position)
        if group is None or (pattern.startswith("(?", position) and group.end() == position + 1):
            return [_Begun("", True)], end  # looks ahead or behind, and has no width
        return _alternatives(pattern[group.end() : end - 1], length), end
    if character == "[":
        simple = _CLASS.match(pattern, position)
        if simple is not None:
            return [_Begun(each, True) for each in simple.group("characters")], simple.end()
        return [_Begun("", False)], _end_of_class(pattern, position) + 1
    if character == "\\":
        escaped = pattern[position + 1]
        return [_Begun("", False) if escaped.isalnum() else _Begun(escaped, True)], position + 2
    return [_Begun("", False) if character in ".^$" else _Begun(character, True)], position + 1
