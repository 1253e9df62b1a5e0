"""Which function an event is blamed on, and the signature by which two of the same are known."""

from __future__ import annotations

from collections.abc import Iterable

from kplug.log.event import Frame
from kplug.log.machinery import is_machinery
from kplug.log.names import normal

# Enough to tell events apart; with more, inlining that differs between builds makes two of one.
_FUNCTIONS = 3


def significant(frames: Iterable[Frame], passed_over: tuple[str, ...] = ()) -> list[str]:
    """The functions of the frames, without those of the reporting machinery above the first that is not of it.

    Questionable frames count only if no other frames are there.
    """
    named = [frame for frame in frames if frame.function]
    certain = [frame for frame in named if not frame.questionable] or named
    functions = [normal(frame.function or "") for frame in certain]
    while functions and is_machinery(functions[0], passed_over):
        functions.pop(0)
    return functions


def signature(kind: str, functions: Iterable[str]) -> str:
    """The kind and its first functions: the same for each build, boot and CPU."""
    different = list(dict.fromkeys(functions))
    return ":".join((kind, *different[:_FUNCTIONS]))
