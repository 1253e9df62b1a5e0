"""Finding kallsyms tables by their structure, in bytes of an image or in memory: nothing is believed unchecked.

From the token table, which has an unmistakable form, the others are reached: the markers before it, the names that the
markers fit, the count before those, and the addresses, which must come out sorted.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from operator import add, le

from kplug.image.kallsyms.tables import (
    MAX_NAME_CODES,
    MAX_NAMES_BYTES,
    MAX_PADDING,
    MAX_SYMBOLS,
    NAMES_PER_MARKER,
    Bytes,
    Encoding,
    KallsymsNotFoundError,
    KallsymsTables,
    TokenTable,
    token_tables,
)

# Bytes at a position; fewer, or none, where there are no more.
Read = Callable[[int, int], bytes]
AddressOf = Callable[[int], "int | None"]

# Fewer than so many symbols no kernel has: three markers are the least that can be told from chance.
_MIN_SYMBOLS = 2 * NAMES_PER_MARKER + 1
_MIN_NAME_BYTES = 2
_MAX_NAME_BYTES = MAX_NAME_CODES + 2
# KSYM_NAME_LEN: what the names after the last marker can take.
_USUAL_NAME_BYTES = 514
# How far before the token table the markers may begin: next to it, or with the sequence numbers between (6.2, 6.3).
_MARKER_WINDOWS = (1 << 16, 1 << 20, 4 * MAX_SYMBOLS)
# Of real ones, the first that have all these forms are it; what needs more has been made to.
_MAX_TOKEN_TABLES = 8
_MAX_TRIES = 1 << 12
# Where memory begins is looked for as exactly as this.
_GRAIN = 4
_ZEROS = re.compile(rb"\0{4,}")
# The types of relocations that say "the load address and this" for a word, in 64-bit ELF: R_AARCH64_RELATIVE, and
# R_RISCV_RELATIVE and R_LARCH_RELATIVE (psABIs).
_RELATIVE_RELOCATIONS = (0x403, 3)
_RELOCATION_BYTES = 24


def find_tables(
    data: Bytes, *, start: int = 0, name: str = "the image", address_of: AddressOf | None = None
) -> KallsymsTables:
    """The kallsyms tables in the bytes of a kernel image: an ELF file, a flat Image, or its memory.

    `start` is where the search begins; positions are offsets in `data` all the same. `address_of` gives the link
    address of a position (None where it has none); without it PC-relative addresses count from the start of `data`.
    Raises KallsymsNotFoundError, naming `name`, if there are none, or if there are two sets of them.
    """

    def read(position: int, size: int) -> bytes:
        return bytes(data[max(position, 0) : max(position + size, 0)])

    tables = choose(token_tables(data, 0, start), read, name, address_of)
    return tables if tables.relative_base != 0 else _with_relocated_base(tables, data, address_of)


def choose(
    token_tables: Iterator[TokenTable], read: Read, name: str, address_of: AddressOf | None = None, first: bool = False
) -> KallsymsTables:
    """The tables that belong to one of the token tables, and (but for the `first`) to no other.

    KallsymsNotFoundError says what is missing.
    """
    found: KallsymsTables | None = None
    why = "no table of tokens (built without CONFIG_KALLSYMS, or still compressed)"
    try:
        for number, token_table in enumerate(token_tables):
            if number >= _MAX_TOKEN_TABLES:
                raise KallsymsNotFoundError(f"over {_MAX_TOKEN_TABLES} tables of tokens")
            try:
                tables = locate(token_table, read, address_of)
            except KallsymsNotFoundError as error:
                why = str(error)
                continue
            if found is not None:
                places = f"{found.token_table.start:#x} and {tables.token_table.start:#x}"
                raise KallsymsNotFoundError(f"several kernels' tables, with tokens at {places}")
            found = tables
            if first:
                break
    except KallsymsNotFoundError as error:
        why, found = str(error), None
    if found is None:
        raise KallsymsNotFoundError(f"{name}: no kallsyms found: {why}")
    return found


def locate(token_table: TokenTable, read: Read, address_of: AddressOf | None = None) -> KallsymsTables:
    """The tables that belong to a token table; KallsymsNotFoundError says what does not fit."""
    where = f"the table of tokens at {token_table.start:#x}"
    missing = "markers before it"
    tries = 0
    for markers in _marker_tables(token_table, read):
        if missing.startswith("markers"):
            missing = "names that its markers fit"
        for names in _name_tables(markers, token_table, read):
            tries += 1
            if tries > _MAX_TRIES:
                raise KallsymsNotFoundError(f"{where} has too much around it that could be names")
            if names is None:
                continue
            missing = "addresses that are sorted"
            for tables in _address_tables(names, token_table, read):
                address = tables.addresses if address_of is None else address_of(tables.addresses)
                from_start = address_of is None and tables.encoding == Encoding.PC_RELATIVE
                if address is not None:
                    return replace(tables, addresses_address=address, from_start=from_start)
    raise KallsymsNotFoundError(f"{where} has no {missing}")


@dataclass(frozen=True)
class _Markers:
    """A run of numbers that could be markers."""

    position: int
    width: int
    values: Sequence[int]


@dataclass(frozen=True)
class _Names:
    """Names that fit the markers, and the count before them."""

    count_position: int
    position: int
    end: int
    number: int
    word_size: int
    markers: _Markers


def words(data: bytes | bytearray, width: int, byte_order: str, signed: bool = False) -> Sequence[int]:
    """The words in `data`, of 4 or 8 bytes."""
    letter = {4: "i", 8: "q"}[width]
    form = ("<" if byte_order == "little" else ">") + f"{len(data) // width}{letter if signed else letter.upper()}"
    return struct.unpack(form, data[: len(data) // width * width])


def _marker_tables(token_table: TokenTable, read: Read) -> Iterator[_Markers]:
    """What could be markers before a token table, the nearest first."""
    searched = token_table.start
    for size in _MARKER_WINDOWS:
        low, data = _before(token_table.start, size, read)
        if low >= searched:
            return
        for zero_start, zero_end in _zeros_before(data, low, searched):
            for width in (4, 8):
                # Markers begin with 0; the first byte that is not is in the second one.
                second = zero_end - (zero_end - token_table.start) % width
                first = second - width
                if first < zero_start or first < low:
                    continue
                values = _rising_run(data, first - low, width, token_table.byte_order)
                for length in range(len(values), max(len(values) - 3, _MIN_SYMBOLS // NAMES_PER_MARKER), -1):
                    if _reaches(length, token_table.start - first - width * length):
                        yield _Markers(first, width, values[:length])
        searched = low


def _before(end: int, size: int, read: Read) -> tuple[int, bytes]:
    """Position and bytes of the last `size` bytes before `end`, or of as many as there are."""
    size = min(size, end)
    data = read(end - size, size)
    if len(data) == size:
        return end - size, data
    # There is memory before `end`, and then, further down, none: where does it begin?
    has, has_not, found = 0, size, b""
    while has_not - has > _GRAIN:
        middle = (has + has_not) // 2
        data = read(end - middle, middle)
        if len(data) == middle:
            has, found = middle, data
        else:
            has_not = middle
    return end - has, found


def _zeros_before(data: bytes, position: int, limit: int) -> list[tuple[int, int]]:
    """Start and end of the runs of zeros in `data`, which is at `position`; the last first, none far beyond `limit`."""
    zeros = [(position + match.start(), position + match.end()) for match in _ZEROS.finditer(data)]
    return [run for run in reversed(zeros) if run[0] <= limit]


def _reaches(markers: int, distance: int) -> bool:
    """Whether so many bytes can be between so many markers and the tokens: none but padding, or sequence numbers."""
    most = markers * NAMES_PER_MARKER
    if most - NAMES_PER_MARKER >= MAX_SYMBOLS:
        return False
    least_sequence = 3 * (most - NAMES_PER_MARKER + 1)
    return 0 <= distance <= MAX_PADDING or least_sequence <= distance <= 3 * most + 2 * MAX_PADDING


def _rising_run(data: bytes, start: int, width: int, byte_order: str) -> Sequence[int]:
    """The numbers from `start` on that rise as markers do."""
    least, most = NAMES_PER_MARKER * _MIN_NAME_BYTES, NAMES_PER_MARKER * _MAX_NAME_BYTES
    size = 64
    while True:
        values = words(data[start : start + size * width], width, byte_order)
        for number in range(1, len(values)):
            if not least <= values[number] - values[number - 1] <= most:
                return values[:number]
        if start + size * width >= len(data) or size * NAMES_PER_MARKER > MAX_SYMBOLS:
            return values
        size *= 4


def _name_tables(markers: _Markers, token_table: TokenTable, read: Read) -> Iterator[_Names | None]:
    """What could be names before the markers, by their count; None for each try whose lengths do not fit."""
    order = token_table.byte_order
    length, last = len(markers.values), markers.values[-1]
    if last > MAX_NAMES_BYTES:
        return
    high = markers.position - last
    if high <= 0:
        return
    low, data = _before(high, NAMES_PER_MARKER * _USUAL_NAME_BYTES + 2 * MAX_PADDING, read)
    odd = (markers.position - low) % 4
    low += odd
    least, most = (length - 1) * NAMES_PER_MARKER, min(length * NAMES_PER_MARKER, MAX_SYMBOLS)
    for number, count in enumerate(words(data[odd:], 4, order)):
        if least < count <= most:
            for found in _names_after(low + 4 * number, count, markers, order, read):
                end = _names_end(found.position, count, markers.values, markers.position, read)
                yield None if end is None else replace(found, end=end)


def _names_after(position: int, count: int, markers: _Markers, order: str, read: Read) -> Iterator[_Names]:
    """Where names may begin after the 32 bits of their count, and how wide a word is then."""
    if markers.width == 8:  # up to 4.19, 64 bits: the count is a word
        start = position if order == "little" else position - 4
        if words(read(start, 8), 8, order) == (count,):
            yield _Names(start, start + 8, 0, count, 8, markers)
        return
    if read(position + 4, 4) == bytes(4):  # aligned to 8
        yield _Names(position, position + 8, 0, count, 8, markers)
    yield _Names(position, position + 4, 0, count, 4, markers)


def _names_end(position: int, number: int, markers: Sequence[int], end: int, read: Read) -> int | None:
    """Where the names end, if the first and the last of them fit the markers and the zeros before the markers."""
    for block in (0, len(markers) // 2, len(markers) - 2):
        expected = markers[block + 1] - markers[block]
        if walk(read(position + markers[block], expected), NAMES_PER_MARKER) != expected:
            return None
    start = position + markers[-1]
    rest = read(start, end - start)
    size = walk(rest, number - NAMES_PER_MARKER * (len(markers) - 1))
    if size is None or len(rest) - size > MAX_PADDING or any(rest[size:]):
        return None
    return start + size


def walk(data: bytes, number: int, position: int = 0) -> int | None:
    """Where so many names end that begin at `position`; None if `data` does not have them.

    Where names up to 6.0 have one byte of length with bit 7 set (128 codes and more) they are read as if it were two:
    no name has been seen that did not compress to less.
    """
    size = len(data)
    try:
        for _ in repeat(None, number):
            length = data[position]
            if length > 0x7F:
                position += 1
                length = length & 0x7F | data[position] << 7
            if not length:
                return None
            position += length + 1
    except IndexError:
        return None
    return position if position <= size else None


def _address_tables(names: _Names, token_table: TokenTable, read: Read) -> Iterator[KallsymsTables]:
    """The addresses' table after the token index, or before the count; those that are checked by more first."""
    adjacent = token_table.start - (names.markers.position + names.markers.width * len(names.markers.values))
    if 0 <= adjacent <= MAX_PADDING and names.markers.width == 4:
        yield from _after_the_tokens(names, token_table, read)
    yield from _before_the_count(names, token_table, read)


