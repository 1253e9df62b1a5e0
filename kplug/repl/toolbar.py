"""The line below the prompt: the target, and the selected CPU and task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from kplug.errors import KplugError
from kplug.render.safe import safe

if TYPE_CHECKING:
    from kplug.runtime.drgn_target import DrgnTarget
    from kplug.session import Session


class Toolbar:
    """The text of the line. It is read in a thread, so that the prompt does not wait for it.

    `lock` is held while the target is used; `changed` is called, from the thread, when there is a new text.
    """

    def __init__(
        self, session: Session, target: DrgnTarget, lock: AbstractContextManager[Any], changed: Callable[[], None]
    ) -> None:
        self._target = target
        self._lock = lock
        self._changed = changed
        self._kernel = _kernel(session, target)
        self._selected: list[str] = []
        self._thread: threading.Thread | None = None

    @property
    def text(self) -> str:
        """Target, release, KASLR offset, CPU, task and frame. What is not known, or not yet, is left out."""
        return safe("  ".join([*self._kernel, *self._selected]))

    def refresh(self) -> None:
        """Begin to read the current selection."""
        self.finish()
        self._thread = threading.Thread(target=self._read, name="toolbar", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the reading in progress."""
        if self._thread is not None:
            self._thread.join()

    def _read(self) -> None:
        try:
            with self._lock:
                selected = _selected(self._target)
        except Exception:  # not reported here: a command that needs the frame reports it
            selected = []
        if selected != self._selected:
            self._selected = selected
            self._changed()


def _kernel(session: Session, target: DrgnTarget) -> list[str]:
    main = session.main
    if main is None:
        return [target.description()]
    parts = [target.description(), main.image.release or main.image.name]
    if main.placement.known:
        parts.append(f"KASLR {main.placement.kaslr_offset:+#x}" if main.placement.kaslr_offset else "no KASLR")
    return parts


def _selected(target: DrgnTarget) -> list[str]:
    try:
        thread = target.selection.thread
    except KplugError:
        return []
    parts = [] if thread.cpu is None else [f"CPU {thread.cpu}"]
    if thread.task is not None:  # otherwise this needs debug information
        parts.append(f"PID {thread.tid} {thread.comm}{' (crashed)' if thread.crashed else ''}")
    try:
        frame = target.selection.frame
    except KplugError:  # a running task
        return parts
    return [*parts, f"#{frame.number} {frame.function or hex(frame.pc)}"]
