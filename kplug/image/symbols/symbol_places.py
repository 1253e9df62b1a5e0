"""Which entries of a symbol table can hold an address.

They are in an allocated section, and are not file, section or thread-local symbols, mapping symbols of the ARM, AArch64
and RISC-V ABIs ($x, $d, ...), or assembler labels (.L). All names are looked at only for a question about all symbols.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from itertools import compress

from kplug.arch import registry
from kplug.image.symbols.byte_columns import BLOCK_BITS
from kplug.image.symbols.masks import both, either, entries_of, without_mask
from kplug.image.symbols.symbol import STT_FILE, STT_NOTYPE, STT_OBJECT, STT_SECTION, STT_TLS
from kplug.image.symbols.symbol_columns import SymbolColumns
from kplug.linker.object_prefixes import OBJECT_PREFIXES

_PREFIX_BYTES = tuple(prefix.encode() for prefix in OBJECT_PREFIXES)


class SymbolPlaces(SymbolColumns):
    """The columns of a symbol table, and what they say of the entries that can hold an address."""

    @cached_property
    def _held(self) -> frozenset[int]:
        """The sections that hold addresses, by number."""
        return frozenset(section.index for section in self.sections if section.allocated and section.index)

    def is_allocated(self, section: int) -> bool:
        """Whether the section of that number holds addresses."""
        return section in self._held

    @cached_property
    def _placed(self) -> bytes:
        """The entries that can hold an address if they have a name that counts."""
        held = self._held if self._bases is None else self._held.intersection(self._bases)
        return without_mask(self._section_mask(held), self._type_mask((STT_SECTION, STT_FILE, STT_TLS)))

    @cached_property
    def _named(self) -> bytes:
        """Those of them that have a name at all."""
        mask = bytearray(self._placed)
        # A broken table: a symbol without a name answers nothing.
        if max(self._name_column, default=0) >= len(self._strings):
            for index in compress(range(len(mask)), mask):
                mask[index] = self._name_column[index] < len(self._strings)
        return without_mask(mask, self._unnamed_mask())

    @cached_property
    def _labels(self) -> list[int]:
        """The assembler labels and mapping symbols."""
        return self._nameless(both(self._named, self._type_mask((STT_NOTYPE,))))

    @cached_property
    def _places(self) -> bytes:
        """The entries that can hold an address (see the module's docstring)."""
        mask = bytearray(self._named)
        for index in self._labels:
            mask[index] = 0
        return bytes(mask)

    def label_addresses(self) -> list[int]:
        """Where assembler labels and mapping symbols are, sorted: something else begins there, of data at least."""
        return sorted(map(self.values.__getitem__, self._labels))

    def _is_place(self, index: int) -> bool:
        """Whether that entry can hold an address: without the names of all."""
        if "_places" in self.__dict__:
            return bool(self._places[index])
        offset = self._name_column[index]
        if not self._placed[index] or not 0 < offset < len(self._strings):
            return False
        return self._info[index] & 0xF != STT_NOTYPE or not self._nameless_pattern.match(self._strings, offset)

    def _nameless(self, typeless: bytes) -> list[int]:
        """The assembler labels and mapping symbols among the typeless entries; of the typed ones only clang's constants
        have such a name (`.L__const.FUNCTION.VARIABLE`)."""
        strings = self._strings
        if b".L" not in strings and b"$" not in strings:
            return []
        # Build prefixes only matter if one of these has one.
        mapping_symbols = self._has_mapping_symbols
        prefixed = b"_.L" in strings or (mapping_symbols and b"_$" in strings)
        starts = b"." + b"$" * mapping_symbols + b"_" * prefixed
        matches = self._nameless_pattern.match
        # The first byte excludes most names.
        offsets = list(compress(self._name_column, typeless))
        suspect = bytes(map(strings.__getitem__, offsets)).translate(bytes(byte in starts for byte in range(256)))
        entries = zip(compress(compress(range(len(typeless)), typeless), suspect), compress(offsets, suspect))
        return [index for index, offset in entries if matches(strings, offset)]

    @property
    def _has_mapping_symbols(self) -> bool:
        return registry.named(self._machine).elf.mapping_symbols

    @cached_property
    def _nameless_pattern(self) -> re.Pattern[bytes]:
        name = rb"\.L"
        if self._has_mapping_symbols:
            # The ABIs' mapping symbols: "$" and a letter, alone or followed by "." or (riscv) by the ISA string.
            name = rb"(?:\.L|\$[adtx](?=\0|\.|rv))"
        return re.compile(rb"(?:" + b"|".join(_PREFIX_BYTES) + rb"){0,4}" + name)

    def near(self, low: int, high: int, larger: int) -> list[int] | None:
        """The places from `low` up to `high`, and those of more than `larger` bytes, in table order; None where that
        takes a look at each of them.
        """
        if self._value_bytes is None or self._size_bytes is None:
            return None
        large = self._size_bytes.nonzero(BLOCK_BITS // 8) if larger >> BLOCK_BITS else self._sized
        around = self._value_bytes.in_blocks(range(low >> BLOCK_BITS, (high - 1 >> BLOCK_BITS) + 1))
        mask = both(self._placed, either(large, around))
        values, sizes, is_place = self.values, self.sizes, self._is_place
        return [i for i in entries_of(mask) if (low <= values[i] < high or sizes[i] > larger) and is_place(i)]

    def places(self, without: Iterable[int] = ()) -> list[int]:
        """The entries that can hold an address, in table order, except those in `without`."""
        mask = bytearray(self._places)
        for index in without:
            mask[index] = 0
        return list(compress(range(len(mask)), mask))

    def _sizeless(self, mask: bytes) -> list[int]:
        """The entries of the mask that have no size."""
        if self._size_bytes is not None:
            return entries_of(without_mask(mask, self._sized))
        sizes = self.sizes
        return [index for index in entries_of(mask) if not sizes[index]]

    @cached_property
    def _sized(self) -> bytes:
        """The entries that have a size, in a table from a file."""
        assert self._size_bytes is not None
        return self._size_bytes.nonzero()

    def empty_objects(self) -> list[int]:
        """The entries of objects that have no size (`struct lock_class_key` without lockdep): they hold no bytes."""
        objects = both(self._placed, self._type_mask((STT_OBJECT,)))
        return list(filter(self._is_place, self._sizeless(objects)))
