"""Notices when what was read may no longer hold: the target ran, files were loaded, the connection was closed."""

from __future__ import annotations

from typing import Any

import gdb

# Those that gdb 12 has; later ones are there in later versions (gdb doc, "Events In Python").
_EVENTS = (
    "cont",
    "stop",
    "exited",
    "inferior_call",
    "memory_changed",
    "register_changed",
    "new_objfile",
    "free_objfile",
    "clear_objfiles",
    "new_inferior",
    "inferior_deleted",
    "connection_removed",
    "executable_changed",
)

_generation = 0
_connected: list[Any] = []


def generation() -> int:
    """A number that grows whenever something may have changed."""
    return _generation


def _changed(event: object) -> None:
    global _generation
    _generation += 1


def start() -> None:
    """Begin to listen."""
    for name in _EVENTS:
        registry = getattr(gdb.events, name, None)
        if registry is not None:
            registry.connect(_changed)
            _connected.append(registry)


def stop() -> None:
    """Stop listening: the modules are about to be reloaded."""
    for registry in _connected:
        registry.disconnect(_changed)
    _connected.clear()
