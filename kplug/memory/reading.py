"""Reading a target's memory: the errors, and the two kinds of reader that the core uses."""

from __future__ import annotations

from typing import Callable

from kplug.arch.types.page_tables import ReadEntry
from kplug.arch.types.word import ByteOrder
from kplug.errors import TargetError

# Reads bytes at an address. FaultError if there is nothing; another TargetError if nothing can be read at all.
Read = Callable[[int, int], bytes]


class FaultError(TargetError):
    """Nothing is mapped at the address, or the dump does not contain it; other addresses may be readable."""


class MissingPartError(FaultError):
    """The address is in a file of a split dump that is not there."""


class TruncatedError(FaultError):
    """The dump is truncated or broken where it would have the address."""


def entry_reader(read_physical: Read, size: int, order: ByteOrder) -> ReadEntry:
    """What reads the entry of a page table at a physical address, as a number. TargetError if it cannot be read."""

    def entry(physical: int) -> int:
        try:
            return int.from_bytes(read_physical(physical, size), order)
        except TargetError as error:
            kind = MissingPartError if isinstance(error, MissingPartError) else TargetError
            raise kind(f"the page table entry at physical {physical:#x} cannot be read: {error}") from None

    return entry


def try_read(read: Read, address: int, size: int) -> bytes | None:
    """The bytes, or None if nothing is mapped. A target that cannot be read at all still raises TargetError."""
    try:
        data = read(address, size)
    except FaultError:
        return None
    return data if len(data) == size else None
