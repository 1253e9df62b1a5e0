"""Where the walk of a stack comes to another one: an interrupt's, an exception's, the task's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Callable, Optional, Protocol

from kplug.target import StackBounds

StackAt = Callable[[int], Optional[StackBounds]]


class _Placed(Protocol):
    """What a frame has: its number and its stack pointer or, if that is 0, the place of its frame record."""

    @property
    def number(self) -> int: ...

    @property
    def sp(self) -> int: ...

    @property
    def record(self) -> int: ...


def stacks_entered(frames: Iterable[_Placed], stack_at: StackAt) -> Mapping[int, StackBounds]:
    """The stacks that frames lie on, innermost first, each by the number of its first frame."""
    found: dict[int, StackBounds] = {}
    now: StackBounds | None = None
    for frame in frames:
        place = frame.sp or frame.record
        if not place or (now is not None and now.start <= place <= now.end):
            continue
        held = stack_at(place)
        if held is not None and held != now:
            found[frame.number] = now = held
    return found
