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


def test_one_log_after_another() -> None:
    """All in one: what is open at the end of one log takes nothing of the next."""
    lines: list[bytes] = []
    begins: dict[int, str] = {}
    for name in EXPECTED:
        begins[len(lines) + 1] = name
        lines += (LOGS / f"{name}.log").read_bytes().split(b"\n")[:-1]
        lines += [b"[  500.%06d] usb 1-1: new high-speed USB device" % number for number in range(41)]
    found: dict[str, list[str]] = {name: [] for name in EXPECTED}
    for event in sorted(events(lines), key=lambda event: event.first_line):
        if event.type != "reboot":
            found[begins[max(begin for begin in begins if begin <= event.first_line)]].append(event.type)
    expected = {name: [each["type"] for each in of_log] for name, of_log in EXPECTED.items()}
    assert found == {name: [each for each in types if each != "reboot"] for name, types in expected.items()}


def test_each_type_is_in_some_log() -> None:
    assert set(TYPES) == {each["type"] for of_log in EXPECTED.values() for each in of_log}


def test_each_log_has_its_expectations() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(EXPECTED)
