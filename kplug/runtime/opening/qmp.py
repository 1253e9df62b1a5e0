"""A QEMU guest's monitor (QMP), as far as needed to hand the guest to drgn without waiting forever."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import time
from typing import Any

from kplug.arch import registry
from kplug.errors import InputError
from kplug.frozen import Frozen

CONNECT_SECONDS = 5.0
# For drgn's own requests: the guest's memory through the monitor is slow, but not that slow.
ANSWER_SECONDS = 10
_SILENT = f"no QMP greeting or answer in {CONNECT_SECONDS:.0f} s: not a QMP server, or another client holds it"
_LINE_BYTES = 1 << 22


class Guest(Frozen):
    """Facts from the monitor: `machine` by kplug's name, whether the guest runs, and its physical memory ranges."""

    machine: str | None
    running: bool
    ranges: tuple[tuple[int, int], ...]


def is_tcp(address: str) -> bool:
    """Whether it is HOST:PORT, by drgn's rule, and not the path of a socket."""
    _, colon, port = address.rpartition(":")
    return not address.startswith(("/", ".")) and bool(colon) and port.isdigit() and 0 < int(port) < 65536


def connect(address: str) -> socket.socket:
    """A connection to a QMP server: HOST:PORT, or the path of a unix socket. InputError if there is none."""
    try:
        if is_tcp(address):
            host, _, port = address.rpartition(":")
            return socket.create_connection((host.strip("[]") or "localhost", int(port)), CONNECT_SECONDS)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CONNECT_SECONDS)
        try:
            connection.connect(address)
        except BaseException:
            connection.close()
            raise
        return connection
    except (OSError, ValueError) as error:
        why = "no answer" if isinstance(error, (TimeoutError, socket.timeout)) else None
        raise InputError(f"{address}: no QMP server: {why or getattr(error, 'strerror', None) or error}") from None


def ask(address: str) -> Guest:
    """Query what drgn needs about the guest. The connection is closed again: a monitor serves one client at a time."""
    with connect(address) as connection:
        monitor = _Monitor(address, connection)
        status = monitor.execute("query-status")
        target = monitor.execute("query-target")
        memory = monitor.execute("human-monitor-command", {"command-line": "info mtree -f"})
    machine = target.get("arch") if isinstance(target, dict) else None
    architecture = registry.by_word(machine) if isinstance(machine, str) else None
    return Guest(
        None if architecture is None else architecture.name,
        isinstance(status, dict) and status.get("running") is True,
        tuple(_ram(memory)) if isinstance(memory, str) else (),
    )


def connection_for_drgn(address: str) -> int:
    """A file descriptor for drgn's QMP connection; no read from it waits forever. The receiver closes it.

    drgn waits without letting Python run, so Ctrl-C does not work then: the server's greeting is awaited here.
    """
    with connect(address) as connection:
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.recv(1, socket.MSG_PEEK)
        except (TimeoutError, socket.timeout):
            raise InputError(f"{address}: {_SILENT}") from None
        except OSError as error:
            raise InputError(f"{address}: {error.strerror or error}") from None
        connection.settimeout(None)  # blocking; the kernel keeps the time
        limit = struct.pack("@ll", ANSWER_SECONDS, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return os.dup(connection.fileno())


class _Monitor:
    """A connection in command mode."""

    def __init__(self, address: str, connection: socket.socket) -> None:
        self._address, self._connection, self._data = address, connection, b""
        if "QMP" not in self._message():
            raise InputError(f"{address}: not a QMP server: it does not greet as one")
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """The result of the command; None if QEMU does not know it."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise InputError(f"{self._address}: QEMU closed the connection ({error.strerror or error})") from None
        while True:
            message = self._message()
            if "return" in message or "error" in message:
                return message.get("return")

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + CONNECT_SECONDS
        while b"\n" not in self._data:
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._connection.settimeout(left)
                data = self._connection.recv(1 << 16)
            except (TimeoutError, socket.timeout):
                raise InputError(f"{self._address}: {_SILENT}") from None
            except OSError as error:
                raise InputError(f"{self._address}: {error.strerror or error}") from None
            if not data:
                raise InputError(f"{self._address}: the server closed the connection")
            self._data += data
            if len(self._data) > _LINE_BYTES:
                raise InputError(f"{self._address}: not a QMP server: its line does not end")
        line, _, self._data = self._data.partition(b"\n")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise InputError(f"{self._address}: not a QMP server: its line is not a JSON object")
        return message


_RANGE = re.compile(r"\s+([0-9a-f]{8,16})-([0-9a-f]{8,16}) \(prio -?\d+, (ram|nv-ram|rom)\)")


def _ram(text: str) -> list[tuple[int, int]]:
    """The RAM in `info mtree -f`: the flat view of the address space "memory", as (start, end)."""
    found: list[tuple[int, int]] = []
    for view in text.replace("\r\n", "\n").split("FlatView #")[1:]:
        if 'AS "memory"' not in view:
            continue
        for match in _RANGE.finditer(view):
            start, end = int(match.group(1), 16), int(match.group(2), 16) + 1
            if match.group(3) != "rom" and start < end:
                found.append((start, end))
        break
    return sorted(found)
