"""The interface of an architecture's page tables, which are walked in physical memory: no I/O, no debugger."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Callable, Protocol

from kplug.arch.types.memory_map import AddressSpaceFacts
from kplug.frozen import Frozen

# Reads the entry at a physical address, as a number.
ReadEntry = Callable[[int], int]


class Translation(Frozen):
    """A translation: the physical address, the number of bytes after it in its page, the page's permissions.

    `page_size` is what one entry maps, in bytes; `level` counts from 0, the table whose entries map the smallest pages.
    """

    physical: int
    room: int
    permissions: str
    page_size: int
    level: int


class Translator(Protocol):
    """What translates addresses. Walking memory that is not a page table is safe: each level is read once at most."""

    @property
    def entry_size(self) -> int:
        """The bytes of an entry."""

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None if it is not mapped. Errors are those of `read`."""


class Tables(Translator, Protocol):
    """One set of page tables."""

    @property
    def root(self) -> int:
        """The physical address of the top table."""

    @property
    def levels(self) -> int:
        """The number of tables that a walk goes through."""

    @property
    def entries(self) -> int:
        """The number of entries in a full table."""

    @property
    def top_entries(self) -> int:
        """The number of entries in the top table, which is shorter if an address has few bits for it."""

    def table_below(self, entry: int, level: int) -> int | None:
        """The physical address of the table that an entry of a level's table points to, or None."""

    def page_at(self, entry: int, level: int) -> int | None:
        """The physical address of the page that an entry of a level's table maps, or None."""


class Paging(Frozen):
    """How one kernel maps its memory.

    `image` is the image's virtual range, `image_offset` the distance of its virtual addresses from the physical ones;
    `direct_map` likewise, up to the last page of RAM. Both are None if not known. `root` is the physical address of the
    kernel's own tables, `tables(root, user)` makes tables of the same shape. `address_bits` is the number of bits that
    page tables translate; the bits above repeat the highest, or (arm64) are all the same. `kernel_start` is the lowest
    address that is no program's. `tables_start` is the address that the top table's first entry maps, where that does
    not follow from their bits. `shifts` are the bits below those that each level translates, where tables are not pages
    full of entries; `lowest_entries` is the length of the lowest tables, where it differs from the others'.
    """

    page_shift: int
    address_bits: int
    image: range | None
    image_offset: int | None
    direct_map: range | None
    direct_offset: int | None
    root: int | None
    tables: Callable[[int, bool], Tables]
    upper_half: int
    kernel_start: int = 1 << 63
    tables_start: int | None = None
    shifts: tuple[int, ...] = ()
    lowest_entries: int | None = None

    @cached_property
    def entry_size(self) -> int:
        """The bytes of an entry of any table."""
        return self.tables(0, False).entry_size

    def shift(self, level: int) -> int:
        """How many bits of an address are below those that a level's tables translate."""
        if self.shifts:
            return self.shifts[level]
        return self.page_shift + level * (self.page_shift - (self.entry_size.bit_length() - 1))

    def length(self, tables: Tables, level: int) -> int:
        """The number of entries of a level's table."""
        if level == tables.levels - 1:
            return tables.top_entries
        return self.lowest_entries if self.lowest_entries is not None and level == 0 else tables.entries

    def first_address(self, mask: int) -> int:
        """What the kernel's top table maps first; `mask` has all bits of an address."""
        return self.tables_start if self.tables_start is not None else mask + 1 - (1 << self.address_bits)

    @property
    def page_size(self) -> int:
        return 1 << self.page_shift

    def is_user(self, address: int) -> bool:
        """Whether an address belongs to user programs."""
        return address < self.kernel_start

    def is_canonical(self, address: int) -> bool:
        """Whether page tables can translate the address at all."""
        return address >= self.upper_half or address < self.user_end

    @property
    def user_end(self) -> int:
        """The end of the user's half."""
        return min((1 << 64) - self.upper_half, self.kernel_start)


class PagingSources(Protocol):
    """Sources for how a kernel maps its memory. `numbers` are VMCOREINFO's, `others` its lines without parentheses,
    `image` is the image's place, `ram_start` the physical address that may be the first of memory, if one is tried.
    """

    facts: AddressSpaceFacts
    numbers: Mapping[str, int]
    others: Mapping[str, str]
    ram_start: int | None
    little_endian: bool
    page_size: int | None
    image: range | None
    has_image: bool

    def symbol(self, *names: str) -> int | None:
        """The address of the first of these symbols that VMCOREINFO or the image has."""

    def has_symbol(self, name: str) -> bool:
        """Whether the image has that symbol."""

    def variable(self, name: str, image_offset: int | None = None) -> int | None:
        """The value of an unsigned long or pointer; None if there is none or it cannot be read.

        It is read at its physical address if the image's offset is given: that needs no page tables.
        """
