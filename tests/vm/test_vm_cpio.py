"""The archive writer: what cpio(1) itself reads of it."""

from __future__ import annotations

import io
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from vmimages.cpio import CpioWriter


def archive() -> bytes:
    out = io.BytesIO()
    with CpioWriter(out) as writer:
        writer.file("init", b"#!/bin/sh\n", mode=0o755)
        writer.file("a/b/odd", b"x" * 7)
        writer.file("a/b/empty", b"")
        writer.directory("a/c")
        writer.symlink("a/link", "b/odd")
        writer.device("dev/console", 5, 1)
    return out.getvalue()


def entries(data: bytes) -> list[tuple[str, int, bytes, tuple[int, int]]]:
    """An independent reader, by the format's description: 13 numbers of 8 hex digits, names and data padded to 4."""
    found: list[tuple[str, int, bytes, tuple[int, int]]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        assert at % 4 == 0
        field = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        name = data[at + 110 : at + 110 + field[11]]
        assert name.endswith(b"\0")
        start = (at + 110 + field[11] + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            return found
        found.append((name[:-1].decode(), field[1], data[start : start + field[6]], (field[9], field[10])))
        at = (start + field[6] + 3) // 4 * 4


def test_entries() -> None:
    found = entries(archive())
    names = [name for name, *_ in found]
    # Each folder once, and before what is in it.
    assert names == ["init", "a", "a/b", "a/b/odd", "a/b/empty", "a/c", "a/link", "dev", "dev/console"]
    by_name = {name: rest for name, *rest in found}
    assert by_name["init"] == [stat.S_IFREG | 0o755, b"#!/bin/sh\n", (0, 0)]
    assert by_name["a/b/odd"][1] == b"x" * 7
    assert by_name["a/link"][:2] == [stat.S_IFLNK | 0o777, b"b/odd"]
    assert by_name["dev/console"] == [stat.S_IFCHR | 0o600, b"", (5, 1)]
    assert len(archive()) % 512 == 0
    assert archive() == archive()


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is the oracle")
def test_cpio_reads_it(tmp_path: Path) -> None:
    listed = subprocess.run(["cpio", "-t"], input=archive(), capture_output=True, check=True).stdout.decode().split()
    assert listed == [name for name, *_ in entries(archive())]
    subprocess.run(
        ["cpio", "-id", "--quiet", "a/*", "a", "init"], input=archive(), cwd=tmp_path, check=True, capture_output=True
    )
    assert (tmp_path / "a/link").read_bytes() == b"x" * 7
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
