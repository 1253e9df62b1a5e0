"""All registers of a QEMU guest's CPUs, by its monitor.

The monitor's text: x86_cpu_dump_state in QEMU's target/i386/cpu-dump.c, aarch64_cpu_dump_state in target/arm/cpu.c.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kplug.arch.registers import monitor_names
from kplug.errors import TargetError

_MAX_ANSWER_BYTES = 1 << 26
_ANSWER_SECONDS = 10.0


class MonitorRegisters:
    """All registers of a guest's CPUs, through QEMU's monitor.

    `descriptor` is drgn's own QMP connection in command mode: QEMU serves one client at a time. Both send a command and
    wait for its answer, so they do not interfere; other messages are skipped.
    """

    def __init__(self, descriptor: int) -> None:
        self._connection = socket.socket(fileno=os.dup(descriptor))
        self._asked = 0

    def of(self, cpu: int) -> Mapping[str, int]:
        return self._all().get(cpu, {})

    def numbers(self) -> Sequence[int]:
        return sorted(self._all())

    def _all(self) -> Mapping[int, Mapping[str, int]]:
        return parse_registers(self._monitor("info registers -a"))

    def _monitor(self, command: str) -> str:
        self._asked += 1
        name = f"kplug-{self._asked}"
        arguments = {"command-line": command}
        request = {"execute": "human-monitor-command", "arguments": arguments, "id": name}
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            answer = self._answer(name)
        except OSError as error:
            why = "it does not answer" if isinstance(error, (TimeoutError, BlockingIOError)) else "it has gone away"
            raise TargetError(f"the guest's registers cannot be read: {why}") from None
        if not isinstance(answer, str):
            raise TargetError("the guest's registers cannot be read: QEMU's monitor has no such command")
        return answer

    def _answer(self, name: str) -> Any:
        deadline, data = time.monotonic() + _ANSWER_SECONDS, b""
        while time.monotonic() < deadline and len(data) < _MAX_ANSWER_BYTES:
            got = self._connection.recv(1 << 16)
            if not got:
                raise ConnectionError
            *lines, data = (data + got).split(b"\n")
            for line in lines:
                try:
                    message = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(message, dict) and message.get("id") == name:
                    return message.get("return")
        raise TimeoutError


_CPU = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)
_SEGMENT = re.compile(r"\b([CDEFGS]S) =([0-9a-f]{4}) ([0-9a-f]{16})\b")
_VALUE = re.compile(r"\b(R[A-DSI0-9][A-Z0-9]?|RFL|CR[0-8]|EFER|X[0-9]{2}|SP|PC|PSTATE) ?=([0-9a-f]{8,16})\b")


def parse_registers(text: str) -> dict[int, dict[str, int]]:
    """The registers of each CPU in the text of `info registers -a`, by canonical name."""
    _, *parts = _CPU.split(text.replace("\r", ""))
    return {int(number): _parse_cpu(body) for number, body in zip(parts[::2], parts[1::2])}


def _parse_cpu(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    names = monitor_names()
    for name, value in _VALUE.findall(text):
        if name in names:
            found.setdefault(names[name], int(value, 16))
    for name, selector, base in _SEGMENT.findall(text):
        found[name.lower()] = int(selector, 16)
        if name in ("FS", "GS"):
            found[f"{name.lower()}_base"] = int(base, 16)
    return found
