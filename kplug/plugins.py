"""Locators of third parties: entry points of the group `kplug.locators`.

Each names a callable that takes the `Session` and returns a `Locator` (kplug.resolver), or None if it has nothing to
say about that kernel. docs/extending.md has an example.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kplug.entry_points import declared_names
from kplug.errors import InputError
from kplug.resolver import Locator

GROUP = "kplug.locators"


def installed_locators(session: object, path: Sequence[str] | None = None) -> tuple[Locator, ...]:
    """The locators of all installed plugins, in the order of their names; each is made for the `Session`.

    A broken plugin is an InputError that names it.
    """
    folders = list(sys.path if path is None else path)
    if not declared_names(GROUP, folders):
        return ()
    from importlib.metadata import distributions

    found = []
    for distribution in distributions(path=folders):
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
