"""The toolbar without a terminal: names come from memory, and are made safe."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

from kplug.errors import TargetError
from kplug.repl.toolbar import Toolbar


class _Selection:
    def __init__(self, comm: str, runs: bool = False) -> None:
        self.thread = SimpleNamespace(tid=7, comm=comm, cpu=1, crashed=True, task=object())
        self._runs = runs

    @property
    def frame(self) -> Any:
        if self._runs:
            raise TargetError("it is running")
        return SimpleNamespace(number=2, function="evil\x07", pc=0x1000)


def _text(selection: _Selection) -> str:
    target = SimpleNamespace(selection=selection, description=lambda: "vmcore x")
    changes: list[None] = []
    toolbar = Toolbar(
        cast(Any, SimpleNamespace(main=None)), cast(Any, target), threading.RLock(), lambda: changes.append(None)
    )
    assert toolbar.text == "vmcore x"
    toolbar.refresh()
    toolbar.finish()
    assert changes == [None]
    return toolbar.text


def test_task_and_frame_are_shown_safely() -> None:
    assert _text(_Selection("\x1b[31mred")) == "vmcore x  CPU 1  PID 7 \\x1b[31mred (crashed)  #2 evil\\x07"


def test_a_task_without_frames_is_still_shown() -> None:
    assert _text(_Selection("init", runs=True)) == "vmcore x  CPU 1  PID 7 init (crashed)"
