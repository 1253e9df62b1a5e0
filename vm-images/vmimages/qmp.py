"""A small client of QEMU's machine protocol: one command at a time, events kept aside."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import VMError

_LINE_LIMIT = 16 << 20
_POLL = 0.1


class QMPError(VMError):
    """QEMU refused a command, or the connection broke."""


class QMPClient:
    """A connection to a QMP server on a unix socket."""

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        self.timeout = timeout
        # Asynchronous messages that came since somebody looked; the oldest are dropped if nobody does.
        self.events: deque[dict[str, Any]] = deque(maxlen=1000)
        self._buffer = b""
        self._count = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(str(path))
            if "QMP" not in self._receive(time.monotonic() + timeout):
                raise QMPError(f"{path}: no QMP server")
            self.execute("qmp_capabilities")
        except OSError as error:
            self.close()
            raise QMPError(f"{path}: {error}") from None
        except QMPError:
            self.close()
            raise

    def __enter__(self) -> QMPClient:
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; QEMU runs on."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def execute(self, command: str, timeout: float | None = None, **arguments: Any) -> Any:
        """Run a command and give what it returns. Underscores in the names of arguments stand for hyphens."""
        self._count += 1
        message: dict[str, Any] = {"execute": command, "id": self._count}
        if arguments:
            message["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise QMPError(f"{command}: the connection to QEMU broke ({error})") from None
        while True:
            answer = self._receive(deadline)
            if "event" in answer:
                self.events.append(answer)
            elif answer.get("id") != self._count:
                continue  # the late answer to a command that was given up
            elif "error" in answer:
                error_text = answer["error"].get("desc") if isinstance(answer["error"], dict) else answer["error"]
                raise QMPError(f"{command}: {error_text}")
            else:
                return answer.get("return")

    def stop(self) -> None:
        """Stop all CPUs."""
        self.execute("stop")

    def cont(self) -> None:
        """Let them run."""
        self.execute("cont")

    def status(self) -> str:
        """`running`, `paused`, `prelaunch`, `debug` (a debugger stopped it), ..."""
        return str(self.execute("query-status")["status"])

    def monitor(self, command: str, cpu: int = 0) -> str:
        """A command of the human monitor, such as `info registers -a`; its text. Each runs in a monitor of its own:
        a `cpu 1` before has no effect, `cpu` says as which CPU it is to look."""
        text = self.execute("human-monitor-command", command_line=command, cpu_index=cpu)
        return str(text).replace("\r\n", "\n")

    def dump(
        self,
        path: Path,
        format: str = "elf",
        paging: bool = False,
        timeout: float = 600.0,
        update: Callable[[float], None] = lambda fraction: None,
    ) -> None:
        """Write the guest's memory to a file. QEMU stops the guest for it and lets it go on as it was."""
        arguments: dict[str, Any] = {"paging": paging, "protocol": f"file:{path}", "detach": True}
        if format != "elf":
            arguments["format"] = format
        self.execute("dump-guest-memory", **arguments)
        deadline = time.monotonic() + timeout
        while True:
            state = self.execute("query-dump")
            if state["status"] == "completed":
                return
            if state["status"] == "failed":
                raise QMPError(f"dump-guest-memory: writing {path} failed")
            if time.monotonic() > deadline:
                raise QMPError(f"dump-guest-memory: not done after {timeout:.0f} s")
            update(state["completed"] / state["total"] if state["total"] else 0.0)
            time.sleep(_POLL)

    def dump_formats(self) -> list[str]:
        """The formats that this QEMU can write: elf, kdump-zlib, ..."""
        return [str(name) for name in self.execute("query-dump-guest-memory-capability")["formats"]]

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
                data = self._socket.recv(1 << 16)
            except (TimeoutError, socket.timeout):
                raise QMPError("QEMU gave no answer in time") from None
            except OSError as error:
                raise QMPError(f"the connection to QEMU broke ({error})") from None
            if not data:
                raise QMPError("QEMU closed the connection")
            self._buffer += data
            if len(self._buffer) > _LINE_LIMIT:
                raise QMPError("QEMU's answer is too long")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise QMPError(f"not a QMP message: {line[:60]!r}")
        return answer
