"""Boundary symbols by name alone: which names may be one, and which two form a pair by convention."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from itertools import repeat

from kplug.linker.boundary_table import table_symbols
from kplug.linker.object_prefixes import OBJECT_PREFIXES
from kplug.linker.regions import Region

BY_CONVENTION = "boundary symbols by naming convention"

# Names that are not boundaries. Some end in _start or _end because the name they are derived from does.
_NOT_BOUNDARIES = (
    "__ksymtab_",
    "__kstrtab",
    "__crc_",
    "__kcrctab_",
    "__flags_",  # of each exported symbol, since 7.2
    "__pfx_",
    "__cfi_",
    "__kcfi_typeid_",
    "__SCT__",
    "__SCK__",
    "__UNIQUE_ID",
    "__tracepoint_",
    "__traceiter_",
    *OBJECT_PREFIXES,
    ".L",
    "$",
)
_NOT_BOUNDARY_BYTES = tuple(prefix.encode() for prefix in _NOT_BOUNDARIES)
# Of two boundary symbols in no row of the table, one has a name that begins or ends like this (`conventional_pairs`).
CONVENTIONAL_STARTS = (b"__start_", b"__stop_", b"__end_")
CONVENTIONAL_END = b"_end"
_BEGINS = (b"_start", b"_begin")
CONVENTIONAL_SUFFIXES = (*_BEGINS, CONVENTIONAL_END)
# Of numbers that are two addresses (kernel_sec_start of arm), with one or two others between them (io_tlb_start, 5.10).
_VARIABLES_BYTES = 32


@cache
def _table_names(machine: str) -> frozenset[bytes]:
    return frozenset(name.encode() for name in table_symbols(machine))


def may_be_boundary(conventional: Collection[bytes], machine: str = "") -> set[bytes]:
    """The names that a boundary symbol of that architecture, or of any, may have in a list without types and sizes.

    `conventional` are all names in the list that begin with one of `CONVENTIONAL_STARTS` or end in `CONVENTIONAL_END`.
    The other names returned need not be in the list.
    """
    stems = {name[: -len(CONVENTIONAL_END)] for name in conventional if name.endswith(CONVENTIONAL_END)}
    begun = {stem + begin for stem in stems for begin in _BEGINS}
    names = {*conventional, *begun, *(stem for stem in stems if stem.startswith(b"__"))}
    return {name for name in names if not name.startswith(_NOT_BOUNDARY_BYTES)} | _table_names(machine)


def is_conventional(name: bytes) -> bool:
    """Whether it is one of the names that `may_be_boundary` is given."""
    return name.startswith(CONVENTIONAL_STARTS) or name.endswith(CONVENTIONAL_END)


@cache
def pattern_of_names(machine: str) -> re.Pattern[bytes]:
    """What finds the names (group 1) that `may_be_boundary` returns in lines that end in one, after a space: those that
    are in the table, and all others that begin with `_`, with few besides."""
    table = _table_names(machine)
    never = [
        name[1:]
        for name in _NOT_BOUNDARY_BYTES
        if name.startswith(b"_")
        and name.decode() not in OBJECT_PREFIXES
        and not any(map(bytes.startswith, table, repeat(name)))
    ]
    others = b"|".join(re.escape(name) for name in table if not name.startswith(b"_"))
    return re.compile(rb" (_(?!%b)[^\n]*|(?:%b)(?=\n))" % (b"|".join(map(re.escape, never)), others))


def conventional_pairs(symbols: Mapping[str, int]) -> Iterator[Region]:
    """The pairs whose names say that they bracket something, by start address and, within one, by name.

    The forms: `__start_X` with `__stop_X` or `__end_X`, `X_start` or `X_begin` with `X_end`, and `X` with `X_end` where
    X is written as a boundary is (`__X`).
    """
    pairs: list[Region] = []
    for name, start in symbols.items():
        ends: tuple[str, ...]
        if name.startswith("__start_"):
            stem = name[8:]
            ends = ("__stop_" + stem, "__end_" + stem)
        elif name.endswith(("_start", "_begin")):
            stem = name[:-6]
            ends = (stem + "_end",)
        elif name.endswith("_end") and name.startswith("__"):
            stem = name[:-4]
            if stem not in symbols or name.startswith("__end_"):
                continue
            name, start, ends = stem, symbols[stem], (name,)
        else:
            continue
        if name.startswith(_NOT_BOUNDARIES):
            continue
        label = stem.strip("_.")
        for end_name in ends:
            end = symbols.get(end_name)
            if end is not None and 0 < end - start <= _VARIABLES_BYTES and not name.startswith("_"):
                break  # two variables side by side, of which the list or the assembler states no size
            if end is not None and label:
                pairs.append(Region(label, start, end, name, end_name, source=BY_CONVENTION))
                break
    pairs.sort(key=lambda region: (region.start, -region.end, region.name))
    yield from pairs
