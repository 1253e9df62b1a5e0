"""The entry points that installed distributions declare, read without `importlib.metadata`.

Importing that costs more than a whole answer, and few people have a plugin.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

_MAX_BYTES = 1 << 16


def declared_names(group: str, path: Sequence[str]) -> frozenset[str]:
    """The names in the group of all distributions that are installed in folders of `path`, which is as sys.path."""
    return frozenset(name for folder in path for text in _files(folder or ".") for name in _names(text, group))


def _names(text: str, group: str) -> Iterator[str]:
    """The names in one section of a file as configparser reads it."""
    if f"[{group}]" not in text:
        return
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        elif section == group and "=" in line and not line.startswith(("#", ";")):
            yield line.partition("=")[0].strip()


def _files(folder: str) -> Iterator[str]:
    try:
        names = [
            name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")) or name == "EGG-INFO"
        ]
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8", errors="replace") as file:
                yield file.read(_MAX_BYTES)
        except OSError:
            continue
