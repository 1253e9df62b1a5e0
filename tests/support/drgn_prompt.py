"""drgn's command line on a pseudo-terminal, typed at as a person does."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

READY = ">>> "
_SECONDS = 900.0
# Bracketed paste and the like, which the terminal swallows; colours stay.
_MODES = re.compile(r"\x1b\[\?\d+[hl]")


class Prompt:
    """`drgn WORDS...` in a terminal of 200 columns. Leaving the `with` ends it."""

    def __init__(self, words: list[str], home: Path, **environment: str) -> None:
        outside, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self._terminal = outside
        self._process = subprocess.Popen(
            [sys.executable, "-m", "drgn", *words],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            env={**os.environ, "HOME": str(home), "TERM": "xterm", "NO_COLOR": "1", **environment},
        )
        os.close(inside)
        self.greeting = self._read()

    def __enter__(self) -> Prompt:
        return self

    def __exit__(self, *rest: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def type(self, line: str) -> str:
        """Type a line; what comes until drgn asks for the next, without the echo."""
        os.write(self._terminal, line.encode() + b"\n")
        return self._read().partition("\n")[2].strip("\n")

    def _read(self) -> str:
        data, deadline = b"", time.monotonic() + _SECONDS
        while True:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"drgn did not ask for the next line: {data!r}")
            try:
                data += os.read(self._terminal, 1 << 16)
            except OSError:  # the other end is closed
                raise AssertionError(f"drgn has left: {data!r}") from None
            text = _MODES.sub("", data.decode(errors="replace")).replace("\r", "")
            if text.endswith("\n" + READY) or text == READY:
                return text[: -len(READY)]
