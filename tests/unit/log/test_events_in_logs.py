"""Logs of all kinds of events, from all releases and several architectures: what is found in each.

`tests/data/logs/NAME.log` is a log in the words of a kernel, with names of our own; `expected.json` says what happened,
written from what the kernel means by its words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kplug.log import events
from kplug.log.event import Event
from kplug.log.kinds import TYPES

LOGS = Path(__file__).parents[2] / "data" / "logs"
EXPECTED: dict[str, list[dict[str, Any]]] = json.loads((LOGS / "expected.json").read_text())


def found_in(name: str) -> Iterator[Event]:
    with (LOGS / f"{name}.log").open("rb") as log:
        yield from events(log)


def stated(event: Event, key: str) -> Any:
    value = getattr(event, key)
    if key == "address" and value is not None:
        return f"{value:#x}"
    return value


@pytest.mark.parametrize("name", EXPECTED)
def test_the_events_of_a_log(name: str) -> None:
    found = list(found_in(name))
    expected = EXPECTED[name]
    assert [event.type for event in found] == [each["type"] for each in expected]
    assert [{key: stated(event, key) for key in each} for event, each in zip(found, expected)] == expected


def test_each_type_is_in_some_log() -> None:
    assert set(TYPES) == {each["type"] for of_log in EXPECTED.values() for each in of_log}


def test_each_log_has_its_expectations() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(EXPECTED)
