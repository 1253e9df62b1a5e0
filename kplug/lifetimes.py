"""Remembered values and their lifetimes. A function whose value is expensive declares the lifetime itself:

    @remembered(UNTIL_RESUMED)
    def modules_of(kernel: Kernel) -> Modules: ...

makes one value for each kernel (and for each set of further arguments, which must be hashable). The first argument has
a `Memo`, its own or the one of the owner it belongs to. Code that notices that the target ran or that files changed
calls `Memo.forget`, or gives `Memo.notice` the current state.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Any, Protocol, TypeVar, cast


class Lifetime(Enum):
    """Until when a remembered value holds."""

    FOR_EVER = "for ever"
    UNTIL_RESUMED = "until the target runs, or its memory is changed"
    UNTIL_FILES_CHANGE = "until other files are loaded, or a file changes"


FOR_EVER, UNTIL_RESUMED, UNTIL_FILES_CHANGE = Lifetime


class Memo:
    """The remembered values of one owner, by their lifetimes."""

    def __init__(self) -> None:
        # Keyed by the lifetimes' values: hashing an Enum costs as much as the rest of the look-up.
        self.values: dict[str, dict[object, Any]] = {lifetime.value: {} for lifetime in Lifetime}
        #: Increased whenever something is forgotten, for comparison by what was derived from remembered values.
        self.generation = 0
        self._states: dict[str, object] = {}

    def notice(self, lifetime: Lifetime, state: object) -> bool:
        """Drop the values of this lifetime if `state` differs from the last one; returns whether it does."""
        if self._states.get(lifetime.value, self) == state:
            return False
        self._states[lifetime.value] = state
        self.forget(lifetime)
        return True

    def forget(self, *lifetimes: Lifetime) -> None:
        """Drop the values of these lifetimes."""
        self.generation += 1
        for lifetime in lifetimes:
            self.values[lifetime.value].clear()


class Owner(Protocol):
    """Something with a memo: a kernel, a front end's host, or what belongs to one of them."""

    @property
    def memo(self) -> Memo: ...


Make = TypeVar("Make", bound=Callable[..., Any])


def remembered(until: Lifetime) -> Callable[[Make], Make]:
    """A function or method of an `Owner` that is called once for the same arguments as long as its value holds.

    What it raises is not remembered.
    """

    lifetime = until.value

    def decorate(make: Make) -> Make:
        @wraps(make)
        def remembering(owner: Owner, *arguments: object) -> Any:
            values, key = owner.memo.values[lifetime], (make, owner, *arguments)
            try:
                return values[key]
            except KeyError:
                pass
            value = values[key] = make(owner, *arguments)
            return value

        return cast(Make, remembering)

    return decorate


def is_remembered(function: Callable[..., Any], owner: Owner, *arguments: object) -> bool:
    """Whether a `remembered` function would not have to be called for these arguments."""
    key = (getattr(function, "__wrapped__", function), owner, *arguments)
    return any(key in values for values in owner.memo.values.values())
