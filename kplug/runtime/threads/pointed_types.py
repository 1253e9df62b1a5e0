"""The structures that the code at a frame works with, by the variables that the debug information has for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from drgn import TypeKind

from kplug.errors import TargetError
from kplug.runtime.threads.selection import Selection

_KEYWORDS = {TypeKind.STRUCT: "struct", TypeKind.UNION: "union"}


def pointed_types(selection: Selection) -> Sequence[str]:
    """The structures that variables of the selected frame point to, and of the functions that it is inlined into."""
    try:
        selected = selection.frame
        frames = [each for each in selection.frames() if each.number >= selected.number and each.pc == selected.pc]
    except TargetError:
        return ()
    inlined = list(takewhile(lambda each: each.is_inline, frames))
    return list(dict.fromkeys(name for each in frames[: len(inlined) + 1] for name in _of(each.drgn_frame)))


def _of(frame: Any) -> Iterator[str]:
    try:
        names = frame.locals() if frame is not None else ()
        types = [frame[name].type_ for name in names]
    except Exception:  # libdw rejects some debug information; a variable may be absent
        return
    for type_ in types:
        while type_.kind == TypeKind.TYPEDEF:
            type_ = type_.type
        target = type_.type if type_.kind == TypeKind.POINTER else None
        while target is not None and target.kind == TypeKind.TYPEDEF:
            target = target.type
        if target is not None and target.kind in _KEYWORDS and target.tag:
            yield f"{_KEYWORDS[target.kind]} {target.tag}"