def _after_the_tokens(names: _Names, token_table: TokenTable, read: Read) -> Iterator[KallsymsTables]:
    """The order since 6.4: the sequence numbers at the end tell whether there is a relative base."""
    number, start = names.number, token_table.index_end
    end = start + 4 * number
    if _is_sequence(end, number, read):
        # 7.0 does not align to more than 4 bytes, so the count does not tell how wide a word is.
        for encoding, word_size in ((Encoding.PC_RELATIVE, 8), (Encoding.ABSOLUTE, 4)):
            yield from _if_fitting(names, token_table, read, "after", encoding, start, word_size, None)
    word = names.word_size
    base_position = end + -(end - start) % word
    if _is_sequence(base_position + word, number, read):
        yield from _base_relative(names, token_table, read, "after", start, base_position)
    if word == 8 and _is_sequence(start + 8 * number, number, read):  # up to 6.10
        yield from _if_fitting(names, token_table, read, "after", Encoding.ABSOLUTE, start, 8, None)


def _before_the_count(names: _Names, token_table: TokenTable, read: Read) -> Iterator[KallsymsTables]:
    """The order up to 6.3."""
    word, number = names.word_size, names.number
    base_position = names.count_position - word
    start = base_position - (4 * number + -(4 * number) % word)
    if start >= 0:
        yield from _base_relative(names, token_table, read, "before", start, base_position)
    start = names.count_position - word * number
    if start >= 0:
        yield from _if_fitting(names, token_table, read, "before", Encoding.ABSOLUTE, start, word, None)


