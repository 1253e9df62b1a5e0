"""The QMP client against a server made here: what QEMU's protocol allows, and what it does not."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.vmhelp import UnixServer
from vmimages.qmp import QMPClient, QMPError

Answers = Callable[[dict[str, Any]], "list[dict[str, Any] | bytes]"]


@contextmanager
def connected(folder: Path, answers: Answers) -> Iterator[QMPClient]:
    """A client of a QEMU that answers each command with what `answers` gives."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(b'{"QMP": {"version": {}, "capabilities": []}}\r\n')
        for line in connection.makefile("rb"):
            message = json.loads(line)
            if message["execute"] == "qmp_capabilities":
                replies: list[dict[str, Any] | bytes] = [{"return": {}, "id": message["id"]}]
            else:
                replies = answers(message)
            for reply in replies:
                connection.sendall(reply if isinstance(reply, bytes) else json.dumps(reply).encode() + b"\r\n")

    with UnixServer(folder / "q", talk), QMPClient(folder / "q", timeout=600) as client:
        yield client


def test_commands_and_events(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def answers(message: dict[str, Any]) -> list[dict[str, Any] | bytes]:
        asked.append(message)
        if message["execute"] == "query-status":
            late = {"return": "late", "id": 0}
            return [{"event": "STOP"}, late, {"return": {"status": "paused"}, "id": message["id"]}]
        if message["execute"] == "human-monitor-command":
            return [{"return": "CPU#0\r\nRIP=0\r\n", "id": message["id"]}]
        return [{"return": {}, "id": message["id"]}]

    with connected(tmp_path, answers) as client:
        assert client.status() == "paused"
        assert [event["event"] for event in client.events] == ["STOP"]
        assert client.monitor("info registers", cpu=1) == "CPU#0\nRIP=0\n"
        assert asked[-1]["arguments"] == {"command-line": "info registers", "cpu-index": 1}
        client.stop()
        client.cont()
    assert [message["execute"] for message in asked[-2:]] == ["stop", "cont"]


def test_refusal(tmp_path: Path) -> None:
    def answers(message: dict[str, Any]) -> list[dict[str, Any] | bytes]:
        return [{"error": {"class": "GenericError", "desc": "no such thing"}, "id": message["id"]}]

    with connected(tmp_path, answers) as client, pytest.raises(QMPError, match="x: no such thing"):
        client.execute("x")


def test_dump_with_progress(tmp_path: Path) -> None:
    states = iter([("active", 25), ("active", 50), ("completed", 100)])
    asked: list[dict[str, Any]] = []

    def answers(message: dict[str, Any]) -> list[dict[str, Any] | bytes]:
        asked.append(message)
        if message["execute"] == "query-dump":
            status, done = next(states)
            return [{"return": {"status": status, "completed": done, "total": 100}, "id": message["id"]}]
        return [{"return": {}, "id": message["id"]}]

    seen: list[float] = []
    with connected(tmp_path, answers) as client:
        client.dump(Path("/x/core"), "kdump-zlib", update=seen.append)
    assert seen == [0.25, 0.5]
    assert asked[0]["arguments"] == {
        "paging": False, "protocol": "file:/x/core", "detach": True, "format": "kdump-zlib",
    }  # fmt: skip


def test_failed_dump(tmp_path: Path) -> None:
    def answers(message: dict[str, Any]) -> list[dict[str, Any] | bytes]:
        result = {"status": "failed", "completed": 0, "total": 0} if message["execute"] == "query-dump" else {}
        return [{"return": result, "id": message["id"]}]

    with connected(tmp_path, answers) as client, pytest.raises(QMPError, match="failed"):
        client.dump(Path("/x/core"))


def test_connection_drops(tmp_path: Path) -> None:
    def answers(message: dict[str, Any]) -> list[dict[str, Any] | bytes]:
        raise OSError

    with connected(tmp_path, answers) as client, pytest.raises(QMPError, match=r"closed|broke"):
        client.execute("x")


def test_no_answer(tmp_path: Path) -> None:
    with connected(tmp_path, lambda message: []) as client, pytest.raises(QMPError, match="no answer"):
        client.execute("x", timeout=0.1)


@pytest.mark.parametrize("greeting", [b"", b"hello\n", b"[1]\n", b'{"x": 1}\n', b"\xff\xfe\n"])
def test_not_a_qmp_server(tmp_path: Path, greeting: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(greeting)

    with UnixServer(tmp_path / "q", talk), pytest.raises(QMPError):
        QMPClient(tmp_path / "q", timeout=2)


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(QMPError, match="nothing"):
        QMPClient(tmp_path / "nothing")
