"""Any input at all: random, cut and mixed logs. No exception, no line lost, a time that grows with the length alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import crafted_reports as crafted

from kplug.log import events
from kplug.log.kinds import kinds
from kplug.log.text import read_text

REAL = [line for text in crafted.ALL for line in text.splitlines()]
PIECES = [*REAL, *(wording.example for kind in kinds() for wording in (*kind.begins, *kind.details, *kind.ends))]
BEFORE = ("", "[  1.0] ", "[  1.0][ T12] ", "[  1.0][   C3] ", "<4>", "\x1b[1m", "> ", "\0")
PIECE = st.sampled_from(PIECES)
LINES = st.one_of(
    PIECE,
    st.builds(
        lambda line, start, stop: line[start:stop], st.sampled_from(PIECES), st.integers(0, 60), st.integers(0, 90)
    ),
    st.builds(str.__add__, PIECE, PIECE),
    st.text(max_size=120),
)
LOGS = st.lists(st.builds(str.__add__, st.sampled_from(BEFORE), LINES), max_size=60)


@given(LOGS)
@settings(max_examples=60, deadline=None)
def test_any_log_is_read(lines: list[str]) -> None:
    for event in events(lines):
        assert 1 <= event.first_line <= event.last_line <= len(lines)
        assert event.title
        numbers = [frame.line_number for trace in event.traces for frame in trace.frames]
        assert numbers == sorted(numbers)
        assert all(event.first_line <= number <= event.last_line for number in numbers)


def test_reports_that_other_cpus_joined_are_over_once() -> None:
    text = ["[ 1.0][    C0] rcu: INFO: rcu_sched self-detected stall on CPU", "[ 1.0][    C1] NMI backtrace for cpu 1"]
    lines = [*text, *["[ 1.0][    T9] other"] * 5000, *text]
    assert [(event.type, event.last_line) for event in events(lines)] == [("rcu-stall", 2), ("rcu-stall", 5004)]


@given(st.lists(st.binary(max_size=200), max_size=20))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_read_and_come_back(lines: list[bytes]) -> None:
    assert all(event.title for event in events(lines))
    for number, line in enumerate(lines, 1):
        text = read_text(number, line)
        assert (text.data, text.number) == (line, number)
        assert 0 <= text.begin <= len(text.raw)


@given(st.sampled_from(crafted.ALL), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_part_of_a_report_is_read_as_far_as_it_goes(text: str, start: int, stop: int) -> None:
    lines = text.splitlines()
    part = lines[start : len(lines) - stop]
    found = list(events(part))
    if start == 0 and len(part) > 3:
        assert found
        assert found[0].type == next(iter(events(lines))).type


@pytest.mark.parametrize(
    "unit",
    [
        *("x", " ", "[", "<", "a+0x1/", "0x", "> ", "[ 1.0]", "foo.c:1", "(", "\0", "\x1b[0m", "ffffffff81a114f4 "),
        *("RAX: 0000000000000000 ", "mod(OE) ", "48 ", "WARNING: ", "a.", "a/", "CPU: 0 PID: 1 Comm: "),
    ],
)
def test_a_long_line_takes_a_time_that_grows_with_its_length(unit: str) -> None:
    def seconds(length: int) -> float:
        start = time.process_time()
        for before in (
            "",
            "WARNING: ",
            "BUG: ",
            "Modules linked in: ",
            " ? a+0x1/0x2 ",
            "Code: ",
            "CPU: 0 PID: 1 Comm: ",
        ):
            list(events(["kernel BUG at mm/slab.c:1!", before + unit * (length // len(unit))]))
        return time.process_time() - start

    seconds(100)
    assert seconds(200_000) < 2
