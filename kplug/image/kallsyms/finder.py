"""Finding kallsyms tables by their structure, in bytes of an image or in memory: everything is checked.

The search starts at the token table, whose form is unmistakable. From there it finds the markers before it, the names
that fit the markers, the count before those, and the addresses, which must be sorted.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterator

from kplug.arch import registry
from kplug.arch.types.word import LITTLE, StructOrder, struct_order
from kplug.frozen import replace
from kplug.image.kallsyms.addresses_finder import address_tables
from kplug.image.kallsyms.names_finder import Read, marker_tables, name_tables
from kplug.image.kallsyms.tables import (
    Bytes,
    Encoding,
    KallsymsNotFoundError,
    KallsymsTables,
    TokenTable,
    token_tables,
)

AddressOf = Callable[[int], "int | None"]

# Real tables are among the first with these forms; a file that needs more was crafted.
_MAX_TOKEN_TABLES = 8
_MAX_TRIES = 1 << 12
_RELOCATION_BYTES = 24


def find_tables(
    data: Bytes, *, start: int = 0, name: str = "the image", address_of: AddressOf | None = None
) -> KallsymsTables:
    """The kallsyms tables in the bytes of a kernel image: an ELF file, a flat Image, or its memory.

    `start` is where the search begins; positions are always offsets in `data`. `address_of` gives the link address of a
    position (None if it has none); without it, PC-relative addresses count from the start of `data`.
    Raises KallsymsNotFoundError, naming `name`, if there are no tables, or two sets of them.
    """

    def read(position: int, size: int) -> bytes:
        return bytes(data[max(position, 0) : max(position + size, 0)])

    tables = choose(token_tables(data, 0, start), read, name, address_of)
    return tables if tables.relative_base != 0 else _with_relocated_base(tables, data, address_of)


def choose(
    token_tables: Iterator[TokenTable], read: Read, name: str, address_of: AddressOf | None = None, first: bool = False
) -> KallsymsTables:
    """The tables that belong to exactly one of the token tables (with `first`, to the first that fits).

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
    for markers in marker_tables(token_table, read):
        if missing.startswith("markers"):
            missing = "names that fit its markers"
        for names in name_tables(markers, token_table, read):
            tries += 1
            if tries > _MAX_TRIES:
                raise KallsymsNotFoundError(f"{where} has too much around it that could be names")
            if names is None:
                continue
            missing = "addresses that are sorted"
            for tables in address_tables(names, token_table, read):
                address = tables.addresses if address_of is None else address_of(tables.addresses)
                from_start = address_of is None and tables.encoding == Encoding.PC_RELATIVE
                if address is not None:
                    return replace(tables, addresses_address=address, from_start=from_start)
    raise KallsymsNotFoundError(f"{where} has no {missing}")


def _with_relocated_base(tables: KallsymsTables, data: Bytes, address_of: AddressOf | None) -> KallsymsTables:
    """The tables with the base from a relocation, if the word itself is 0 (64-bit RELA)."""
    base = relocated_base(tables, data, address_of)
    if base is None:
        return replace(tables, from_start=True)
    return replace(tables, relative_base=base)


def relocated_base(tables: KallsymsTables, data: Bytes, address_of: AddressOf | None) -> int | None:
    """The base that a relocation puts where the tables have 0; None if there is none."""
    if tables.relative_base != 0 or tables.word_size != 8:
        return None
    kinds = registry.relative_relocations(8 * tables.word_size, tables.byte_order)
    order = struct_order(tables.byte_order == LITTLE)
    return _relocated_word(data, _base_position(tables), address_of, order, kinds)


def _base_position(tables: KallsymsTables) -> int:
    size = 4 * tables.number
    return tables.addresses + size + -size % tables.word_size


def _relocated_word(
    data: Bytes, position: int, address_of: AddressOf | None, order: StructOrder, kinds: Collection[int]
) -> int | None:
    """The value that a RELA relocation of one of these types puts at a position; None if there is none.

    In a flat image the address of a position is not known. There the value sought is the start of the image, which is
    also the lowest symbol's address, so that place and value differ by the position.
    """
    place = position if address_of is None else address_of(position)
    if place is None:
        return None
    for kind in kinds:
        start, end = struct.pack(order + "Q", place), re.escape(struct.pack(order + "Q", kind))
        before = 0  # bytes of the entry before the pattern, which is slow to find if it begins with any byte
        if address_of is not None:
            pattern = re.escape(start) + end
        elif order == "<":  # images are linked at a multiple of 64 KiB
            pattern = re.escape(start[:2]) + rb"[\0-\xff]{6}" + end
        else:
            before = 6
            pattern = re.escape(start[before:]) + end
        for match in re.finditer(pattern, data):
            at = match.start() - before
            entry = bytes(data[at : at + _RELOCATION_BYTES]) if at >= 0 else b""
            if len(entry) == _RELOCATION_BYTES:
                target, _, value = struct.unpack(order + "QQQ", entry)
                if address_of is not None or target - value == position:
                    return int(value)
    return None
