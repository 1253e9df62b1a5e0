"""A flat image: the kernel's bytes as they lie in memory, without headers that give their addresses.

It takes the place of an ELF file: bytes are read at link addresses, and symbols replace the section headers.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

from kplug.arch.types.word import WordFormat
from kplug.image.banner import banners_at
from kplug.image.elf.file import ElfFile, Note, notes_in
from kplug.image.elf.header_only import bare_header
from kplug.image.symbols.symbol_list import SymbolList

_MAX_NOTES = 1 << 20
# The link address is a multiple of this: KIMAGE_VADDR of arm64 is MODULES_END, KERNEL_LINK_ADDR of riscv
# 2 GiB below the top (arch/{arm64,riscv}/include/asm).
_LINK_ALIGNMENT = 1 << 27
# Pointers into the image are sought in one piece out of this many.
_SAMPLE, _PIECE = 1 << 12, 1 << 15
# A chance value does not agree with a thousand others.
_LEAST_POINTERS = 64
_SMALLEST_PAGE = 1 << 12
# Pointers that are looked at in each piece; and how many times as many count from the right address as from any other.
_MOST_POINTERS, _CLEARLY = 256, 4
# Functions that every kernel exports to modules, and how many of them have to agree.
_EXPORTED = ("schedule", "kfree", "vfree", "vmalloc", "msleep", "complete", "kstrdup", "memcmp", "strlen", "down", "up")
_LEAST_EXPORTS = 3
_MOST_POSITIONS = 64


class FlatImage(ElfFile):
    """The bytes of an Image linked at `base`; `symbols` gives the layout, when it is needed."""

    def __init__(
        self,
        path: str,
        data: bytes,
        machine: str,
        word: WordFormat,
        base: int,
        symbols: Callable[[], SymbolList],
        *,
        memory_size: int,
    ) -> None:
        super().__init__(path, io.BytesIO(bare_header(machine, word.bits, little_endian=word.little_endian)))
        self.base = base
        self.memory_size = memory_size
        self._data = data
        self._symbols = symbols

    def read_address(self, address: int, size: int) -> bytes | None:
        offset = address - self.base
        return self._data[offset : offset + size] if 0 <= offset < len(self._data) else None

    def constants(self) -> Iterator[tuple[int, bytes]]:
        if self.base:
            yield self.base, self._data

    def notes(self) -> tuple[Note, ...]:
        start, end = (self._symbols().address(name) for name in ("__start_notes", "__stop_notes"))
        if start is None or end is None or not 0 <= end - start <= _MAX_NOTES:
            return ()
        return tuple(notes_in(self.read_address(start, end - start) or b"", self.little_endian))


def address_of_start(data: bytes, symbols: SymbolList, word: WordFormat) -> int | None:
    """The link address of an image's first byte, from symbols at their link addresses; None if nothing tells it.

    The banner's place tells it, even if a header precedes the kernel. Without that symbol (kallsyms without
    CONFIG_KALLSYMS_ALL has functions only), the image begins with _text, or the table of exported symbols tells.
    """
    banner = symbols.address("linux_banner")
    places = [position for position, _ in banners_at(data)] if banner is not None else []
    if banner is not None and len(places) == 1:
        return banner - places[0]
    start = symbols.address("_text")
    return start if start is not None else _start_by_exports(data, symbols, word)


def _start_by_exports(data: bytes, symbols: SymbolList, word: WordFormat) -> int | None:
    """A struct kernel_symbol has a symbol's address, and then that of its name (include/linux/export.h).

    That is so where these are absolute, on 32-bit machines (CONFIG_HAVE_ARCH_PREL32_RELOCATIONS is unset).
    """
    counts: Counter[int] = Counter()
    for name in _EXPORTED:
        (start, number), (_, next_best) = [*counts.most_common(2), (0, 0), (0, 0)][:2]
        if number >= _LEAST_EXPORTS and number >= 2 * next_best:
            return start  # each name more takes two searches through the image
        address = symbols.address(name)
        if address is None:
            continue
        # The linker lets a name be the end of a longer one.
        texts = list(_positions(data, name.encode() + b"\0"))
        names = [word.at(data, place + word.size) for place in _positions(data, word.packed((address,)))]
        starts = {name - text for name in names for text in texts}
        counts.update(s for s in starts if s % _SMALLEST_PAGE == 0 and 0 <= symbols.addresses[0] - s < len(data))
    start, number = next(iter(counts.most_common(1)), (0, 0))
    return start if number >= _LEAST_EXPORTS else None


def _positions(data: bytes, what: bytes) -> Iterator[int]:
    position = data.find(what)
    for _ in range(_MOST_POSITIONS):
        if position < 0:
            return
        yield position
        position = data.find(what, position + 1)


def link_base(data: bytes, memory_size: int, word: WordFormat) -> int | None:
    """The link address of an Image, derived from the pointers in it; None if too few agree.

    The addresses that relocations write, or add to, point into the image: into the `memory_size` bytes from a multiple
    of `_LINK_ALIGNMENT`.
    """
    counts: Counter[int] = Counter()
    shift = word.bits - 16
    for start in range(0, len(data) - _SAMPLE, _PIECE):
        numbers = word.numbers(data[start : start + _SAMPLE])
        counts.update([number & -_LINK_ALIGNMENT for number in numbers if number >> shift == 0xFFFF])
    likely = [(number, base) for base, number in counts.items() if base + memory_size <= word.mask]
    number, base = max(likely, default=(0, 0))
    # An image that is larger than the alignment has pointers to what follows.
    while base and counts.get(base - _LINK_ALIGNMENT, 0) * 4 > counts[base]:
        base -= _LINK_ALIGNMENT
    return base if number >= _LEAST_POINTERS else None


def start_by_pointers(data: bytes, symbols: SymbolList, word: WordFormat, alignment: int) -> int | None:
    """The link address of an image without a header, whose symbols count from its start; None if too few agree.

    Most pointers in a kernel's data are to functions: the address sought is the multiple of `alignment` from which most
    functions count that anything points to.
    """
    starts = [address for number, address in enumerate(symbols.addresses) if symbols.letters[number] in b"Tt"]
    functions: dict[int, list[int]] = {}
    for offset in set(starts):
        functions.setdefault(offset % alignment, []).append(offset)
    counts: Counter[int] = Counter()
    shift = word.bits - 16
    top = 0xFFFF if word.kernel_start else 0
    seen: set[int] = set()  # what is no pointer, as -1 after 0, is often repeated
    for place in range(0, len(data) - _PIECE, _PIECE):
        numbers = word.numbers(data[place : place + _PIECE])
        pointers = {number for number in numbers if number >> shift == top and number >= alignment} - seen
        seen |= pointers
        for number in islice(pointers, _MOST_POINTERS):
            counts.update([number - offset for offset in functions.get(number % alignment, ())])
    (best, number), (_, next_best) = [*counts.most_common(2), (0, 0), (0, 0)][:2]
    return best if number >= max(_LEAST_POINTERS, _CLEARLY * next_best) else None


def moved_to(symbols: SymbolList, base: int, zero: int) -> SymbolList:
    """The symbols of an image linked at `base`, at their link addresses: theirs count from `zero`."""
    source = f"{symbols.source}; linked at {base:#x}, according to its pointers"
    addresses = [address + zero for address in symbols.addresses]
    return SymbolList(symbols.strings, symbols.name_offsets, addresses, symbols.letters, source)
