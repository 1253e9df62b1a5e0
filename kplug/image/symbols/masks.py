"""Masks over the columns of a symbol table: one byte for each entry, 1 or 0, combined without a loop."""

from __future__ import annotations


def both(mask: bytes | bytearray, other: bytes) -> bytes:
    """Where both masks are 1."""
    ones = int.from_bytes(mask, "little") & int.from_bytes(other, "little")
    return ones.to_bytes(len(mask), "little")


def without_mask(mask: bytes | bytearray, other: bytes) -> bytes:
    """Where the first mask is 1 and the other 0."""
    return both(mask, other.translate(b"\1\0" + bytes(254)))
