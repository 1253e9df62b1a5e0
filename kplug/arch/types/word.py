"""The words of a machine: how wide they are, in which order their bytes come, which of them are the kernel's addresses.

Whoever reads a target's memory asks this, by `Architecture.word` or what has it from there: `ElfFile.word` for a file,
`Kernel.word` for a Program.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Literal

ByteOrder = Literal["little", "big"]
StructOrder = Literal["<", ">"]  # as `struct` has it
STRUCT_ORDERS: tuple[StructOrder, StructOrder] = ("<", ">")
LITTLE: ByteOrder = "little"
BIG: ByteOrder = "big"

# The widest machine's: no address of any is at `BEYOND_ADDRESSES` or above. For what is not about one machine.
WIDEST_BITS = 64
BEYOND_ADDRESSES = 1 << WIDEST_BITS
WIDEST_MASK = BEYOND_ADDRESSES - 1


_ReadNumber = Callable[[bytes, int, int], int]


# Of array.array, by the bytes of an item.
_LETTERS = {array(letter).itemsize: letter for letter in "BHILQ"}


def byte_order(little_endian: bool) -> ByteOrder:
    return LITTLE if little_endian else BIG


def struct_order(little_endian: bool) -> StructOrder:
    """The byte order as `struct` has it."""
    return "<" if little_endian else ">"


def signed(number: int, mask: int = WIDEST_MASK) -> int:
    """The number of that width as a signed one: a KASLR offset, a difference of addresses."""
    number &= mask
    return number - mask - 1 if number > mask >> 1 else number


def _readers(size: int, order: ByteOrder) -> tuple[Callable[[bytes, int], int], _ReadNumber, _ReadNumber]:
    """Functions without a look-up in them: an answer reads many numbers."""

    def at(data: bytes, offset: int) -> int:
        return int.from_bytes(data[offset : offset + size], order)

    def unsigned(data: bytes, offset: int, count: int) -> int:
        return int.from_bytes(data[offset : offset + count], order)

    def signed_number(data: bytes, offset: int, count: int) -> int:
        return int.from_bytes(data[offset : offset + count], order, signed=True)

    return at, unsigned, signed_number


class WordFormat:
    """The words of one target. Attributes are plain, for whoever keeps one where much is read.

    `at(data, offset)` is the word there in bytes of memory, `unsigned(data, offset, count)` and `signed(...)` the
    number of `count` bytes. `size` are the bytes of a pointer and of an unsigned long, `mask` has all their bits.
    `kernel_start` is the lowest address that may be the kernel's: the upper half's start, or 0 where no half is the
    kernel's alone.
    """

    __slots__ = ("at", "bits", "kernel_start", "little_endian", "mask", "order", "signed", "size", "unsigned")

    def __init__(self, bits: int = WIDEST_BITS, little_endian: bool = True, upper_half: bool = False) -> None:
        self.bits = bits
        self.size = bits // 8
        self.mask = (1 << bits) - 1
        self.little_endian = little_endian
        self.order: ByteOrder = byte_order(little_endian)
        self.kernel_start = 1 << bits - 1 if upper_half else 0
        self.at, self.unsigned, self.signed = _readers(self.size, self.order)

    def is_kernel(self, address: int) -> bool:
        """Whether an address may be the kernel's, by its highest bit."""
        return self.kernel_start <= address <= self.mask

    def is_only_kernel(self, address: int) -> bool:
        """Whether an address can be nobody's but the kernel's."""
        return 0 < self.kernel_start <= address

    def numbers(self, data: bytes, size: int | None = None) -> Sequence[int]:
        """The unsigned numbers of so many bytes that an array in memory has, those of a word if not told."""
        size = size or self.size
        found = array(_LETTERS[size], data[: len(data) - len(data) % size])
        if self.order != sys.byteorder:
            found.byteswap()
        return found

    def bitmap(self, data: bytes) -> int:
        """A bitmap of the kernel's, an array of words, as one number: bit 0 is the lowest of the first word."""
        if self.little_endian:
            return int.from_bytes(data, LITTLE)
        last = len(data) - self.size
        return int.from_bytes(b"".join(data[at : at + self.size] for at in range(last, -1, -self.size)), BIG)

    def swapped(self, number: int) -> int:
        """A word with its bytes in the other order (swab)."""
        return int.from_bytes(number.to_bytes(self.size, LITTLE), BIG)

    def packed(self, numbers: Iterable[int]) -> bytes:
        """Words as memory has them."""
        return b"".join((number & self.mask).to_bytes(self.size, self.order) for number in numbers)


@cache
def word_format(bits: int, little_endian: bool, upper_half: bool) -> WordFormat:
    return WordFormat(bits, little_endian, upper_half)
