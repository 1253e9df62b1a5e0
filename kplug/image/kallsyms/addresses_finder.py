"""Finding the address table of kallsyms, whose position depends on the kernel, and checking that it is sorted."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import add, le

from kplug.arch.types.word import BIG
from kplug.image.kallsyms.names_finder import NamesTable, Read, words
from kplug.image.kallsyms.tables import (
    MAX_PADDING,
    Encoding,
    KallsymsTables,
    TokenTable,
)


def address_tables(names: NamesTable, token_table: TokenTable, read: Read) -> Iterator[KallsymsTables]:
    """The address table after the token index, or before the count; candidates with stronger checks first."""
    adjacent = token_table.start - (names.markers.position + names.markers.width * len(names.markers.values))
    if 0 <= adjacent <= MAX_PADDING and names.markers.width == 4:
        yield from _after_the_tokens(names, token_table, read)
    yield from _before_the_count(names, token_table, read)


def _after_the_tokens(names: NamesTable, token_table: TokenTable, read: Read) -> Iterator[KallsymsTables]:
    """The order since 6.4: the sequence numbers at the end show whether there is a relative base."""
    number, start = names.number, token_table.index_end
    end = start + 4 * number
    if _is_sequence(end, number, read):
        # 7.0 does not align to more than 4 bytes, so the count does not show the word size.
        for encoding, word_size in ((Encoding.PC_RELATIVE, 8), (Encoding.ABSOLUTE, 4)):
            yield from _if_fitting(names, token_table, read, "after", encoding, start, word_size, None)
    word = names.word_size
    base_position = end + -(end - start) % word
    if _is_sequence(base_position + word, number, read):
        yield from _base_relative(names, token_table, read, "after", start, base_position)
    if word == 8 and _is_sequence(start + 8 * number, number, read):  # up to 6.10
        yield from _if_fitting(names, token_table, read, "after", Encoding.ABSOLUTE, start, 8, None)


def _before_the_count(names: NamesTable, token_table: TokenTable, read: Read) -> Iterator[KallsymsTables]:
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
    names: NamesTable, token_table: TokenTable, read: Read, order: str, start: int, base_position: int
) -> Iterator[KallsymsTables]:
    word = names.word_size
    base = words(read(base_position, word), word, token_table.byte_order)
    if not base:
        return
    for encoding in (Encoding.BASE_RELATIVE, Encoding.BASE_RELATIVE_PERCPU):
        yield from _if_fitting(names, token_table, read, order, encoding, start, word, base[0])


def _if_fitting(
    names: NamesTable,
    token_table: TokenTable,
    read: Read,
    order: str,
    encoding: str,
    start: int,
    word_size: int,
    base: int | None,
) -> Iterator[KallsymsTables]:
    """The tables, if the addresses are sorted when read this way."""
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
    """Whether the address table is consistent with `tables`."""
    encoding, size = tables.encoding, tables.address_size
    signed = encoding in (Encoding.PC_RELATIVE, Encoding.BASE_RELATIVE_PERCPU)
    values = words(data, size, tables.byte_order, signed)
    if encoding == Encoding.PC_RELATIVE:
        distances = list(map(add, values, range(0, 4 * len(values), 4)))
        # The table itself lies within the range of the symbols.
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
    """The position of the first non-absolute entry in a sorted table with absolute per-CPU addresses."""
    return bisect_left([value < 0 for value in values], True)


def is_sorted(values: Sequence[int]) -> bool:
    """Whether the values are sorted."""
    return all(map(le, values, values[1:]))


def _is_sequence(position: int, number: int, read: Read) -> bool:
    """Whether the sequence numbers are at a position: each symbol's number, once."""
    data = read(position, 3 * number)
    if len(data) < 3 * number:
        return False
    wide = bytearray(4 * number)
    wide[1::4], wide[2::4], wide[3::4] = data[0::3], data[1::3], data[2::3]
    numbers = set(words(wide, 4, BIG))
    return len(numbers) == number and max(numbers) < number
