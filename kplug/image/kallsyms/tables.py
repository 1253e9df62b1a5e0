"""The kernel's own kallsyms tables: the formats of each release, their order, and the form of the token tables.

The formats are those of scripts/kallsyms.c (it writes them) and kernel/kallsyms.c (it reads them), 4.19 to 7.x:

- Names: a length, then that many codes. Each code stands for a token, a piece of text; a name's first letter is nm's.
  The length is one byte; since 73bbb94466fd (6.1) a byte with bit 7 set is followed by one of higher bits (ULEB128).
- A marker for each 256 names: their offset. 32 bits wide, a word up to 4.19 (80ffbaa5b1bd), as is the count.
- Sequence numbers sorted by name, 24 bits each, big-endian, since 60443c88f3a8 (6.2).
- Order: offsets, relative base, count, names, markers, sequence, tokens, token index; since 404bad70fcf7 (6.4) count,
  names, markers, tokens, token index, offsets, relative base, sequence.
- Addresses: see `Encoding`.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Union

from kplug.arch.types.word import BIG, LITTLE, struct_order
from kplug.errors import InputError
from kplug.frozen import Frozen

Bytes = Union[bytes, bytearray, memoryview, mmap.mmap]

# The largest kernels (all modules built in) have fewer than a million symbols, with names of 16 bytes on average.
MAX_SYMBOLS = 1 << 21
MAX_NAMES_BYTES = 1 << 26
# The number of names for each marker.
NAMES_PER_MARKER = 256
TOKENS = 256
# A token is a piece of a name: shorter than KSYM_NAME_LEN (512 since 6.1).
MAX_TOKEN_BYTES = 512
# The maximum of a two-byte length (kallsyms.c refuses more).
MAX_NAME_CODES = 0x3FFF
# Tables are aligned to a word, or to 4 bytes, with zeros before them.
MAX_PADDING = 7

TOKEN_INDEX_BYTES = 2 * TOKENS

# Real tables have 1 KiB: the index's 16 bits are the limit.
MAX_TOKEN_TABLE_BYTES = 1 << 14

# Each character that names use is the token of its own code. The tokens of the digits are sought. (A regular
# expression finds them three times as fast as bytes.find().)
_DIGITS = re.compile(b"".join(b"%d\0" % digit for digit in range(10)))
# Real kernels have half a dozen such places, one of which is the table.
_MAX_DIGITS = 1 << 15
# Characters of names: those of C, of assembler labels, and UTF-8 for languages that allow it.
_NOT_IN_TOKENS = bytes(range(1, 0x21)) + b"\x7f"


class KallsymsNotFoundError(InputError):
    """No kallsyms tables were found, or only inconsistent ones; `str()` says which."""


class Encoding:
    """How addresses are stored. The values are words for the user."""

    # a081b5789255 (7.0): 32 bits signed, counted from where they are stored themselves
    PC_RELATIVE = "PC-relative"
    # 2213e9a66bb8 (4.6) up to 6.18: 32 bits unsigned, counted from the lowest address
    BASE_RELATIVE = "base-relative"
    # the same with KALLSYMS_ABSOLUTE_PERCPU (x86_64, up to 6.14): values that are not negative are addresses, the
    # others are counted down from one below the lowest address
    BASE_RELATIVE_PERCPU = "base-relative with absolute per-CPU"
    # words, up to 6.10 (64e166099b69); since 7.0 of 32-bit kernels that do not move
    ABSOLUTE = "absolute"


class TokenTable(Frozen):
    """The tokens and their index: the positions, the bytes of each token, and the byte order of the index."""

    start: int
    index: int
    tokens: tuple[bytes, ...]
    byte_order: str

    @property
    def index_end(self) -> int:
        return self.index + TOKEN_INDEX_BYTES


class KallsymsTables(Frozen):
    """The positions of the tables: offsets in the bytes that were searched, or addresses in memory.

    `addresses` is the table of addresses or offsets; `addresses_address` its address in the kernel, which PC-relative
    values count from. `word_size` is the pointers', 4 or 8 bytes. `relative_base` is None if the encoding has none.
    `from_start`: decoded addresses are not link addresses but count from the start of the bytes that were searched,
    whose link address is not known.
    """

    token_table: TokenTable
    byte_order: str
    word_size: int
    number: int
    names: int
    names_end: int
    markers: Sequence[int]
    order: str
    encoding: str
    addresses: int
    addresses_address: int
    relative_base: int | None = None
    from_start: bool = False

    @property
    def address_size(self) -> int:
        """Bytes of one entry of the table of addresses."""
        return self.word_size if self.encoding == Encoding.ABSOLUTE else 4

    @property
    def description(self) -> str:
        """The tables in a line."""
        return self.describe("the image")

    def describe(self, place: str) -> str:
        """The tables in a line; `place` names what contains them."""
        start = f", counted from the start of {place}" if self.from_start else ""
        return f"kallsyms in {place}: {self.number:,} symbols, {self.encoding}{start}"


def token_tables(data: Bytes, position: int = 0, start: int = 0) -> Iterator[TokenTable]:
    """The token tables in `data` from `start` on: each with an index that agrees with it.

    `data` is at `position` in the bytes searched. KallsymsNotFoundError if too much looks like one.
    """
    for number, match in enumerate(_DIGITS.finditer(data, start)):
        if number >= _MAX_DIGITS:
            raise KallsymsNotFoundError(f"over {_MAX_DIGITS} places look like a table of tokens")
        table = _token_table_around(data, match.start(), position)
        if table is not None:
            yield table


def _token_table_around(data: Bytes, digits: int, position: int) -> TokenTable | None:
    """The token table with those digits; None if they are not in one."""
    # From the digit 0 on there are 208 tokens; their lengths must agree with the index.
    count = TOKENS - ord("0")
    rest = bytes(data[digits : digits + MAX_TOKEN_TABLE_BYTES]).split(b"\0", count)
    if len(rest) <= count:
        return None
    length = sum(map(len, rest[:-1])) + count
    end = digits + length
    after = bytes(data[end : end + MAX_PADDING + TOKEN_INDEX_BYTES])
    for padding in range(min(MAX_PADDING, len(after) - TOKEN_INDEX_BYTES) + 1):
        for byte_order in (LITTLE, BIG):
            index = _unpack_index(after[padding : padding + TOKEN_INDEX_BYTES], byte_order)
            start = digits - index[ord("0")]
            if index[0] == 0 and start >= 0 and start + index[-1] == end - len(rest[-2]) - 1:
                tokens = _tokens(bytes(data[start:end]), index)
                if tokens is not None:
                    return TokenTable(position + start, position + end + padding, tokens, byte_order)
        if after[padding]:
            return None
    return None


def _unpack_index(raw: bytes, byte_order: str) -> tuple[int, ...]:
    return struct.unpack(struct_order(byte_order == LITTLE) + f"{TOKENS}H", raw)


def _tokens(data: bytes, index: Sequence[int]) -> tuple[bytes, ...] | None:
    """The tokens in a table's bytes, if they agree with the index and consist of characters of names."""
    tokens = data.split(b"\0")
    if len(tokens) != TOKENS + 1 or tokens.pop() or data.translate(None, _NOT_IN_TOKENS) != data:
        return None
    position = 0
    for token, expected in zip(tokens, index):
        if position != expected or len(token) > MAX_TOKEN_BYTES:
            return None
        position += len(token) + 1
    return tuple(tokens)


def read_token_table(table: bytes, index: bytes, start: int, index_start: int, byte_order: str) -> TokenTable | None:
    """The token table at a known place: `table` are the bytes from its start on, at least to its end."""
    if len(index) < TOKEN_INDEX_BYTES:
        return None
    offsets = _unpack_index(index, byte_order)
    end = table.find(b"\0", offsets[-1])
    tokens = _tokens(table[: end + 1], offsets) if end >= 0 else None
    return None if tokens is None else TokenTable(start, index_start, tokens, byte_order)
