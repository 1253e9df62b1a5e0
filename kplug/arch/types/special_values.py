"""The rows of a table of values that the kernel writes on purpose."""

from __future__ import annotations

from kplug.frozen import Frozen


class Poison(Frozen):
    """One value. The meaning of `value` depends on the table: an offset, a byte, 32 bits or 64 bits."""

    value: int
    name: str
    meaning: str
    source: str
    versions: str = ""
    guess: bool = False
