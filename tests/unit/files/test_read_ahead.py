"""A file that is read in a thread of its own is what it is when it is read here."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from kplug import __main__
from kplug.files import read_ahead
from kplug.files.read_ahead import ReadAhead

SIZES = (0, 1, 4095, 4096, 4097, 1_000_003)


@pytest.fixture(params=["by the C library", "by Python"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by Python":
        monkeypatch.setattr(read_ahead, "ctypes", None)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("size", SIZES)
def test_all_of_it_arrives(tmp_path: Path, size: int) -> None:
    path, data = tmp_path / "file", bytes(number * 7 % 251 for number in range(size))
    path.write_bytes(data)
    ahead = ReadAhead(str(path))
    ends = [end for _, end in ahead.arrived()]
    content = ahead.content()
    assert (content[:], len(content)) == (data, size)
    assert ends == sorted(set(ends))


@pytest.mark.usefixtures("reader")
def test_what_has_arrived_is_there(tmp_path: Path) -> None:
    """A pipe is read as it is written."""
    path, text = tmp_path / "pipe", b"".join(b"%016x t name\n" % number for number in range(9000))
    os.mkfifo(path)
    ahead = ReadAhead(str(path))
    with path.open("wb", buffering=0) as pipe:
        pipe.write(text[:100_000])
        arrived = ahead.arrived()
        memory, end = next(arrived)
        assert memory[:end] == text[:end]
        pipe.write(text[100_000:])
    assert all(memory[:end] == text[:end] for memory, end in arrived)
    assert ahead.content()[:] == text


def test_a_kernel_that_makes_no_memory_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_MADV_POPULATE_WRITE", 0x7FFFFFFF)  # as before 5.14: an invalid argument
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    ahead = ReadAhead(str(tmp_path / "file"))
    assert all(memory[:end] == b"x" * end for memory, end in ahead.arrived())
    assert ahead.content()[:] == b"x" * 100_000


@pytest.mark.usefixtures("reader")
def test_no_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "MAX_BYTES", 8192)
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    assert ReadAhead(str(tmp_path / "file")).content()[:] == b"x" * 8192


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(("name", "number"), [("nothing", errno.ENOENT), ("", errno.EISDIR)])
def test_what_cannot_be_read(tmp_path: Path, name: str, number: int) -> None:
    ahead = ReadAhead(str(tmp_path / name))
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        ahead.content()
    assert error.value.errno == number


@pytest.mark.parametrize(
    ("maker", "error"),
    [("_thread.start_new_thread", RuntimeError("can't start new thread")), ("mmap", OSError(errno.ENOMEM, "no room"))],
)
def test_without_a_thread_or_room_it_is_read_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, maker: str, error: Exception
) -> None:
    def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"kplug.files.read_ahead.{maker}", refused)
    ahead = ReadAhead("/proc/version")
    assert list(ahead.arrived()) == []
    assert ahead.content()[:] == Path("/proc/version").read_bytes()
    with pytest.raises(FileNotFoundError):
        ReadAhead("/proc/nothing").content()


def test_a_reading_that_was_begun_serves_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    ReadAhead.begin(str(path))
    first = ReadAhead.of(str(path))
    assert first.content()[:] == b"before"
    path.write_text("after")
    assert ReadAhead.of(str(path)).content()[:] == b"after"


@pytest.mark.parametrize(
    ("words", "begun"),
    [
        ("where schedule", True),
        ("where -b -l schedule", True),
        ("where -s vmlinux schedule", False),
        ("where -", True),
        ("sym schedule", False),
        ("", False),
    ],
)
def test_where_on_the_running_kernel_begins_to_read_its_list(
    monkeypatch: pytest.MonkeyPatch, words: str, begun: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ReadAhead, "begin", asked.append)
    monkeypatch.setattr(sys, "argv", ["kplug", *words.split()])
    __main__._begin_to_read()
    assert asked == (["/proc/kallsyms"] if begun else [])
