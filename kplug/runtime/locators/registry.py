"""The locators of a kernel that drgn has open: each file in this folder declares its own.

Sessions get all of them here, so a new kind of address is one more file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Optional

from kplug.errors import TargetError
from kplug.kinds import Kind
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.resolver import Locator
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.threads.user_space import UserSpace

# Makes the locator for a kernel, and for the program that user addresses belong to; None if there is nothing to locate.
Maker = Callable[[Kernel, UserSpace], Optional[Locator]]


class _Declared(NamedTuple):
    kind: Kind
    make: Maker


class _Unless:
    """A locator that is skipped if a kind that replaces its own has a layer: it would mistake the memory for what it
    only looks like, or warn about it."""

    def __init__(self, locator: Locator, others: Sequence[Locator]) -> None:
        self._locator = locator
        self._others = others

    def locate(self, address: int) -> Iterable[Layer]:
        return () if any(_answers(other, address) for other in self._others) else self._locator.locate(address)


def _answers(locator: Locator, address: int) -> bool:
    try:
        return any(True for _ in locator.locate(address))
    except TargetError:  # it reports that itself, when it is asked
        return False


_declared: list[_Declared] = []


def locates(kind: Kind, make: Maker) -> None:
    """Declare the locator of a kind."""
    _declared.append(_Declared(kind, make))


def locators(kernel: Kernel, user: UserSpace | None = None, *, without: Kind | None = None) -> tuple[Locator, ...]:
    """The locators that come after the images, from the widest kind to the narrowest; not those of `without`."""
    load()
    user = user or UserSpace(kernel, None)
    made: list[tuple[Kind, Locator]] = []
    for kind, make in sorted(_declared, key=lambda each: each.kind.order):
        locator = make(kernel, user) if kind is not without else None
        if locator is not None:
            made.append((kind, locator))
    found = []
    for kind, locator in made:
        others = [other for replacing, other in made if kind.name in replacing.replaces]
        found.append(_Unless(locator, others) if others else locator)
    return tuple(found)


def load() -> None:
    """Import every file in this folder: each declares its kind, and its locator if it has one."""
    for name in sorted(os.listdir(os.path.dirname(__file__))):
        if name.endswith(".py"):
            import_module(f"{__package__}.{name[: -len('.py')]}")
