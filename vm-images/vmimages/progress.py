"""Progress for people: one line that updates itself on a terminal, a few plain lines in a log."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

_TERMINAL_INTERVAL = 0.1
_LOG_INTERVAL = 10.0


class Progress:
    """One activity. `update()` may be called as often as one likes; `done()` ends it."""

    def __init__(self, label: str, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._quiet = quiet
        self._last = 0.0
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the activity began."""
        return time.monotonic() - self._started

    def update(self, text: str) -> None:
        """Show `text` as the state of the activity, unless something was shown a moment ago."""
        now = time.monotonic()
        if self._quiet or now - self._last < (_TERMINAL_INTERVAL if self._terminal else _LOG_INTERVAL):
            return
        self._last = now
        self._write(text)

    def done(self, text: str) -> None:
        """The activity's last state; always shown, and it stays."""
        if self._quiet:
            return
        self._write(text)
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()

    def note(self, text: str) -> None:
        """A line of its own, which stays."""
        if self._quiet:
            return
        self._stream.write(("\r\033[K" if self._terminal else "") + f"{self._label}: {text}\n")
        self._stream.flush()

    def _write(self, text: str) -> None:
        line = f"{self._label}: {text}"
        if self._terminal:
            width = max(20, shutil.get_terminal_size().columns - 1)
            self._stream.write("\r\033[K" + line[:width])
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def size_text(count: float) -> str:
    """A number of bytes in the unit that reads best."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
