"""Where the walk of a stack comes to another one: an interrupt's, an exception's, the task's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Callable, Optional, Protocol

from kplug.target import StackBounds

StackAt = Callable[[int], Optional[StackBounds]]


class _Placed(Protocol):
    """What a frame has: its number and its stack pointer, 0 if that is not known."""

    @property
    def number(self) -> int: ...

    @property
    def sp(self) -> int: ...


def stacks_entered(frames: Iterable[_Placed], stack_at: StackAt) -> Mapping[int, StackBounds]:
    """The stacks that frames lie on, innermost first, each by the number of its first frame."""
    found: dict[int, StackBounds] = {}
    now: StackBounds | None = None
    for frame in frames:
        if not frame.sp or (now is not None and now.start <= frame.sp <= now.end):
            continue
        held = stack_at(frame.sp)
        if held is not None and held != now:
            found[frame.number] = now = held
    return found
