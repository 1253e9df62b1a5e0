"""BTF: the kernel's own type information (CONFIG_DEBUG_INFO_BTF, 5.2 and later).

The format is in the kernel's Documentation/bpf/btf.rst and include/uapi/linux/btf.h: a header, the types in a row, each
with a length that depends on its kind and count, and a string table. A kernel has 100,000 to 200,000 types in 4 to
5 MB, and most questions need a few of them: only the start of each type is found at once, the rest on demand.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from kplug.arch.types.word import byte_order, struct_order
from kplug.errors import InputError
from kplug.named_tuples import NamedTuple

MAGIC = 0xEB9F
# The largest kernels have 10 MB of it; BTF_MAX_NAME_OFFSET and BTF_MAX_TYPE allow for some 16 million of each.
MAX_BYTES = 1 << 26
# Identifiers have at most 511 bytes (KSYM_NAME_LEN); a longer one is invalid.
MAX_NAME_BYTES = 1024

(
    VOID,
    INT,
    PTR,
    ARRAY,
    STRUCT,
    UNION,
    ENUM,
    FWD,
    TYPEDEF,
    VOLATILE,
    CONST,
    RESTRICT,
    FUNC,
    FUNC_PROTO,
    VAR,
    DATASEC,
    FLOAT,
    DECL_TAG,
    TYPE_TAG,
    ENUM64,
) = range(20)

KIND_NAMES = (
    *("void", "INT", "PTR", "ARRAY", "STRUCT", "UNION", "ENUM", "FWD", "TYPEDEF", "VOLATILE", "CONST", "RESTRICT"),
    *("FUNC", "FUNC_PROTO", "VAR", "DATASEC", "FLOAT", "DECL_TAG", "TYPE_TAG", "ENUM64"),
)

# The words after the three of every type: a fixed number, and a number for each item counted by vlen.
_FIXED_WORDS = {INT: 1, ARRAY: 3, VAR: 1, DECL_TAG: 1}
_WORDS_EACH = {STRUCT: 3, UNION: 3, ENUM: 2, FUNC_PROTO: 2, DATASEC: 3, ENUM64: 3}

# The header up to the length of the strings; it contains its own length, and may grow.
_HEADER = "HBBIIIII"

_SIGNED, _CHAR, _BOOL = 1, 2, 4


class BtfType(NamedTuple):
    """One type. `kind` is one of the constants above, `vlen` the count of its members, enumerators, or parameters.

    `name` is empty if it has none; `flag` is kind_flag, whose meaning depends on the kind; `number` is the third word:
    a size in bytes, or the number of another type.
    """

    id: int
    kind: int
    name: str
    vlen: int
    flag: bool
    number: int


class Member(NamedTuple):
    """A member of a struct or union: `bit_size` is 0 unless it is a bit-field."""

    name: str
    type: int
    bit_offset: int
    bit_size: int


class Integer(NamedTuple):
    """The encoding of an INT: `bits` may be fewer than in its size (bit-fields of BTF before 5.2's kind_flag)."""

    signed: bool
    character: bool
    boolean: bool
    bit_offset: int
    bits: int


class _Steps(dict):  # type: ignore[type-arg]
    """The number of words of a type, by its info word: few of these differ, so each is computed once."""

    def __missing__(self, info: int) -> int:
        kind = info >> 24 & 0x1F
        if kind == VOID or kind > ENUM64:
            raise InputError(f"a type of the unknown kind {kind}")
        step = self[info] = 3 + _FIXED_WORDS.get(kind, 0) + _WORDS_EACH.get(kind, 0) * (info & 0xFFFF)
        return step


class Btf:
    """The types in `data`, which `where` names for the user. Type 0 is void.

    `base` are the types that split BTF (a module's) extends: its numbers and string offsets continue after those.
    InputError if it is not BTF; a single broken type is found when it is asked for.
    """

    def __init__(self, data: bytes, where: str, base: Btf | None = None) -> None:
        self.where = where
        self._base = base
        self._first = base.count if base is not None else 1
        self._first_string = base.strings_end if base is not None else 0
        self._words, self._strings = self._parts(data)
        try:
            self._starts = self._find_starts()
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    def _parts(self, data: bytes) -> tuple[array[int], bytes]:
        """The words of the type section, and the strings. Both are checked to lie in the data."""
        if len(data) > MAX_BYTES:
            raise InputError(f"{self.where}: {len(data):#x} bytes of BTF; no kernel has that many")
        byteorder = {b"\x9f\xeb": struct_order(True), b"\xeb\x9f": struct_order(False)}.get(data[:2])
        size = struct.calcsize("=" + _HEADER)
        if byteorder is None or len(data) < size:
            raise InputError(f"{self.where}: not BTF")
        self.byteorder = byte_order(byteorder == struct_order(True))
        _, version, _, length, type_at, type_bytes, string_at, string_bytes = struct.unpack_from(
            byteorder + _HEADER, data
        )
        if version != 1:
            raise InputError(f"{self.where}: BTF of version {version}, which kplug does not know")
        if length < size or type_at % 4 or type_bytes % 4:
            raise InputError(f"{self.where}: broken BTF header")
        for what, start, count in (("types", type_at, type_bytes), ("strings", string_at, string_bytes)):
            if length + start + count > len(data):
                raise InputError(f"{self.where}: the {what} of the BTF lie outside it")
        strings = data[length + string_at : length + string_at + string_bytes]
        if strings[-1:] != b"\0" and (strings or self._base is None):
            raise InputError(f"{self.where}: the strings of the BTF are not terminated")
        words = array("I")
        words.frombytes(data[length + type_at : length + type_at + type_bytes])
        if self.byteorder != sys.byteorder:
            words.byteswap()
        return words, strings

    def _find_starts(self) -> array[int]:
        """The start of each type, in words."""
        starts: list[int] = []
        append = starts.append
        words, steps, position, end = self._words, _Steps(), 0, len(self._words)
        try:
            while position < end:
                append(position)
                position += steps[words[position + 1]]
        except IndexError:
            position = end + 1
        if position != end:
            raise InputError("the last type of the BTF is truncated")
        return array("I", starts)

    # -- types by number -----------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """One more than the number of the last type."""
        return self._first + len(self._starts)

    @property
    def strings_end(self) -> int:
        """The offset after the last string."""
        return self._first_string + len(self._strings)

    def type(self, number: int) -> BtfType:
        """The type of that number; InputError if there is none."""
        if self._base is not None and 0 <= number < self._first:
            return self._base.type(number)
        if number == 0:
            return BtfType(0, VOID, "", 0, False, 0)
        start = self._start(number)
        name, info, third = self._words[start : start + 3]
        kind = info >> 24 & 0x1F
        return BtfType(number, kind, self.string(name), info & 0xFFFF, bool(info >> 31), third)

    def _start(self, number: int) -> int:
        index = number - self._first
        if not 0 <= index < len(self._starts):
            raise InputError(f"{self.where}: there is no type {number} in the BTF")
        return self._starts[index]

    def _extra(self, entry: BtfType, kinds: Iterable[int]) -> Sequence[int]:
        """The words after the first three of a type, which must be of one of those kinds."""
        if self._base is not None and entry.id < self._first:
            return self._base._extra(entry, kinds)
        if entry.kind not in kinds:
            raise InputError(f"{self.where}: type {entry.id} of the BTF is a {KIND_NAMES[entry.kind]}")
        start = self._start(entry.id) + 3
        return self._words[
            start : start + _FIXED_WORDS.get(entry.kind, 0) + _WORDS_EACH.get(entry.kind, 0) * entry.vlen
        ]

    def string(self, offset: int) -> str:
        """The string at that offset; InputError if there is none, or it is longer than any name."""
        if offset < self._first_string and self._base is not None:
            return self._base.string(offset)
        start = offset - self._first_string
        end = self._strings.find(b"\0", start, start + MAX_NAME_BYTES)
        if end < 0:
            raise InputError(f"{self.where}: there is no name at {offset:#x} of the BTF's strings")
        return self._strings[start:end].decode("utf-8", "backslashreplace")

    # -- what a type is made of ----------------------------------------------------------------------------------------

    def integer(self, entry: BtfType) -> Integer:
        """How an INT is encoded."""
        word = self._extra(entry, (INT,))[0]
        encoding = word >> 24 & 0xF
        return Integer(
            bool(encoding & _SIGNED), bool(encoding & _CHAR), bool(encoding & _BOOL), word >> 16 & 0xFF, word & 0xFF
        )

    def array(self, entry: BtfType) -> tuple[int, int]:
        """The type of an ARRAY's elements, and their number: 0 also for C's `[]`."""
        element, _, count = self._extra(entry, (ARRAY,))
        return element, count

    def members(self, entry: BtfType) -> Iterator[Member]:
        """The members of a STRUCT or UNION."""
        words = self._extra(entry, (STRUCT, UNION))
        for name, kind, offset in zip(words[0::3], words[1::3], words[2::3]):
            # With kind_flag the offset's upper byte is the size of a bit-field.
            bits = offset >> 24 if entry.flag else 0
            yield Member(self.string(name), kind, offset & 0xFFFFFF if entry.flag else offset, bits)

    def enumerators(self, entry: BtfType) -> Iterator[tuple[str, int]]:
        """The names and values of an ENUM or ENUM64."""
        words = self._extra(entry, (ENUM, ENUM64))
        if entry.kind == ENUM:
            bits, names, values = 32, words[0::2], list(words[1::2])
        else:
            bits, names = 64, words[0::3]
            values = [low | high << 32 for low, high in zip(words[1::3], words[2::3])]
        signed = self.is_signed(entry)
        for name, value in zip(names, values):
            yield self.string(name), value - (1 << bits) if signed and value >> bits - 1 else value

    def is_signed(self, entry: BtfType) -> bool:
        """Whether the values of an ENUM or ENUM64 are signed.

        kind_flag says so since 6.0 (6089fb325cf7); BTF without any such enum was made by an older pahole. There the
        format calls all values signed; as compilers do, an enum counts as signed if it has a negative value.
        """
        if entry.flag or self._says_signs:
            return entry.flag
        words = self._extra(entry, (ENUM, ENUM64))
        return any(value >> 31 for value in words[_WORDS_EACH[entry.kind] - 1 :: _WORDS_EACH[entry.kind]])

    @cached_property
    def _says_signs(self) -> bool:
        if self._base is not None:
            return self._base._says_signs
        signed = {1 << 31 | ENUM << 24, 1 << 31 | ENUM64 << 24, ENUM64 << 24}
        return any(info & 0xFF000000 in signed for info in set(self._infos()))

    def parameters(self, entry: BtfType) -> Iterator[tuple[str, int]]:
        """The names and types of a FUNC_PROTO's parameters; type 0 without a name is `...`."""
        words = self._extra(entry, (FUNC_PROTO,))
        for name, kind in zip(words[0::2], words[1::2]):
            yield self.string(name), kind

    def alike(self, numbers: Sequence[int]) -> bool:
        """Whether types of one name have the same layout: the same size and the same members or enumerators."""
        return len(numbers) < 2 or len({self._layout(number) for number in numbers}) == 1

    def _layout(self, number: int) -> tuple[object, ...]:
        entry = self.type(number)
        if entry.kind in (STRUCT, UNION):
            # By the name of a member's type, not its number: a type that was not deduplicated is there several times.
            members = ((m.name, m.bit_offset, m.bit_size, self.type(m.type)) for m in self.members(entry))
            return entry.kind, entry.number, *((*rest, kind.kind, kind.name) for *rest, kind in members)
        if entry.kind in (ENUM, ENUM64):
            return entry.kind, entry.number, tuple(self.enumerators(entry))
        return entry.kind, number if entry.kind == TYPEDEF else entry.number

    # -- types by name -------------------------------------------------------------------------------------------------

    def _infos(self) -> Iterator[int]:
        words = self._words
        return (words[start + 1] for start in self._starts)

    @cached_property
    def _by_name(self) -> Mapping[int, Mapping[int, list[int]]]:
        """From kind and string offset of the name to the numbers of the types. Each string is there once."""
        words = self._words
        found: dict[int, dict[int, list[int]]] = {kind: {} for kind in range(ENUM64 + 1)}
        unnamed = {PTR, ARRAY, VOLATILE, CONST, RESTRICT, FUNC_PROTO, DECL_TAG, TYPE_TAG}
        wanted = [None if kind in unnamed else names for kind, names in found.items()]
        for number, start in enumerate(self._starts, self._first):
            names = wanted[words[start + 1] >> 24 & 0x1F]
            if names is not None:
                name = words[start]
                if name:
                    names.setdefault(name, []).append(number)
        return found

    def _name_offsets(self, name: str) -> Iterator[int]:
        """The offsets of the name in the strings: a single one if they are well-formed."""
        encoded = b"\0" + name.encode("utf-8", "surrogateescape") + b"\0"
        if self._strings.startswith(encoded[1:]):
            yield self._first_string
        if self._base is not None:
            yield from self._base._name_offsets(name)
        position = self._strings.find(encoded)
        if position >= 0:
            yield self._first_string + position + 1

    def named(self, name: str, kinds: Iterable[int]) -> list[int]:
        """The numbers of all types of that name and those kinds, in the order of the file."""
        if not name or "\0" in name:
            return []
        found = [] if self._base is None else self._base.named(name, kinds)
        for offset in self._name_offsets(name):
            for kind in kinds:
                found += self._by_name[kind].get(offset, ())
        return sorted(found)

    @cached_property
    def _enumerator_index(self) -> Mapping[int, list[int]]:
        """From the string offset of an enumerator's name to the numbers of the enums that have it."""
        found: dict[int, list[int]] = {}
        words = self._words
        for number, start in enumerate(self._starts, self._first):
            kind = words[start + 1] >> 24 & 0x1F
            if kind in (ENUM, ENUM64):
                step, count = _WORDS_EACH[kind], words[start + 1] & 0xFFFF
                for name in words[start + 3 : start + 3 + step * count : step]:
                    found.setdefault(name, []).append(number)
        return found

    def enums_with(self, enumerator: str) -> list[int]:
        """The numbers of the enums that have an enumerator of that name."""
        if not enumerator or "\0" in enumerator:
            return []
        found = [] if self._base is None else self._base.enums_with(enumerator)
        for offset in self._name_offsets(enumerator):
            found += self._enumerator_index.get(offset, ())
        return sorted(set(found))
