"""The kernel's bit masks."""

from __future__ import annotations

from collections.abc import Iterator

import drgn

from kplug.errors import TargetError


def numbers_in(bits: drgn.Object, limit: str) -> Iterator[int]:
    """The numbers of the bits that are set in an array of words, below the kernel's variable `limit` if it has that.

    TargetError if there are not so many bits; other errors are drgn's.
    """
    room: int = 8 * drgn.sizeof(bits)
    try:
        count: int = bits.prog_[limit].value_()
    except LookupError:
        count = room
    if not 0 < count <= room:
        raise TargetError(f"{limit} is {count}, and the kernel has room for {room}")
    width = 8 * drgn.sizeof(bits[0])
    for first in range(0, count, width):
        word: int = bits[first // width].value_()
        yield from (first + bit for bit in range(min(width, count - first)) if word >> bit & 1)
