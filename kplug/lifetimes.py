"""What is remembered, and until when: each value that costs something to make says so where it is made.

    @remembered(UNTIL_MOVED)
    def modules_of(kernel: Kernel) -> Modules: ...

makes one value for each kernel (and for each of the further arguments, which have to be hashable). The first argument
owns a `Memo`, or stands on an owner and shares its one. Whoever notices that the target ran or that files changed calls
`Memo.forget`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Any, Protocol, TypeVar, cast


class Lifetime(Enum):
    """Until when a remembered value holds."""

    FOR_EVER = "for ever"
    UNTIL_MOVED = "until the target runs, or its memory is changed"
    UNTIL_FILES_CHANGE = "until other files are loaded, or a file changes"


FOR_EVER, UNTIL_MOVED, UNTIL_FILES_CHANGE = Lifetime


class Memo:
    """The remembered values of one owner, by their lifetimes."""

    def __init__(self) -> None:
        # By the lifetimes' words: an Enum's own hash costs as much as all else of a remembered answer.
        self.values: dict[str, dict[object, Any]] = {lifetime.value: {} for lifetime in Lifetime}
        #: Grows whenever something was forgotten: what was made of remembered values compares it.
        self.generation = 0

    def forget(self, *lifetimes: Lifetime) -> None:
        """Drop the values of these lifetimes."""
        self.generation += 1
        for lifetime in lifetimes:
            self.values[lifetime.value].clear()


class Owner(Protocol):
    """What has a memo: a kernel, a front end's host, or what stands on one of them."""

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
