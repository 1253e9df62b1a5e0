"""The channel to the guest's init: a shell command goes in, its output comes out."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

from .errors import GuestGone, VMError

_HELLO = b"kplug-guest 1"
_DONE = re.compile(rb"done (\d+) (\d+)")
_MAX_OUTPUT = 256 << 20
_POLL = 0.5


class Control:
    """A connection to the guest. Nothing comes before the guest has booted."""

    def __init__(self, path: Path) -> None:
        self._buffer = bytearray()
        self._ready = False
        # The command whose answer is still to come: one that was given up on while a debugger held the guest, say.
        self._asked: str | None = None
        self._size: int | None = None
        self._status = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise VMError(f"{path}: {error}") from None

    def close(self) -> None:
        """End the connection; the guest waits for the next."""
        with contextlib.suppress(OSError):
            self._socket.close()

    @property
    def ready(self) -> bool:
        """Whether the guest has said that it is ready."""
        return self._ready

    def wait_ready(self, timeout: float, tick: Callable[[], None] = lambda: None) -> None:
        """Wait for the guest's greeting. `tick` is called about twice a second, and may raise to give up."""
        deadline = time.monotonic() + timeout
        while not self._ready:
            tick()
            if time.monotonic() > deadline:
                raise VMError(f"the guest isn't ready after {timeout:.0f} s")
            line = self._line(min(deadline, time.monotonic() + _POLL))
            if line is not None:
                self._ready = line == _HELLO

    def send_last(self, command: str) -> None:
        """A command that the guest will not answer, since it ends this kernel; the next one greets anew."""
        try:
            self._socket.sendall(command.encode() + b"\n")
        except OSError as error:
            raise GuestGone(f"the guest is gone ({error})") from None
        self._ready = False
        self._buffer.clear()

    def run(self, command: str, timeout: float = 600.0) -> tuple[int, bytes]:
        """The exit status and the output (of both kinds) of a shell command in the guest."""
        if "\n" in command:
            raise VMError("a command for the guest is one line")
        if not self._ready:
            raise VMError("the guest isn't ready")
        deadline = time.monotonic() + timeout
        if self._asked is not None:
            self._answer(deadline, timeout)
        try:
            self._socket.sendall(command.encode() + b"\n")
        except OSError as error:
            raise GuestGone(f"the guest is gone ({error})") from None
        self._asked = command
        return self._answer(deadline, timeout)

    def _answer(self, deadline: float, timeout: float) -> tuple[int, bytes]:
        """The answer to what was asked; if it doesn't come in time it can be waited for again."""
        late = f"the guest gave no answer to {self._asked!r} in {timeout:.0f} s; is it stopped?"
        if self._size is None:
            line = self._line(deadline)
            if line is None:
                raise VMError(late)
            match = _DONE.fullmatch(line)
            if match is None or int(match[2]) > _MAX_OUTPUT:
                raise VMError(f"the guest answered {line[:60]!r} to {self._asked!r}")
            self._status, self._size = int(match[1]), int(match[2])
        while len(self._buffer) < self._size:
            if not self._receive(deadline):
                raise VMError(late)
        output = bytes(self._buffer[: self._size])
        del self._buffer[: self._size]
        self._asked = self._size = None
        return self._status, output

    def _line(self, deadline: float) -> bytes | None:
        while b"\n" not in self._buffer:
            if not self._receive(deadline):
                return None
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return bytes(line)

    def _receive(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(1 << 20)
        except (TimeoutError, socket.timeout):
            return False
        except OSError as error:
            raise GuestGone(f"the guest is gone ({error})") from None
        if not data:
            raise GuestGone("the guest is gone")
        self._buffer += data
        return True
