"""The sentence of each event: of logs of all types, as one who reads the log would write it from the same words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from kplug.log import events
from kplug.log.event import Event
from kplug.log.kinds import TYPES

LOGS = Path(__file__).parents[2] / "data" / "logs"
SENTENCES: dict[str, str] = json.loads((LOGS / "sentences.json").read_text())
# About 200 characters; names in these logs are as long as in kernels.
_LONGEST = 220


def found_in(name: str) -> list[Event]:
    with (LOGS / f"{name}.log").open("rb") as log:
        return list(events(log))


@pytest.mark.parametrize("name", SENTENCES)
def test_the_sentence_of_a_log(name: str) -> None:
    assert found_in(name)[0].sentence == SENTENCES[name]


def test_each_type_has_a_sentence_here() -> None:
    assert {event.type for name in SENTENCES for event in found_in(name)} == set(TYPES)


def test_each_event_has_one_sentence() -> None:
    for path in LOGS.glob("*.log"):
        for event in found_in(path.stem):
            said = event.sentence
            assert said.endswith("."), path
            assert len(said.splitlines()) == 1, path
            assert len(said) <= _LONGEST, path
            assert event.function is None or event.function in said, path
            assert not re.search("None|[{}|]", said), path


def report(*lines: str) -> str:
    (event,) = events([f"[   12.345678] {line}\n" for line in lines])
    return event.sentence


def test_what_the_log_does_not_state_is_not_said() -> None:
    assert (
        report("BUG: kernel NULL pointer dereference") == "The kernel accessed an address that the log does not state."
    )
    assert report("BUG: unable to handle page fault for address: ffffc90000a00000") == (
        "The kernel faulted as it accessed 0xffffc90000a00000."
    )
    assert report("watchdog: BUG: soft lockup - CPU#3") == "CPU 3 was stuck."


def test_words_of_the_log_are_cut_where_they_are_long() -> None:
    assert len(report(f"Kernel panic - not syncing: {'x' * 300}")) < _LONGEST
