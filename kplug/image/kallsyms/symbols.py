"""Symbols from the kernel's own kallsyms tables, in an image or in memory, as a `SymbolList`."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import add, itemgetter

from kplug.image.kallsyms.addresses_finder import percpu_split
from kplug.image.kallsyms.finder import find_tables, locate
from kplug.image.kallsyms.names_finder import Read, words
from kplug.image.kallsyms.tables import (
    MAX_NAMES_BYTES,
    NAMES_PER_MARKER,
    Bytes,
    Encoding,
    KallsymsNotFoundError,
    KallsymsTables,
)
from kplug.image.symbols.symbol_list import SymbolList

# Codes expanded at a time: this is three times as fast if the data fits into the CPU's cache.
_CODES_AT_ONCE = 1 << 14
_BYTES_AT_ONCE = 1 << 18
# Placeholders among the codes for the length before a name.
_NAME, _NOTHING = 256, 257


def decode(data: Bytes, tables: KallsymsTables, *, name: str = "the image") -> SymbolList:
    """The symbols, in the order of the tables (sorted by address).

    Addresses are link addresses, or runtime ones in memory, or with `tables.from_start` counted from the start of the
    image. Raises KallsymsNotFoundError if names do not fit their markers.
    """
    return decode_with(lambda position, size: bytes(data[position : position + size]), tables, name=name)


def decode_with(read: Read, tables: KallsymsTables, *, name: str = "the image") -> SymbolList:
    """As `decode`; `read` gives bytes at a position."""
    names = read(tables.names, tables.names_end - tables.names)
    addresses = read(tables.addresses, tables.address_size * tables.number)
    short = len(names) < tables.names_end - tables.names or len(addresses) < tables.address_size * tables.number
    if short:
        raise KallsymsNotFoundError(f"{name}: the kallsyms tables are truncated")
    strings, offsets, letters = _names(names, tables, name)
    return SymbolList(strings, offsets, _addresses(addresses, tables), letters, tables.describe(name))


def _names(data: bytes, tables: KallsymsTables, name: str) -> tuple[bytes, array[int], bytes]:
    """The names as a blob, their offsets in it, and their letters."""
    tokens = (*tables.token_table.tokens, b"\0", b"")
    pieces: list[bytes] = []
    total = 0
    for codes in _codes(data, tables, name):
        for start in range(0, len(codes), _CODES_AT_ONCE):
            piece = b"".join(itemgetter(*codes[start : start + _CODES_AT_ONCE], _NOTHING)(tokens))
            total += len(piece)
            if total > MAX_NAMES_BYTES:
                raise KallsymsNotFoundError(f"{name}: the names in kallsyms take over {MAX_NAMES_BYTES >> 20} MiB")
            pieces.append(piece)
    lettered = b"".join(pieces).split(b"\0")
    del lettered[0]
    if b"" in lettered:
        raise KallsymsNotFoundError(f"{name}: kallsyms has a symbol without a name")
    letters = bytes(map(itemgetter(0), lettered))
    # Each name has its letter before it, and gets a NUL after it.
    offsets = array("I", accumulate(map(len, lettered[:-1]), initial=0))
    strings = b"\0".join([text[1:] for text in lettered])
    return strings + b"\0", offsets, letters


def _codes(data: bytes, tables: KallsymsTables, name: str) -> Iterator[list[int]]:
    """The codes of the names, some thousands at a time, with `_NAME` in place of each length."""
    bounds = [*tables.markers, len(data)]
    block, last = 0, len(tables.markers)
    while block < last:
        first, start = block, bounds[block]
        while block < last and bounds[block] - start < _BYTES_AT_ONCE:
            block += 1
        piece = data[start : bounds[block]]
        number = min(block * NAMES_PER_MARKER, tables.number) - first * NAMES_PER_MARKER
        codes = list(piece)
        position = 0
        try:
            for _ in range(number):
                length = piece[position]
                codes[position] = _NAME
                if length > 0x7F:
                    position += 1
                    length = length & 0x7F | piece[position] << 7
                    codes[position] = _NOTHING
                position += length + 1
        except IndexError:
            position = -1
        if position != len(piece):
            raise KallsymsNotFoundError(f"{name}: the names in kallsyms do not fit their markers")
        yield codes


def _addresses(data: bytes, tables: KallsymsTables) -> Sequence[int]:
    """The addresses, decoded from the bytes of their table."""
    encoding, base = tables.encoding, tables.relative_base or 0
    signed = encoding in (Encoding.PC_RELATIVE, Encoding.BASE_RELATIVE_PERCPU)
    values = words(data, tables.address_size, tables.byte_order, signed)
    mask = (1 << 8 * tables.word_size) - 1
    found: list[int]
    if encoding == Encoding.PC_RELATIVE:
        start = tables.addresses_address
        found = list(map(add, range(start, start + 4 * len(values), 4), values))
    elif encoding == Encoding.BASE_RELATIVE_PERCPU:
        split = percpu_split(values)
        found = [*values[:split], *map((base - 1).__sub__, values[split:])]
    elif encoding == Encoding.BASE_RELATIVE:
        found = list(map(base.__add__, values))
    else:
        return array("Q", values)
    if min(found) < 0 or max(found) > mask:
        found = [value & mask for value in found]
    return array("Q", found)


__all__ = ["KallsymsNotFoundError", "KallsymsTables", "decode", "decode_with", "find_tables", "locate"]
