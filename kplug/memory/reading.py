"""Reading a target's memory: the errors, and the two kinds of reader that the core uses."""

from __future__ import annotations

from typing import Callable

from kplug.errors import TargetError

# Reads bytes at an address. UnmappedError if nothing is mapped; another TargetError if nothing can be read at all.
Read = Callable[[int, int], bytes]


class UnmappedError(TargetError):
    """Nothing is mapped at the address; other addresses may be readable."""


def try_read(read: Read, address: int, size: int) -> bytes | None:
    """The bytes, or None if nothing is mapped. A target that cannot be read at all still raises TargetError."""
    try:
        data = read(address, size)
    except UnmappedError:
        return None
    return data if len(data) == size else None
