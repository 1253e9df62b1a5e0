"""Reading a target's memory: what can go wrong, and the two shapes of reader that the core uses."""

from __future__ import annotations

from typing import Callable

from kplug.errors import TargetError

# Bytes at an address. UnmappedError where nothing is mapped; another TargetError where nothing can be read at all.
Read = Callable[[int, int], bytes]


class UnmappedError(TargetError):
    """Nothing is mapped at the address; other addresses may well be readable."""


def try_read(read: Read, address: int, size: int) -> bytes | None:
    """The bytes, or None where nothing is mapped. A target that cannot be asked at all still raises TargetError."""
    try:
        data = read(address, size)
    except UnmappedError:
        return None
    return data if len(data) == size else None
