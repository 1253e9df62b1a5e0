"""Waiting for long work: a progress line that is removed at the end, and Ctrl-C that always works."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

# Work that ends sooner shows no line.
PATIENCE_SECONDS = 1.0
_REDRAW_SECONDS = 0.1
_BAR_WIDTH = 24
# Whether work may run in a thread of its own: not in a debugger that can be used from one thread only (gdb).
_threads = True


def without_threads() -> None:
    """Let `waiting` work in the calling thread, for as long as this process lives."""
    global _threads
    _threads = False


class Stream(Protocol):
    """A stream that the line can be written to."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...

    def isatty(self) -> bool: ...


class Progress:
    """A progress line on standard error, redrawn and finally removed; nothing if that is not a suitable terminal.

    Used in a `with`; `update` takes the fraction that is done, or None if that is not known. `stream` is the host's own
    standard error, where that is not Python's.
    """

    def __init__(self, what: str, stream: Stream | None = None) -> None:
        self._what = what
        self._stream: Stream | None = stream if stream is not None else sys.stderr
        self._started = self._drawn = time.monotonic()
        self._shown = False
        able = os.environ.get("TERM", "dumb") not in ("dumb", "")
        self._terminal = able and self._stream is not None and self._stream.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._stream is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False

    def update(self, fraction: float | None = None, what: str | None = None) -> None:
        """Redraw it, if it is time to; with other words, if `what` is given."""
        self._what = what if what is not None else self._what
        now = time.monotonic()
        if self._stream is None or not self._terminal:
            return
        if now - self._started < PATIENCE_SECONDS or now - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn, self._shown = now, True
        if fraction is None:
            text = f"{self._what} ... {now - self._started:.0f} s"
        else:
            done = round(min(max(fraction, 0.0), 1.0) * _BAR_WIDTH)
            text = f"{self._what} [{'#' * done}{'.' * (_BAR_WIDTH - done)}] {fraction:4.0%}"
        self._stream.write(f"\r{text}\x1b[K")
        self._stream.flush()


def waiting(what: str, work: Callable[[], T]) -> T:
    """What `work` returns or raises. It runs in a thread, so that Ctrl-C works while it is inside a library.

    After KeyboardInterrupt the work goes on in its thread: the objects that it works on must not be used any more.
    """
    if not _threads or threading.current_thread() is not threading.main_thread():
        return work()
    outcome: list[Any] = []
    failure: list[BaseException] = []
    done = threading.Event()

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # raised again in the waiting thread
            failure.append(error)
        finally:
            done.set()

    # A daemon: the process may end without it.
    threading.Thread(target=run, name=what, daemon=True).start()
    with Progress(what) as progress:
        while not done.wait(_REDRAW_SECONDS):
            progress.update()
    if failure:
        raise failure[0]
    result: T = outcome[0]
    return result
