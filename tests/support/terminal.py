"""A person at a terminal: types, and waits for what is to be seen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from support.paths import ROOT

KPLUG = (sys.executable, "-m", "kplug")
TIMEOUT = 600.0

# Colours, cursor movements, window titles; and what else a terminal does not show.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[=>78]|[\r\x07\x08]")
_FORWARD = re.compile(r"\x1b\[(\d*)C")
# The prompt with the toolbar below it: ready for what is typed. And where there is no toolbar.
PROMPT, PLAIN_PROMPT = r"kplug>\s+vmcore", r"kplug> "
CTRL_C, CTRL_D, CTRL_Z, CTRL_R, TAB, ENTER, UP = "\x03", "\x04", "\x1a", "\x12", "\t", "\r", "\x1b[A"


class Terminal:
    """A program on a terminal of its own. `shown` is all that it wrote, without control sequences."""

    def __init__(self, pid: int, file: int) -> None:
        self.pid = pid
        self._file = file
        self.raw = b""
        self._seen = 0
        self.status: int | None = None
        self.prompt = PROMPT

    @property
    def shown(self) -> str:
        text = _FORWARD.sub(lambda match: " " * int(match.group(1) or 1), self.raw.decode("utf-8", "replace"))
        return _CONTROL.sub("", text)

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def sees(self, pattern: str, timeout: float = TIMEOUT) -> str:
        """Wait until the pattern is seen, after what was seen before; returns what came up to its end."""
        deadline = time.monotonic() + timeout
        while True:
            shown = self.shown
            match = re.compile(pattern, re.MULTILINE).search(shown, self._seen)
            if match:
                before, self._seen = self._seen, match.end()
                return shown[before : match.end()]
            if not self._more(deadline):
                said = re.sub(r"\n\s*\n", "\n", shown[self._seen :])
                raise AssertionError(f"{pattern!r} is not to be seen in:\n{said}")

    def is_asked(self) -> str:
        """Wait for the prompt."""
        return self.sees(self.prompt)

    def enters(self, line: str, pattern: str) -> str:
        """Type a line, and wait for the pattern and the next prompt; returns all of it."""
        self.type(line + ENTER)
        return self.sees(pattern) + self.is_asked()

    def ends(self, timeout: float = TIMEOUT) -> int:
        """Wait for the end; returns the exit status."""
        deadline = time.monotonic() + timeout
        while self._more(deadline):
            pass
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise AssertionError(f"it does not end:\n{self.shown[-2000:]}")
            else:
                time.sleep(0.02)
        return self.status

    def _more(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._file], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._file, 65536)
        except OSError:  # the program has ended
            return False
        if b"\x1b[6n" in data:  # asked for the cursor's place
            os.write(self._file, b"\x1b[1;1R")
        self.raw += data
        return bool(data)


@contextlib.contextmanager
def terminal(
    *words: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    rows: int = 40,
    columns: int = 120,
    program: Sequence[str] = KPLUG,
) -> Iterator[Terminal]:
    """A program on a terminal, with `words`, in `folder`; killed at the end if it still runs."""
    command = [*program, *words]
    variables = environment_of(folder, environment)
    pid, file = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(command[0], command, variables)
    fcntl.ioctl(file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    person = Terminal(pid, file)
    try:
        yield person
    finally:
        if person.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        os.close(file)


def environment_of(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment without what the person who runs the tests has set."""
    is_zero_filled = ("NO_COLOR", "PAGER", "LESS", "KPLUG_PAGER", "KPLUG_TRACEBACK", "DEBUGINFOD_URLS")
    found = {name: value for name, value in os.environ.items() if name not in is_zero_filled}
    found.update(TERM="xterm-256color", LC_ALL="C.UTF-8", SHELL="/bin/sh", HOME=str(folder))
    found.update(XDG_STATE_HOME=str(folder / "state"), PYTHONPATH=str(ROOT))
    return {**found, **(more or {})}
