"""Imports in the background: importing prompt-toolkit takes as long as drgn takes to read debug information."""

from __future__ import annotations

import contextlib
import importlib
import threading

_threads: list[threading.Thread] = []


def start(module: str) -> None:
    """Begin to import a module. An error is ignored: it occurs again at the real import."""

    def load() -> None:
        with contextlib.suppress(Exception):
            importlib.import_module(module)

    thread = threading.Thread(target=load, name=f"import {module}", daemon=True)
    thread.start()
    _threads.append(thread)


def finish() -> None:
    """Wait for all imports: an interpreter that exits while a thread imports may crash."""
    while _threads:
        _threads.pop().join()
