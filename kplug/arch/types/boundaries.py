"""The rows of a table of boundary symbols."""

from __future__ import annotations

from collections.abc import Mapping

from kplug.frozen import Frozen

EMPTY = 1 << 32  # `least` of a table without entries
GENERIC_SCRIPT = "include/asm-generic/vmlinux.lds.h"


class Pair(Frozen):
    """A start symbol and the symbols that may end it: of those present, the nearest at or above the start counts."""

    start: str
    ends: tuple[str, ...]


class BoundaryRow(Frozen):
    """What is known about one region independently of a kernel."""

    name: str
    pairs: tuple[Pair, ...]  # newest first; the first one whose start and an end are present counts
    region_class: str | None = None  # None: the enclosing region's
    freed: bool | None = None  # None: the enclosing region's
    read_only_after_init: bool | None = None  # None: the enclosing region's
    where: str = GENERIC_SCRIPT
    kernels: str = "all"
    outside: bool = False  # may lie outside [_text, _end)
    inside: tuple[str, str] | None = None  # valid only if the start lies between these two symbols
    length: tuple[str, str] | None = None  # no symbol ends it: it is as long as this other pair
    least: int = 0  # bytes; anything shorter is padding before the next table, so the region is empty and has no end


# What an architecture adds to the generic rows, by the part of the image: text, rodata, init, data, bss.
BoundaryRows = Mapping[str, tuple[BoundaryRow, ...]]


def row(
    name: str,
    *pairs: str,
    cls: str | None = None,
    freed: bool | None = None,
    ro: bool | None = None,
    where: str = GENERIC_SCRIPT,
    kernels: str = "all",
    outside: bool = False,
    inside: tuple[str, str] | None = None,
    length: tuple[str, str] | None = None,
    least: int = 0,
) -> BoundaryRow:
    """A row; each pair is written "start end", or "start end other_end ..."."""
    parsed = tuple(Pair(words[0], tuple(words[1:])) for words in (pair.split() for pair in pairs))
    return BoundaryRow(name, parsed, cls, freed, ro, where, kernels, outside, inside, length, least)
