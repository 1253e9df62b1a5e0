"""The functions that an event can be blamed on, and the signature by which two of the same are known."""

from __future__ import annotations

from collections.abc import Iterable

from kplug.log.event import Frame
from kplug.log.names import normal

# Enough to tell events apart; with more, inlining that differs between builds makes two of one.
_FUNCTIONS = 3


def functions_of(frames: Iterable[Frame]) -> list[str]:
    """The functions of the frames, each the same for all builds; of questionable frames only if there are no others."""
    named = [frame for frame in frames if frame.function]
    certain = [frame for frame in named if not frame.questionable] or named
    return [normal(frame.function or "") for frame in certain]


def signature(kind: str, functions: Iterable[str]) -> str:
    """The kind and its first functions: the same for each build, boot and CPU."""
    different = list(dict.fromkeys(functions))
    return ":".join((kind, *different[:_FUNCTIONS]))
