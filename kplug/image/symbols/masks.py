"""Masks for the columns of a symbol table: one byte for each entry, 1 or 0, combined without a loop."""

from __future__ import annotations

from itertools import compress

from kplug.arch.types.word import LITTLE

# Of a mask with fewer ones than one in so many entries each is searched for.
_SPARSE = 16


def entries_of(mask: bytes | bytearray) -> list[int]:
    """The numbers of the entries where the mask is 1."""
    if mask.count(1) * _SPARSE > len(mask):
        return list(compress(range(len(mask)), mask))
    found: list[int] = []
    entry = mask.find(1)
    while entry >= 0:
        found.append(entry)
        entry = mask.find(1, entry + 1)
    return found


def both(mask: bytes | bytearray, other: bytes) -> bytes:
    """Where both masks are 1."""
    ones = int.from_bytes(mask, LITTLE) & int.from_bytes(other, LITTLE)
    return ones.to_bytes(len(mask), LITTLE)


def either(mask: bytes | bytearray, other: bytes) -> bytes:
    """Where one of the masks is 1."""
    ones = int.from_bytes(mask, LITTLE) | int.from_bytes(other, LITTLE)
    return ones.to_bytes(len(mask), LITTLE)


def without_mask(mask: bytes | bytearray, other: bytes) -> bytes:
    """Where the first mask is 1 and the other 0."""
    return both(mask, other.translate(b"\1\0" + bytes(254)))
