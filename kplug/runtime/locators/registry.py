"""The locators of a kernel that drgn holds: each file of this folder declares its own.

Whoever makes a session asks for all of them here, so a new kind of address is one more file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple, Optional

from kplug.kinds import Kind
from kplug.resolver import Locator
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.threads.user_space import UserSpace

# Makes the locator for a kernel, and for the program whose own addresses are meant; None if it has nothing to say.
Maker = Callable[[Kernel, UserSpace], Optional[Locator]]


class _Declared(NamedTuple):
    order: int
    make: Maker


_declared: list[_Declared] = []


def locates(kind: Kind, make: Maker) -> None:
    """Declare the locator of a kind."""
    _declared.append(_Declared(kind.order, make))


def locators(kernel: Kernel, user: UserSpace | None = None) -> tuple[Locator, ...]:
    """What is asked of an address after the images, from the widest kind of thing to the narrowest."""
    load()
    user = user or UserSpace(kernel, None)
    made = (declared.make(kernel, user) for declared in sorted(_declared, key=lambda each: each.order))
    return tuple(locator for locator in made if locator is not None)


def load() -> None:
    """Import every file of this folder: each declares its kind, and its locator if it has one."""
    for found in iter_modules([os.path.dirname(__file__)]):
        import_module(f"{__package__}.{found.name}")
