"""A file that is read in a thread of its own is what it is when it is read here."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from kplug.files import read_ahead
from kplug.files.read_ahead import ReadAhead

CHUNK = read_ahead._CHUNK_BYTES
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17)


@pytest.fixture(params=["by the C library", "by Python"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by Python":
        monkeypatch.setattr(read_ahead, "ctypes", None)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("size", SIZES)
def test_all_of_it_arrives_in_order(tmp_path: Path, size: int) -> None:
    path, data = tmp_path / "file", bytes(number * 7 % 251 for number in range(size))
    path.write_bytes(data)
    assert b"".join(ReadAhead(str(path)).chunks()) == data


@pytest.mark.usefixtures("reader")
def test_whoever_is_slow_gets_all_of_it_too() -> None:
    found = bytearray()
    for chunk in ReadAhead("/proc/filesystems").chunks():
        time.sleep(0.01)
        found += chunk
    assert bytes(found) == Path("/proc/filesystems").read_bytes()


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(("name", "number"), [("nothing", errno.ENOENT), ("", errno.EISDIR)])
def test_what_cannot_be_read(tmp_path: Path, name: str, number: int) -> None:
    ahead = ReadAhead(str(tmp_path / name))
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        list(ahead.chunks())
    assert error.value.errno == number


def test_without_another_thread_it_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(read_ahead._thread, "start_new_thread", refused)
    assert b"".join(ReadAhead("/proc/version").chunks()) == Path("/proc/version").read_bytes()
