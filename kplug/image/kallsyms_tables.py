"""The kernel's own kallsyms tables: what each release has, where they lie, and how the tables of tokens look.

The formats are those of scripts/kallsyms.c (it writes them) and kernel/kallsyms.c (it reads them), 4.19 to 7.x:

- Names: a length, then so many codes; the token of a code is text, the first letter of a name is nm's. The length is
  one byte; since 73bbb94466fd (6.1) one with bit 7 set is followed by a second byte of higher bits (ULEB128).
- A marker for each 256 names: where they begin. 32 bits wide, a word up to 4.19 (80ffbaa5b1bd), as is the count.
- Sequence numbers sorted by name, 24 bits each, big-endian, since 60443c88f3a8 (6.2).
- Order: offsets, relative base, count, names, markers, sequence, tokens, token index; since 404bad70fcf7 (6.4) count,
  names, markers, tokens, token index, offsets, relative base, sequence.
- Addresses: see `Encoding`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kplug.errors import InputError

# The largest kernels (all modules built in) have under a million symbols, and names of 16 bytes on average.
MAX_SYMBOLS = 4_000_000
MAX_NAMES_BYTES = 1 << 26
# A marker stands for so many names.
NAMES_PER_MARKER = 256
TOKENS = 256
# A token is a piece of a name: shorter than KSYM_NAME_LEN (512 since 6.1).
MAX_TOKEN_BYTES = 512
# What a two-byte length can say (kallsyms.c refuses more).
MAX_NAME_CODES = 0x3FFF
# Tables are aligned to a word, or to 4 bytes, with zeros before them.
MAX_PADDING = 7

TOKEN_INDEX_BYTES = 2 * TOKENS

# The tokens of the digits stand at their own codes, as those of all characters that names use: the needle.
_DIGITS = b"".join(b"%d\0" % digit for digit in range(10))
# What can be in a name: characters of C, of assembler labels, and UTF-8 of languages that allow it.
_NOT_IN_TOKENS = bytes(range(1, 0x21)) + b"\x7f"


class KallsymsNotFoundError(InputError):
    """There are no kallsyms tables in what was searched, or none that hold together; `str()` says which."""


class Encoding:
    """How addresses are stored. The words are for the description."""

    # a081b5789255 (7.0): 32 bits signed, counted from where they are stored themselves
    PC_RELATIVE = "PC-relative"
    # 2213e9a66bb8 (4.6) up to 6.18: 32 bits unsigned, counted from the lowest address
    BASE_RELATIVE = "base-relative"
    # the same with KALLSYMS_ABSOLUTE_PERCPU (x86_64, up to 6.14): what is not negative is an address, the others are
    # counted down from one below the lowest address
    BASE_RELATIVE_PERCPU = "base-relative with absolute per-CPU"
    # words, up to 6.10 (64e166099b69); since 7.0 of 32-bit kernels that do not move
    ABSOLUTE = "absolute"


@dataclass(frozen=True)
class TokenTable:
    """The tokens and their index: where they are, the bytes of each token, and the byte order of the index."""

    start: int
    index: int
    tokens: tuple[bytes, ...]
    byte_order: str

    @property
    def index_end(self) -> int:
        return self.index + TOKEN_INDEX_BYTES


@dataclass(frozen=True)
class KallsymsTables:
    """Where the tables are, as positions in what was searched: offsets in bytes, or addresses in memory.

    `addresses` is the table of addresses or offsets; `addresses_address` the address that it has in the kernel (what
    PC-relative ones count from). `word_size` is that of pointers, 4 or 8 bytes. `relative_base` is None where the
    encoding has none. `from_start`: the addresses that come out are not link addresses but counted from the start of
    what was searched, which does not say where it is linked.
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
        start = ", counted from the start of the image" if self.from_start else ""
        return f"kallsyms in the image: {self.number:,} symbols, {self.encoding}{start}"


def token_tables(data: bytes, position: int = 0) -> Iterator[TokenTable]:
    """The token tables in `data`, which begins at `position` of what is searched: with an index that agrees."""
    found = data.find(_DIGITS)
    while found >= 0:
        table = _token_table_around(data, found, position)
        if table is not None:
            yield table
        found = data.find(_DIGITS, found + 1)


def has_digits(data: bytes) -> bool:
    """Whether a token table could be in `data`."""
    return _DIGITS in data


def _token_table_around(data: bytes, digits: int, position: int) -> TokenTable | None:
    """The token table with those digits; None if what is around is none."""
    # From the digit 0 on there are 208 tokens; their lengths must be those that the index says.
    rest = data[digits : digits + (TOKENS - ord("0")) * (MAX_TOKEN_BYTES + 1)].split(b"\0", TOKENS - ord("0"))
    if len(rest) <= TOKENS - ord("0"):
        return None
    end = digits + sum(map(len, rest[:-1])) + len(rest) - 1
    for padding in range(MAX_PADDING + 1):
        raw = data[end + padding : end + padding + TOKEN_INDEX_BYTES]
        if len(raw) < TOKEN_INDEX_BYTES:
            return None
        for byte_order in ("little", "big"):
            index = struct.unpack(("<" if byte_order == "little" else ">") + f"{TOKENS}H", raw)
            start = digits - index[ord("0")]
            if index[0] == 0 and index[-1] == end - len(rest[-2]) - 1 - start and start >= 0:
                tokens = _tokens(data[start:end], index)
                if tokens is not None:
                    return TokenTable(position + start, position + end + padding, tokens, byte_order)
        if data[end + padding]:
            return None
    return None


def _tokens(data: bytes, index: Sequence[int]) -> tuple[bytes, ...] | None:
    """The tokens of a table's bytes, if they are where the index says and such as names are made of."""
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
    """The token table whose place is known: `table` are the bytes from its start on, at least to its end."""
    offsets = struct.unpack(("<" if byte_order == "little" else ">") + f"{TOKENS}H", index)
    end = table.find(b"\0", offsets[-1])
    tokens = _tokens(table[: end + 1], offsets) if end >= 0 else None
    return None if tokens is None else TokenTable(start, index_start, tokens, byte_order)
