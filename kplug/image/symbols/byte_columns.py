"""A number that every entry of a symbol table has, as a column for each of its bytes: masks come out without a loop."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

from kplug.arch.types.word import LITTLE
from kplug.image.symbols.masks import both, either

# The cases that `in_blocks` distinguishes.
BLOCK_BITS = 16
_ALL_BITS = 64


class ByteColumns:
    """The bytes of an array's numbers; number 0 is the lowest."""

    def __init__(self, numbers: array[int]) -> None:
        self._bytes = numbers.tobytes()
        self._width = numbers.itemsize
        self._count = len(numbers)

    def _column(self, number: int) -> bytes:
        return self._bytes[number if sys.byteorder == LITTLE else self._width - 1 - number :: self._width]

    def nonzero(self, lowest: int = 0) -> bytes:
        """The entries of which a byte from `lowest` up is not 0."""
        bits = 0
        for number in range(lowest, self._width):
            bits |= int.from_bytes(self._column(number), LITTLE)
        return bits.to_bytes(self._count, LITTLE).translate(b"\0" + b"\1" * 255)

    def in_blocks(self, blocks: Iterable[int]) -> bytes:
        """The entries that lie in one of those blocks of 64 KiB."""
        groups: dict[int, set[int]] = {}
        for block in blocks:
            if 0 <= block < 1 << (_ALL_BITS - BLOCK_BITS):
                groups.setdefault(block >> 8, set()).add(block & 0xFF)
        found = bytes(self._count)
        for high, lows in groups.items():
            if high >> 8 * (self._width - 3):
                continue
            mask = self._column(2).translate(bytes(byte in lows for byte in range(256)))
            for number in range(3, self._width):
                wanted = high >> 8 * (number - 3) & 0xFF
                mask = both(mask, self._column(number).translate(bytes(byte == wanted for byte in range(256))))
            found = either(found, mask)
        return found
