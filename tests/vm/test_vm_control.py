"""The channel to a guest's shell: answers, late ones and bad ones. A thread plays the guest."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from support.vmhelp import UnixServer
from vmimages.control import Control
from vmimages.errors import VMError


def test_ready_and_run(tmp_path: Path) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"noise before\nkplug-")
        connection.sendall(b"guest 1\n")
        for line in connection.makefile("rb"):
            output = line.strip().upper() + b"\ndone 9 9\n\x00"
            connection.sendall(b"done 3 %d\n" % len(output) + output)

    with UnixServer(tmp_path / "c", talk):
        control = Control(tmp_path / "c")
        with pytest.raises(VMError, match="ready"):
            control.run("x")
        control.wait_ready(60)
        assert control.run("abc", 5) == (3, b"ABC\ndone 9 9\n\x00")
        assert control.run("d", 5) == (3, b"D\ndone 9 9\n\x00")
        with pytest.raises(VMError, match="one line"):
            control.run("a\nb")
        control.close()


def test_never_ready(tmp_path: Path) -> None:
    ticks: list[int] = []

    def talk(connection: socket.socket) -> None:
        connection.recv(1)

    with UnixServer(tmp_path / "c", talk):
        control = Control(tmp_path / "c")
        with pytest.raises(VMError, match="isn't ready after"):
            control.wait_ready(0.2, lambda: ticks.append(1))
        control.close()
    assert ticks


def test_late_answer_is_not_the_next_ones(tmp_path: Path) -> None:
    go = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"kplug-guest 1\n")
        lines = connection.makefile("rb")
        lines.readline()
        connection.sendall(b"done 0 6\nfir")
        go.wait(60)
        connection.sendall(b"st\n")
        lines.readline()
        connection.sendall(b"done 0 7\nsecond\n")

    with UnixServer(tmp_path / "c", talk):
        control = Control(tmp_path / "c")
        control.wait_ready(60)
        with pytest.raises(VMError, match=r"'one'.*stopped"):
            control.run("one", timeout=0.1)
        go.set()
        assert control.run("two", timeout=600) == (0, b"second\n")
        control.close()


@pytest.mark.parametrize("answer", [b"", b"what\n", b"done x 3\n", b"done 0 99999999999\n", b"done 0 5\nab"])
def test_bad_answers(tmp_path: Path, answer: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"kplug-guest 1\n")
        connection.recv(100)
        connection.sendall(answer)

    with UnixServer(tmp_path / "c", talk):
        control = Control(tmp_path / "c")
        control.wait_ready(60)
        with pytest.raises(VMError):
            control.run("x", timeout=1)
        control.close()
