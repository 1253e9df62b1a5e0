"""Page tables of each architecture, walked in physical memory: no I/O of their own, no debugger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Protocol

# The 8 bytes of an entry at a physical address, as a number.
ReadEntry = Callable[[int], int]


@dataclass(frozen=True)
class Translation:
    """Where an address leads: the physical address, how many bytes lie behind it in its page, the page's rights.

    `page_size` is what one entry maps, in bytes; `level` counts from 0, the table whose entries map the smallest pages.
    """

    physical: int
    room: int
    permissions: str
    page_size: int
    level: int


class Tables(Protocol):
    """One set of page tables. Memory that is no page table can be walked too: a walk is at most `levels` reads long."""

    @property
    def root(self) -> int:
        """The physical address of the top table."""

    @property
    def levels(self) -> int:
        """How many tables a walk goes through."""

    @property
    def entries(self) -> int:
        """How many entries a whole table has."""

    def translate(self, read: ReadEntry, address: int) -> Translation | None:
        """The translation of a virtual address, or None where nothing is mapped. Errors are those of `read`."""

    def table_below(self, entry: int, level: int) -> int | None:
        """The physical address of the table that an entry of a level's table points to; None if it points to none."""
