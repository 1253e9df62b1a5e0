"""Locators of third parties: entry points of the group `kplug.locators`.

Each names a callable that takes the `Session` and returns a `Locator` (kplug.resolver), or None if it has nothing to
say about that kernel. docs/extending.md has an example.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from kplug.errors import InputError
from kplug.resolver import Locator

GROUP = "kplug.locators"


def installed_locators(session: object, path: Sequence[str] | None = None) -> tuple[Locator, ...]:
    """The locators of all installed plugins, in the order of their names; each is made for the `Session`.

    A broken plugin is an InputError that names it.
    """
    if not any(_declares(folder) for folder in (sys.path if path is None else path)):
        return ()
    # Importing this costs more than a whole answer, and few people have a plugin: hence the look beforehand.
    from importlib.metadata import distributions

    found = []
    for distribution in distributions(path=list(sys.path if path is None else path)):
        found += [entry for entry in distribution.entry_points if entry.group == GROUP]
    locators = []
    for entry in sorted(found, key=lambda entry: entry.name):
        try:
            locator = entry.load()(session)
        except Exception as error:  # a plugin may raise anything
            raise InputError(f"plugin {entry.name} ({entry.value}): {type(error).__name__}: {error}") from None
        if locator is not None:
            locators.append(locator)
    return tuple(locators)


def _declares(folder: str) -> bool:
    """Whether a distribution installed in that folder of sys.path has entry points of the group."""
    return any(f"[{GROUP}]".encode() in text for text in _entry_point_files(folder or "."))


def _entry_point_files(folder: str) -> Iterator[bytes]:
    try:
        names = [name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info"))]
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
                yield file.read(1 << 16)
        except OSError:
            continue
