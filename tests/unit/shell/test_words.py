"""The words on standard input: each line as it is, and all that are there before more is waited for."""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import ROOT

from kplug.expressions import MAX_LENGTH
from kplug.shell.words import words


class Pieces(io.RawIOBase):
    """Bytes that come piece by piece, as from a pipe."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.left = [piece for piece in pieces if piece]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self.left.pop(0) if self.left else b""
        taken = piece[: len(buffer)]
        if len(taken) < len(piece):
            self.left.insert(0, piece[len(taken) :])
        buffer[: len(taken)] = taken
        return len(taken)


def text_of(pieces: Sequence[bytes], encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(Pieces(pieces)), encoding, errors="backslashreplace")


def one_by_one(stream: io.TextIOBase) -> Iterator[str]:
    """The same, by the text stream's own lines."""
    while line := stream.readline(2 * MAX_LENGTH):
        yield line if len(line) == 2 * MAX_LENGTH else line.strip()
        while line and not line.endswith("\n"):
            line = stream.readline(2 * MAX_LENGTH)


_LONG = st.integers(2 * MAX_LENGTH - 3, 2 * MAX_LENGTH + 2).map(lambda count: b"a" * count)
_PARTS = st.sampled_from([b"\n", b"\r\n", b"\r", b" ", b"0x10", b"schedule", "é€".encode(), b"\xff", b"\xe2\x82"])


@settings(max_examples=50)
@given(st.lists(st.one_of(_PARTS, _PARTS, _LONG), max_size=20), st.sampled_from(["utf-8", "ascii", "utf-16-le"]))
def test_the_words_are_the_lines(pieces: list[bytes], encoding: str) -> None:
    expected = [word for word in one_by_one(text_of(pieces, encoding)) if word]
    for stream in (text_of(pieces, encoding), text_of([b"".join(pieces)], encoding)):
        assert [word for word in words(stream, lambda: None) if word] == expected
    whole = io.StringIO(text_of(pieces, encoding).read())
    assert [word for word in words(whole, lambda: None) if word] == expected


def test_a_line_without_end_takes_no_memory() -> None:
    raw = Pieces([b"a" * (1 << 14)] * 1000)
    found = []
    for word in words(io.TextIOWrapper(io.BufferedReader(raw)), lambda: None):
        found.append(word)
        if len(found) == 1:
            assert len(raw.left) > 990  # it is cut before the rest is read
    assert list(map(len, found)) == [2 * MAX_LENGTH]


def test_more_is_waited_for_when_all_that_is_there_was_given() -> None:
    events: list[str] = []
    raw = Pieces([b"a\nb\nc", b"d\n", b"e"])
    for word in words(io.TextIOWrapper(io.BufferedReader(raw)), lambda: events.append(f"wait {len(raw.left)}")):
        events.append(word)
    assert events == ["a", "b", "wait 2", "cd", "wait 1", "wait 0", "e"]


def test_none_of_no_stream() -> None:
    assert list(filter(None, words(None, lambda: None))) == []


@pytest.mark.parametrize("open_both_ends", [pty.openpty, os.pipe])
def test_each_answer_is_there_before_the_next_line_comes(
    vmlinux: str, open_both_ends: Callable[[], tuple[int, int]]
) -> None:
    mine, its = open_both_ends()
    command = [sys.executable, "-m", "kplug", "where", "-s", vmlinux, "-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=its, env=environment)
    os.close(its)
    assert process.stdin is not None
    for line in (b"start_kernel", b"start_kernel+0x4", b"start_kernel+0x8"):
        process.stdin.write(line + b"\n")
        process.stdin.flush()
        said = b""
        while line not in said:
            assert select.select([mine], [], [], 600)[0]
            more = os.read(mine, 65536)
            assert more, said  # it lives
            said += more
    process.stdin.close()
    assert process.wait() == 0
    os.close(mine)
