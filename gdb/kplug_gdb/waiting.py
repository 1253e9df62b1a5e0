"""What a command at gdb's prompt is waiting for: a line on the terminal as soon as it takes long.

gdb's Python has one thread, whose work may be in a library, or in an import: the line is drawn by another one, which
uses nothing of gdb's.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from kplug.progress import PATIENCE_SECONDS, Progress

T = TypeVar("T")

_REDRAW_SECONDS = 0.2
# What is being done, the innermost last.
_doing = ["reading the target's memory"]


@contextmanager
def doing(words: str) -> Iterator[None]:
    """Inside, this is what the line says."""
    _doing.append(words)
    try:
        yield
    finally:
        _doing.pop()


class _Terminal:
    """The terminal that gdb writes errors to, past gdb."""

    def write(self, text: str) -> int:
        return os.write(2, text.encode())

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return os.isatty(2)


class Waiting:
    """Used in a `with`: inside, the line may be shown, except while an output is handled (`each`)."""

    def __init__(self) -> None:
        self._shows = _Terminal().isatty()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._progress: Progress | None = None

    def __enter__(self) -> Waiting:
        self._resume()
        if self._shows:
            # Ctrl-C is gdb's.
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            threading.Thread(target=self._draw, name="kplug's progress", daemon=True).start()
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._pause()

    def each(self, outputs: Iterable[T]) -> Iterator[T]:
        """The outputs as they come; while one is handled, the line is not there."""
        for output in outputs:
            self._pause()
            yield output
            self._resume()

    def _resume(self) -> None:
        with self._lock:
            self._progress = Progress(_doing[-1], _Terminal()) if self._shows else None

    def _pause(self) -> None:
        with self._lock:
            if self._progress is not None:
                self._progress.__exit__()
            self._progress = None

    def _draw(self) -> None:
        self._ended.wait(PATIENCE_SECONDS)
        while not self._ended.wait(_REDRAW_SECONDS):
            with self._lock:
                if self._progress is not None:
                    self._progress.update(what=_doing[-1])
