"""Importing while something else waits: prompt-toolkit takes as long to import as drgn to read debug information."""

from __future__ import annotations

import contextlib
import importlib
import threading

_threads: list[threading.Thread] = []


def start(module: str) -> None:
    """Begin to import a module. What goes wrong goes wrong again where it is really imported."""

    def load() -> None:
        with contextlib.suppress(Exception):
            importlib.import_module(module)

    thread = threading.Thread(target=load, name=f"import {module}", daemon=True)
    thread.start()
    _threads.append(thread)


def finish() -> None:
    """Wait for all of it: an interpreter that ends under an importing thread may crash."""
    while _threads:
        _threads.pop().join()
