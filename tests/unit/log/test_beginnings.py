"""What patterns begin with, as far as they say it."""

from __future__ import annotations

import pytest

from kplug.log.beginnings import beginnings
from kplug.log.kinds import kinds

WORDINGS = [wording for kind in kinds() for wording in kind.begins]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("BUG: x", {"BUG"}),
        ("(?:BUG: )?[Uu]nable", {"BUG", "Una", "una"}),
        (r"\[ (?P<level>INFO|BUG): ", {"[ I", "[ B"}),
        ("(?P<what>a|bcd|ef{2}g)hij", None),
        ("abc|def", {"abc", "def"}),
        (r"(?:ab(?:c|d))?xyz(?=1)", {"abc", "abd", "xyz"}),
        ("(?!x)abc", {"abc"}),
        (r"\d{1,3}abc", None),
        ("ab+c", None),
        ("ab?cd", {"abc", "acd"}),
        ("[^a]bcd", None),
        ("[a-z]bcd", None),
        (r"a[\]|]b|cde", None),
        ("", None),
    ],
)
def test_what_a_pattern_begins_with(pattern: str, expected: set[str] | None) -> None:
    assert beginnings(pattern, 3) == expected


@pytest.mark.parametrize("wording", WORDINGS, ids=lambda wording: wording.example)
def test_first_lines_begin_as_said_or_say_what_they_have(wording) -> None:  # type: ignore[no-untyped-def]
    known = beginnings(wording.pattern, 3)
    if known is None:
        assert any(word in wording.example for word in wording.has)
    else:
        assert wording.example[:3] in known
