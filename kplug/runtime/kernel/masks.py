"""The kernel's bit masks."""

from __future__ import annotations

from collections.abc import Iterator

import drgn


def numbers_in(bits: drgn.Object, count: int) -> Iterator[int]:
    """The numbers below `count` of the bits that are set in an array of words. Errors are drgn's."""
    width = 8 * drgn.sizeof(bits[0])
    for first in range(0, count, width):
        word: int = bits[first // width].value_()
        yield from (first + bit for bit in range(min(width, count - first)) if word >> bit & 1)