def _base_relative(
    names: _Names, token_table: TokenTable, read: Read, order: str, start: int, base_position: int
) -> Iterator[KallsymsTables]:
    word = names.word_size
    base = words(read(base_position, word), word, token_table.byte_order)
    if not base:
        return
    for encoding in (Encoding.BASE_RELATIVE, Encoding.BASE_RELATIVE_PERCPU):
        yield from _if_fitting(names, token_table, read, order, encoding, start, word, base[0])


def _if_fitting(
    names: _Names,
    token_table: TokenTable,
    read: Read,
    order: str,
    encoding: str,
    start: int,
    word_size: int,
    base: int | None,
) -> Iterator[KallsymsTables]:
    """The tables, if the addresses are sorted when so read."""
    tables = KallsymsTables(
        token_table=token_table,
        byte_order=token_table.byte_order,
        word_size=word_size,
        number=names.number,
        names=names.position,
        names_end=names.end,
        markers=names.markers.values,
        order=order,
        encoding=encoding,
        addresses=start,
        addresses_address=start,
        relative_base=base,
    )
    data = read(start, tables.address_size * names.number)
    if len(data) == tables.address_size * names.number and fits(tables, data):
        yield tables


def fits(tables: KallsymsTables, data: bytes) -> bool:
    """Whether the table of addresses can be what `tables` says."""
    encoding, size = tables.encoding, tables.address_size
    signed = encoding in (Encoding.PC_RELATIVE, Encoding.BASE_RELATIVE_PERCPU)
    values = words(data, size, tables.byte_order, signed)
    if encoding == Encoding.PC_RELATIVE:
        distances = list(map(add, values, range(0, 4 * len(values), 4)))
        # The table is itself part of what the symbols name.
        return distances[0] < 0 < distances[-1] and is_sorted(distances)
    if encoding == Encoding.BASE_RELATIVE_PERCPU:
        split = percpu_split(values)
        return (
            split < len(values)
            and values[split] == -1
            and is_sorted(values[:split])
            and is_sorted(values[split:][::-1])
        )
    limit = 1 << 8 * tables.word_size
    if encoding == Encoding.BASE_RELATIVE:
        # The base is the lowest address.
        return values[0] == 0 and (tables.relative_base or 0) + values[-1] < limit and is_sorted(values)
    return 0 < values[-1] != values[0] and is_sorted(values)


