"""Symbols from the kallsyms tables in a kernel's memory: at the places in VMCOREINFO, or found by their structure.

In memory the relative base is relocated, so the addresses are runtime addresses.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

from kplug.arch.types.word import BEYOND_ADDRESSES
from kplug.errors import TargetError
from kplug.image.kallsyms.addresses_finder import fits
from kplug.image.kallsyms.finder import choose
from kplug.image.kallsyms.names_finder import Read, walk, words
from kplug.image.kallsyms.symbols import decode_with
from kplug.image.kallsyms.tables import (
    MAX_NAMES_BYTES,
    MAX_PADDING,
    MAX_SYMBOLS,
    MAX_TOKEN_TABLE_BYTES,
    NAMES_PER_MARKER,
    TOKEN_INDEX_BYTES,
    Encoding,
    KallsymsNotFoundError,
    KallsymsTables,
    TokenTable,
    read_token_table,
    token_tables,
)
from kplug.image.symbols.symbol_list import SymbolList

# Reads all the bytes at an address; TargetError if memory cannot be read.
ReadMemory = Callable[[int, int], bytes]
Progress = Callable[[int, int], None]

# Memory is read in pieces of this many bytes; if one cannot be read, its first and last page are tried.
_PIECE = 1 << 17
_PAGE = 1 << 12
_PIECES_KEPT = (1 << 26) // _PIECE
# In five Debian kernels from 5.10 to 7.2 the tokens lie at 44 to 50 hundredths of [_text, _end).
_LIKELY = 0.47
_PREFIX = "kallsyms_"
_NEEDED = ("names", "num_syms", "token_table", "token_index")


def from_symbols(
    symbols: Mapping[str, int],
    read: ReadMemory,
    *,
    word_size: int,
    byte_order: str,
    name: str = "memory",
) -> SymbolList:
    """The symbols of the kernel whose VMCOREINFO has `symbols` (SYMBOL(kallsyms_...), since 5fd8fea935a1, 6.0).

    `read` gives bytes at runtime addresses. How addresses are stored depends on which of SYMBOL(kallsyms_addresses),
    SYMBOL(kallsyms_relative_base) and SYMBOL(kallsyms_offsets) exist. Raises KallsymsNotFoundError if the symbols are
    missing or the tables are inconsistent, TargetError if memory cannot be read.
    """
    tables = _named_tables(symbols, _Pieces(read).read, word_size, byte_order, name)
    return decode_with(read, tables, name=name)


def find_in_memory(
    read: ReadMemory,
    start: int,
    end: int,
    *,
    near: int | None = None,
    progress: Progress | None = None,
    name: str = "memory",
) -> SymbolList:
    """The symbols of the kernel whose image is at `[start, end)`, found without symbols for the tables.

    Reads in pieces, from `near` (else from the tables' usual place) outward, and stops at the first consistent tables.
    Unreadable memory (TargetError) is skipped. `progress` is called with the bytes searched so far and in all; if it
    raises, as KeyboardInterrupt does, the search ends. KallsymsNotFoundError if there are none.
    """
    memory = _Pieces(read, start, end)
    likely = start + int((end - start) * _LIKELY) if near is None else near
    tables = choose(_tokens_in_memory(memory, likely, progress), memory.read, name, _itself, first=True)
    if tables.relative_base == 0:
        raise KallsymsNotFoundError(f"{name}: no kallsyms found: the kernel there has not relocated itself yet")
    return decode_with(memory.read, tables, name=name)


def _itself(address: int) -> int:
    """In memory a position is the address."""
    return address


class _Pieces:
    """Memory in `[start, end)`, read in pieces that are kept for a while."""

    def __init__(self, read: ReadMemory, start: int = 0, end: int = BEYOND_ADDRESSES) -> None:
        self.start, self.end = start, end
        self._read = read
        self._kept: OrderedDict[int, tuple[int, bytes]] = OrderedDict()

    def piece(self, number: int) -> tuple[int, bytes]:
        """Address and bytes of the readable part of a piece: all of it, its start or end, or nothing."""
        found = self._kept.get(number)
        if found is None:
            low, high = max(number * _PIECE, self.start), min((number + 1) * _PIECE, self.end)
            found = self._kept[number] = self._readable(low, high)
            if len(self._kept) > _PIECES_KEPT:
                self._kept.popitem(last=False)
        return found

    def _readable(self, low: int, high: int) -> tuple[int, bytes]:
        if high <= low:
            return low, b""
        whole = self._try(low, high)
        if whole:
            return low, whole
        bounds = [low, *range((low // _PAGE + 1) * _PAGE, high, _PAGE), high]
        pages = list(zip(bounds, bounds[1:]))
        head = self._run(pages)
        if head:
            return low, b"".join(head)
        tail = b"".join(reversed(self._run(pages[::-1])))
        return high - len(tail), tail

    def _run(self, pages: list[tuple[int, int]]) -> list[bytes]:
        """The bytes of the pages up to the first unreadable one."""
        found = []
        for low, high in pages:
            data = self._try(low, high)
            if not data:
                break
            found.append(data)
        return found

    def _try(self, low: int, high: int) -> bytes:
        try:
            data = self._read(low, high - low)
        except TargetError:
            return b""
        return data if len(data) == high - low else b""

    def read(self, address: int, size: int) -> bytes:
        """The bytes at an address, up to the first unreadable one."""
        for low, data in self.runs(address, address + size):
            return data if low == address else b""
        return b""

    def runs(self, low: int, high: int) -> Iterator[tuple[int, bytes]]:
        """The readable parts of `[low, high)`: the address and bytes of each contiguous range."""
        low, high = max(low, self.start), min(high, self.end)
        address = low
        parts: list[bytes] = []
        for number in range(low // _PIECE, -(-high // _PIECE)):
            begin, data = self.piece(number)
            data = data[max(low - begin, 0) : max(high - begin, 0)]
            begin = max(begin, low)
            if begin != address:
                run = b"".join(parts)
                if run:
                    yield address - len(run), run
                address, parts = begin, []
            parts.append(data)
            address += len(data)
        run = b"".join(parts)
        if run:
            yield address - len(run), run


def _tokens_in_memory(memory: _Pieces, likely: int, progress: Progress | None) -> Iterator[TokenTable]:
    """The token tables in memory, those near the likely place first."""
    first, last = memory.start // _PIECE, -(-memory.end // _PIECE)
    margin = MAX_TOKEN_TABLE_BYTES + MAX_PADDING + TOKEN_INDEX_BYTES
    seen: set[int] = set()
    for done, number in enumerate(_outward(first, last, likely // _PIECE), 1):
        for address, data in memory.runs(number * _PIECE - margin, (number + 1) * _PIECE + margin):
            for table in token_tables(data, address):
                if table.start not in seen:
                    seen.add(table.start)
                    yield table
        if progress is not None:
            progress(min(done * _PIECE, memory.end - memory.start), memory.end - memory.start)


def _outward(first: int, last: int, middle: int) -> Iterator[int]:
    """The numbers of `[first, last)`, from the middle on, each side in turn."""
    middle = min(max(middle, first), last)
    for distance in range(last - first):
        if middle + distance < last:
            yield middle + distance
        if middle - distance > first:
            yield middle - distance - 1


def _named_tables(symbols: Mapping[str, int], read: Read, word_size: int, order: str, name: str) -> KallsymsTables:
    """The tables at the addresses in VMCOREINFO."""
    places = {key[len(_PREFIX) :]: address for key, address in symbols.items() if key.startswith(_PREFIX)}
    missing = [key for key in _NEEDED if key not in places]
    if missing or not ("offsets" in places or "addresses" in places):
        which = _PREFIX + (missing[0] if missing else "offsets")
        raise KallsymsNotFoundError(f"{name}: VMCOREINFO does not say where {which} is")
    token_table = _named_tokens(places, read, order, name)
    number = _word(read, places["num_syms"], 4, order, name, "number of symbols")
    if not 0 < number <= MAX_SYMBOLS:
        raise KallsymsNotFoundError(f"{name}: kallsyms claims {number} symbols")
    markers, names_end = _walked(places, read, number, name)
    encodings: tuple[str, ...] = (Encoding.ABSOLUTE,)
    base = None
    if "addresses" not in places:
        encodings = (Encoding.PC_RELATIVE, Encoding.ABSOLUTE) if word_size == 4 else (Encoding.PC_RELATIVE,)
        if "relative_base" in places:
            base = _word(read, places["relative_base"], word_size, order, name, "relative base")
            encodings = (Encoding.BASE_RELATIVE, Encoding.BASE_RELATIVE_PERCPU)
    start = places["addresses"] if "addresses" in places else places["offsets"]
    for encoding in encodings:
        tables = KallsymsTables(
            token_table=token_table,
            byte_order=order,
            word_size=word_size,
            number=number,
            names=places["names"],
            names_end=names_end,
            markers=markers,
            order="before" if start < places["names"] else "after",
            encoding=encoding,
            addresses=start,
            addresses_address=start,
            relative_base=base,
        )
        size = tables.address_size * number
        data = read(start, size)
        if len(data) == size and fits(tables, data):
            return tables
    raise KallsymsNotFoundError(f"{name}: the addresses in kallsyms at {start:#x} are not sorted, or cannot be read")


def _word(read: Read, address: int, size: int, order: str, name: str, what: str) -> int:
    found = words(read(address, size), size, order)
    if not found:
        raise KallsymsNotFoundError(f"{name}: kallsyms' {what} at {address:#x} cannot be read")
    return found[0]


def _named_tokens(places: Mapping[str, int], read: Read, order: str, name: str) -> TokenTable:
    """The token table that VMCOREINFO names."""
    start, index = places["token_table"], places["token_index"]
    size = min(index - start, MAX_TOKEN_TABLE_BYTES) if index > start else MAX_TOKEN_TABLE_BYTES
    table = read_token_table(read(start, size), read(index, TOKEN_INDEX_BYTES), start, index, order)
    if table is None:
        raise KallsymsNotFoundError(f"{name}: there is no kallsyms token table at {start:#x}")
    return table


def _walked(places: Mapping[str, int], read: Read, number: int, name: str) -> tuple[list[int], int]:
    """The markers computed from the lengths of the names, and the address where the names end.

    VMCOREINFO does not have the markers. They cannot reach into the next table that it does have after the names.
    """
    start = places["names"]
    limit = min((place for place in places.values() if place > start), default=start)
    data = read(start, min(limit - start, MAX_NAMES_BYTES))
    markers: list[int] = []
    position = 0
    for first in range(0, number, NAMES_PER_MARKER):
        markers.append(position)
        end = walk(data, min(NAMES_PER_MARKER, number - first), position)
        if end is None:
            raise KallsymsNotFoundError(f"{name}: the names in kallsyms at {start:#x} are truncated or cannot be read")
        position = end
    return markers, start + position
