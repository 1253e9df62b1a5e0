"""A number that every entry of a symbol table has, as a column for each of its bytes: masks come out without a loop."""

from __future__ import annotations

from collections.abc import Iterable

from kplug.arch.types.word import LITTLE
from kplug.image.symbols.masks import both, either

# The cases that `in_blocks` distinguishes.
BLOCK_BITS = 16
_ALL_BITS = 64
# So many entries may lie in other blocks than those asked for.
FEW = 4096


class ByteColumns:
    """The bytes of the numbers of `width` bytes, from `start` in each entry of `size` bytes in `data`; number 0 is the
    lowest."""

    def __init__(self, data: bytes, start: int, width: int, size: int, *, little: bool) -> None:
        self._data = data
        self._start = start
        self._width = width
        self._size = size
        self._little = little
        self._count = len(data) // size
        self._columns: dict[int, bytes] = {}

    def _column(self, number: int) -> bytes:
        if number not in self._columns:
            offset = number if self._little else self._width - 1 - number
            self._columns[number] = self._data[self._start + offset :: self._size]
        return self._columns[number]

    def nonzero(self, lowest: int = 0) -> bytes:
        """The entries of which a byte from `lowest` up is not 0."""
        bits = 0
        for number in range(lowest, self._width):
            bits |= int.from_bytes(self._column(number), LITTLE)
        return bits.to_bytes(self._count, LITTLE).translate(b"\0" + b"\1" * 255)

    def in_blocks(self, blocks: Iterable[int]) -> bytes:
        """The entries that lie in one of those blocks of 64 KiB; and a few others perhaps, since they are checked after
        the bytes that sort out most."""
        groups: dict[int, set[int]] = {}
        for block in blocks:
            if 0 <= block < 1 << (_ALL_BITS - BLOCK_BITS):
                groups.setdefault(block >> 8, set()).add(block & 0xFF)
        found = bytes(self._count)
        for high, lows in groups.items():
            if high >> 8 * (self._width - 3):
                continue
            mask = self._column(2).translate(bytes(byte in lows for byte in range(256)))
            number = 3
            while number < self._width and mask.count(1) > FEW:
                wanted = high >> 8 * (number - 3) & 0xFF
                mask = both(mask, self._column(number).translate(bytes(byte == wanted for byte in range(256))))
                number += 1
            found = either(found, mask)
        return found
