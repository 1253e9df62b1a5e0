"""Reading a target's memory: the errors, and the two kinds of reader that the core uses."""

from __future__ import annotations

from typing import Callable

from kplug.errors import TargetError

# Reads bytes at an address. FaultError if there is nothing; another TargetError if nothing can be read at all.
Read = Callable[[int, int], bytes]


class FaultError(TargetError):
    """Nothing is mapped at the address, or the dump does not contain it; other addresses may be readable."""


class TruncatedError(FaultError):
    """The dump is truncated or broken where it would have the address."""


def try_read(read: Read, address: int, size: int) -> bytes | None:
    """The bytes, or None if nothing is mapped. A target that cannot be read at all still raises TargetError."""
    try:
        data = read(address, size)
    except FaultError:
        return None
    return data if len(data) == size else None