def percpu_split(values: Sequence[int]) -> int:
    """Where in a sorted table with absolute per-CPU addresses the first is that is none."""
    return bisect_left([value < 0 for value in values], True)


def is_sorted(values: Sequence[int]) -> bool:
    """Whether no value is less than the one before it."""
    return all(map(le, values, values[1:]))


def _is_sequence(position: int, number: int, read: Read) -> bool:
    """Whether at a position there are the sequence numbers: each symbol's, once."""
    data = read(position, 3 * number)
    if len(data) < 3 * number:
        return False
    wide = bytearray(4 * number)
    wide[1::4], wide[2::4], wide[3::4] = data[0::3], data[1::3], data[2::3]
    numbers = set(words(wide, 4, "big"))
    return len(numbers) == number and max(numbers) < number


def _with_relocated_base(tables: KallsymsTables, data: Bytes, address_of: AddressOf | None) -> KallsymsTables:
    """The tables with the base that a relocation gives, where the word itself is left 0 (arm64, riscv: RELA)."""
    base = None
    if tables.word_size == 8 and tables.byte_order == "little":
        position = _base_position(tables)
        base = _relocated_word(data, position, address_of)
    if base is None:
        return replace(tables, from_start=True)
    return replace(tables, relative_base=base)


def _base_position(tables: KallsymsTables) -> int:
    size = 4 * tables.number
    return tables.addresses + size + -size % tables.word_size


def _relocated_word(data: Bytes, position: int, address_of: AddressOf | None) -> int | None:
    """What a RELA relocation puts at a position; None if there is none.

    A flat image does not say what address a position has: there the word sought is the start of the image, which is
    the lowest symbol's address as well, so that place and value differ by the position.
    """
    place = position if address_of is None else address_of(position)
    if place is None:
        return None
    for kind in _RELATIVE_RELOCATIONS:
        if address_of is not None:
            pattern = re.escape(struct.pack("<QQ", place, kind))
        else:
            # Images are linked at a multiple of 64 KiB.
            pattern = (
                re.escape(struct.pack("<H", place & 0xFFFF)) + rb"[\0-\xff]{6}" + re.escape(struct.pack("<Q", kind))
            )
        for match in re.finditer(pattern, data):
            entry = bytes(data[match.start() : match.start() + _RELOCATION_BYTES])
            if len(entry) == _RELOCATION_BYTES:
                target, _, value = struct.unpack("<QQQ", entry)
                if address_of is not None or target - value == position:
                    return int(value)
    return None
