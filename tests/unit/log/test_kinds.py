"""The declarations of events: each by its examples."""

from __future__ import annotations

import re

import pytest

from kplug.log import common_lines, headers, registers
from kplug.log.event_reader import begins
from kplug.log.kinds import TYPES, EventKind, Wording, kinds
from kplug.log.traces import FRAMES, HEADINGS

COMMON = (
    *common_lines.BORDERS,
    *common_lines.AFTER_END,
    *common_lines.WITHIN,
    common_lines.PANIC,
    common_lines.PANIC_OVER_REPORT,
    common_lines.END_OF_TRACE,
    common_lines.END_OF_PANIC,
    *headers.HEADERS,
    *registers.POINTERS,
    *FRAMES,
    *HEADINGS,
)
OF_KINDS = [
    each for kind in kinds() for each in (*kind.begins, *kind.details, *kind.ends, *kind.headings, *kind.joined_by)
]
# Made of what all reports have: `kplug.log.kinds.EventKind`.
WORDS = {"function", "cpu", "task", "who", "by", "did", "target", "how", "object", "allocated", "callee"}
BEGINS = [(kind, wording) for kind in kinds() for wording in kind.begins]


@pytest.mark.parametrize("wording", dict.fromkeys((*COMMON, *OF_KINDS)), ids=lambda each: each.example.strip())
def test_each_wording_is_declared_with_an_example_of_it_and_its_source(wording: Wording) -> None:
    assert re.match(wording.pattern, wording.example.strip())
    assert wording.source


@pytest.mark.parametrize(("kind", "wording"), BEGINS, ids=[wording.example for _, wording in BEGINS])
def test_a_first_line_is_of_its_kind(kind: EventKind, wording: Wording) -> None:
    assert kind.type in TYPES
    found = begins(wording.example)
    assert found is not None
    assert (found[0].type, found[0].title) == (kind.type, kind.title)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.title)
def test_a_sentence_names_what_the_lines_state_and_ends(kind: EventKind) -> None:
    patterns = [each.pattern for each in (*kind.begins, *kind.details, *kind.ends, *kind.headings)]
    stated = {name for pattern in patterns for name in re.compile(pattern).groupindex}
    stated |= {name for each in (*kind.begins, *kind.details) for name, _ in each.states}
    for template in (kind.sentence, *(each.sentence for each in kind.begins if each.sentence is not None)):
        assert template.endswith(".")
        assert set(re.findall(r"\{(\w+)\}", template)) <= stated | WORDS
