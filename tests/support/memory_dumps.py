"""A dump, open, with what its guest and its kernel's log say of memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from drgn.helpers.linux.printk import get_dmesg

from support.open_dumps import Dumped

PAGE = 4096


class MemoryDump(Dumped):
    """A dump, open, and where its RAM is."""

    @cached_property
    def direct_map(self) -> int:
        base: int = self.prog["page_offset_base"].value_()
        return base

    @cached_property
    def frames(self) -> range:
        """The frames of RAM above the first MiB, all of them with a struct page."""
        return range(0x100, self.prog["max_pfn"].value_())

    @cached_property
    def log(self) -> str:
        text: str = get_dmesg(self.prog).decode(errors="replace")
        return text


@dataclass
class Area:
    """A line of /proc/vmallocinfo."""

    start: int
    end: int
    caller: str | None
    pages: int | None
    words: set[str]


def areas(dumped: Dumped) -> Iterator[Area]:
    for line in dumped.dumps.truth.text("vmallocinfo").splitlines():
        bounds, _size, *rest = line.split()
        start, end = (int(text, 16) for text in bounds.split("-"))
        caller = rest[0].partition("/")[0] if rest and "+0x" in rest[0] else None
        pages = next((int(word[6:]) for word in rest if word.startswith("pages=")), None)
        yield Area(start, end, caller, pages, set(rest))
