"""The tree of regions that a kernel's linker script draws, from the values of its boundary symbols.

A region is what two boundary symbols bracket, `[start, end)`. Its name, class and fate after boot come from
`kplug.linker.boundary_table`; a pair that no row knows comes in by the naming convention (`_conventional_pairs`), or
from the linker script itself where a build tree gives it. Addresses are link addresses throughout.

Regions nest, but nothing here relies on it: riscv's data holds its rodata, and two regions may overlap in part.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING

from kplug.arch import registry
from kplug.arch.types.boundaries import BoundaryRow
from kplug.linker.boundary_table import ROOT_END, ROOT_START, boundary_table, table_symbols
from kplug.model import TEXT

if TYPE_CHECKING:
    from kplug.linker.script import LinkerScript

BY_TABLE = "boundary symbols"
BY_CONVENTION = "boundary symbols by naming convention"
BY_SCRIPT = "linker script {}"

LARGEST_IMAGE = 1 << 32  # bytes; a larger [_text, _end) is a lie of the symbol table
MOST_UNKNOWN_PAIRS = 1000  # a kernel has a handful; a symbol table made to have more is not believed beyond that
LARGEST_OUTSIDER = 1 << 30  # bytes; the same for a region that is not inside it

# Names of other things than boundaries; some of them end in _start or _end because what they stand for does.
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
    "__efistub_",
    "__pi_",
    "__kvm_nvhe_",
    ".L",
    "$",
)
_TEXT_PAIR = re.compile(r"__\w+_text_(?:start|begin)")


@dataclass(frozen=True)
class Region:
    """One region: `[start, end)` in link addresses, and what is known of it.

    `region_class` is the region's own; None means the enclosing region's. `freed_after_boot` and
    `read_only_after_init` are resolved: the region's own, else what the narrowest enclosing region that knows says.
    """

    name: str
    start: int
    end: int
    start_symbol: str | None
    end_symbol: str | None
    region_class: str | None = None
    freed_after_boot: bool | None = None
    read_only_after_init: bool | None = None
    source: str = BY_TABLE


@dataclass(frozen=True)
class Gap:
    """A run of the image that no region holds, between two that have names."""

    start: int
    end: int
    after: str
    before: str
    why: str
    freed_after_boot: bool | None = None


class RegionTree:
    """The regions of one image, ready for look-ups. Build it with `build_region_tree`."""

    root: Region | None
    regions: tuple[Region, ...]
    empty: tuple[Region, ...]

    def __init__(
        self, root: Region | None, regions: Iterable[Region], empty: Iterable[Region] = (), machine: str = ""
    ) -> None:
        """`regions` without the root, in the order in which equal ones nest; the tree resolves what they inherit."""
        ordered = sorted(regions, key=_nesting_order)
        self.root = root
        self._parents: dict[Region, Region | None] = {}
        resolved = self._resolve(ordered)
        self.regions = (() if root is None else (root,)) + resolved
        self.empty = tuple(sorted(empty, key=_nesting_order))
        self._starts, self._chains = _pieces(resolved)
        self._gaps = tuple(_gaps(root, resolved, machine))
        self._gap_starts = [gap.start for gap in self._gaps]

    def _resolve(self, ordered: Sequence[Region]) -> tuple[Region, ...]:
        """Each region with its parent found and, from it, what it does not know itself."""
        root = self.root
        if root is not None:
            self._parents[root] = None
        resolved: list[Region] = []
        open_regions: list[Region] = []  # those that reach beyond the current start, widest first
        for region in ordered:
            open_regions = [other for other in open_regions if other.end > region.start]
            holders = [other for other in open_regions if other.end >= region.end]
            # Among the holders the smallest; of equal ones the last, which is the innermost.
            parent = min(reversed(holders), key=_size) if holders else None
            if parent is not None:
                region = replace(
                    region,
                    freed_after_boot=_known(region.freed_after_boot, parent.freed_after_boot),
                    read_only_after_init=_known(region.read_only_after_init, parent.read_only_after_init),
                )
            elif root is not None and root.start <= region.start and region.end <= root.end:
                parent = root
            self._parents[region] = parent
            resolved.append(region)
            open_regions.append(region)
        return tuple(resolved)

    def chain(self, link_address: int) -> tuple[Region, ...]:
        """The regions that hold the address, widest to narrowest, without the root."""
        piece = bisect_right(self._starts, link_address) - 1
        return self._chains[piece] if piece >= 0 else ()

    def region_class(self, link_address: int) -> str | None:
        """The class of the narrowest region there that has one."""
        for region in reversed(self.chain(link_address)):
            if region.region_class is not None:
                return region.region_class
        return None

    def gap(self, link_address: int) -> Gap | None:
        """The gap of the image that the address lies in; None if a region holds it, or if it is outside the image."""
        position = bisect_right(self._gap_starts, link_address) - 1
        if position < 0 or link_address >= self._gaps[position].end:
            return None
        return self._gaps[position]

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """All of them, in the order of their addresses."""
        return self._gaps

    def boundaries(self) -> list[int]:
        """Every start and end, sorted: between two neighbours of this list `chain` and `gap` do not change."""
        return sorted({bound for region in self.regions for bound in (region.start, region.end)})

    def parent(self, region: Region) -> Region | None:
        """The narrowest region that holds the whole of this one; the root's own is None."""
        return self._parents[region]

    def depth(self, region: Region) -> int:
        """How many regions hold this one: 0 for the root, and for what lies outside it."""
        depth = 0
        parent = self._parents[region]
        while parent is not None:
            depth += 1
            parent = self._parents[parent]
        return depth


def build_region_tree(symbols: Mapping[str, int], machine: str, script: LinkerScript | None = None) -> RegionTree:
    """The region tree of an image.

    `symbols` gives the link address of each candidate for a boundary. From an ELF file: the sizeless NOTYPE symbols
    that are global, and those in `table_symbols` whatever their binding; from a System.map or kallsyms, which tell no
    sizes: the names with a capital letter, and those in `table_symbols`. `machine` is the architecture as `uname -m`,
    ELF or Debian name it. `script` is the build tree's own linker script, where there is one.
    """
    architecture = registry.by_word(machine)
    machine = machine if architecture is None else architecture.name
    root = _root(symbols)
    rows = boundary_table(machine)
    found: list[Region] = []
    for row in rows:
        region = _from_row(row, symbols, root)
        if region is not None and not _repeats(region, row, found):
            found.append(region)
    pairs = {(region.start_symbol, region.end_symbol) for region in found}
    spans = {(region.start, region.end) for region in found if region.start < region.end}
    unknown = chain(_script_pairs(script, symbols, rows), _conventional_pairs(symbols))
    for region in islice(unknown, MOST_UNKNOWN_PAIRS):
        if (region.start_symbol, region.end_symbol) in pairs or (region.start, region.end) in spans:
            continue  # known, perhaps by a better name
        if _plausible(region, root, found):
            found.append(region)
            pairs.add((region.start_symbol, region.end_symbol))
            if region.start < region.end:
                spans.add((region.start, region.end))
    if script is not None:
        # Regions of one extent nest as the script opens them.
        order = script.order()
        found.sort(key=lambda region: order.get(region.start_symbol or "", len(order)))
    return RegionTree(
        root,
        [region for region in found if region.start < region.end],
        [region for region in found if region.start == region.end],
        machine,
    )


_NOT_BOUNDARY_BYTES = tuple(prefix.encode() for prefix in _NOT_BOUNDARIES)
# Of two boundary symbols that no row knows one has a name that begins or ends so (`_conventional_pairs`).
CONVENTIONAL_STARTS = (b"__start_", b"__stop_", b"__end_")
CONVENTIONAL_END = b"_end"


@lru_cache(maxsize=1)
def _table_names() -> frozenset[bytes]:
    return frozenset(name.encode() for name in table_symbols())


def may_be_boundary(conventional: Collection[bytes]) -> set[bytes]:
    """The names that a boundary symbol may have in a list that tells no types and sizes.

    `conventional` are all those in the list that begin as one of `CONVENTIONAL_STARTS` or end in `CONVENTIONAL_END`.
    Not each of the others has to be in it.
    """
    stems = {name[: -len(CONVENTIONAL_END)] for name in conventional if name.endswith(CONVENTIONAL_END)}
    names = stems.union(conventional, *({stem + end for stem in stems} for end in (b"_start", b"_begin")))
    return {name for name in names if not name.startswith(_NOT_BOUNDARY_BYTES)} | _table_names()


def _script_pairs(
    script: LinkerScript | None, symbols: Mapping[str, int], rows: Sequence[BoundaryRow]
) -> Iterator[Region]:
    """The pairs that the linker script assigns and no row knows, by the script's own words."""
    if script is None:
        return
    known = {ROOT_START, ROOT_END}
    for row in rows:
        for pair in row.pairs:
            known.update((pair.start, *pair.ends))
    for bracket in script.brackets(known):
        start, end = symbols.get(bracket.start_symbol), symbols.get(bracket.end_symbol)
        if start is not None and end is not None:
            source = BY_SCRIPT.format(os.path.basename(script.name))
            yield Region(bracket.name, start, end, bracket.start_symbol, bracket.end_symbol, source=source)


def _nesting_order(region: Region) -> tuple[int, int]:
    return (region.start, -region.end)


def _size(region: Region) -> int:
    return region.end - region.start


def _known(own: bool | None, inherited: bool | None) -> bool | None:
    return inherited if own is None else own


def _root(symbols: Mapping[str, int]) -> Region | None:
    start, end = symbols.get(ROOT_START), symbols.get(ROOT_END)
    if start is None or end is None or not start < end <= start + LARGEST_IMAGE:
        return None
    return Region("image", start, end, ROOT_START, ROOT_END)


def _from_row(row: BoundaryRow, symbols: Mapping[str, int], root: Region | None) -> Region | None:
    """The region that the row describes, if this image has it and its bounds are sane."""
    for pair in row.pairs:
        start = symbols.get(pair.start)
        if start is None:
            continue
        ends = [(symbols[name], name) for name in pair.ends if symbols.get(name, -1) >= start]
        if ends:
            end, end_symbol = min(ends, key=lambda bound: bound[0])
            bounds: tuple[int, str | None] = (end, end_symbol)
        elif row.length is not None and all(name in symbols for name in row.length):
            bounds = (start + symbols[row.length[1]] - symbols[row.length[0]], None)
        else:
            continue
        region = Region(
            row.name, start, bounds[0], pair.start, bounds[1], row.region_class, row.freed, row.read_only_after_init
        )
        if _applies(row, region, symbols) and _sane(region, root, row.outside):
            # What is too short for an entry is padding up to the next symbol, which then ends nothing.
            if 0 < _size(region) < row.least:
                return replace(region, end=region.start, end_symbol=None)
            return region
    return None


def _applies(row: BoundaryRow, region: Region, symbols: Mapping[str, int]) -> bool:
    if row.inside is None:
        return True
    low, high = (symbols.get(name) for name in row.inside)
    return low is not None and high is not None and low <= region.start <= region.end <= high


def _sane(region: Region, root: Region | None, outside: bool) -> bool:
    if not 0 <= region.start <= region.end:
        return False
    if root is not None and root.start <= region.start and region.end <= root.end:
        return True
    return (outside or root is None) and _size(region) <= LARGEST_OUTSIDER


def _repeats(region: Region, row: BoundaryRow, found: Sequence[Region]) -> bool:
    """Whether the row has nothing to add: its very pair is taken, or it only counted off a range that has a name."""
    return any(
        other.start == region.start
        and other.end == region.end
        and (
            row.length is not None or (other.start_symbol, other.end_symbol) == (region.start_symbol, region.end_symbol)
        )
        for other in found
    )


def _conventional_pairs(symbols: Mapping[str, int]) -> Iterator[Region]:
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
            if end is not None and label:
                pairs.append(Region(label, start, end, name, end_name, source=BY_CONVENTION))
                break
    pairs.sort(key=lambda region: (region.start, -region.end, region.name))
    yield from pairs


def _plausible(region: Region, root: Region | None, found: Sequence[Region]) -> bool:
    """Whether a pair that no row knows can be a region of this image.

    It lies in the image or in the per-CPU range, and does not cut across a region that has a class. Within text, names
    are not enough, for labels inside functions and pairs of functions are called X_start and X_end as well: there the
    script's own forms only, `__start_X` and `__X_text_start`.
    """
    if region.start > region.end:
        return False
    within = root is not None and root.start <= region.start and region.end <= root.end
    if region.source != BY_CONVENTION and _sane(region, root, outside=True):
        return True  # the script says so
    if not within and not any(
        other.name == "percpu" and other.start <= region.start and region.end <= other.end for other in found
    ):
        return False
    in_text = False
    for other in found:
        if other.region_class is None and other.name != "init.text":
            continue
        if region.start < other.end and other.start < region.end:  # they meet
            inside = other.start <= region.start and region.end <= other.end
            if not inside:
                return False
            in_text = in_text or other.region_class == TEXT or other.name == "init.text"
    if in_text:
        start_symbol = region.start_symbol or ""
        return start_symbol.startswith("__start_") or _TEXT_PAIR.fullmatch(start_symbol) is not None
    return True


def _pieces(regions: Sequence[Region]) -> tuple[list[int], list[tuple[Region, ...]]]:
    """The address space cut at every boundary, and for each piece the regions that hold it, widest first."""
    bounds = sorted({bound for region in regions for bound in (region.start, region.end)})
    ranked = sorted(range(len(regions)), key=lambda index: (-_size(regions[index]), index))
    positions = {bound: position for position, bound in enumerate(bounds)}
    holders: list[list[Region]] = [[] for _ in bounds]
    for index in ranked:
        region = regions[index]
        for position in range(positions[region.start], positions[region.end]):
            holders[position].append(region)
    return bounds, [tuple(held) for held in holders]


def _gaps(root: Region | None, regions: Sequence[Region], machine: str) -> Iterator[Gap]:
    if root is None:
        return
    position, after = root.start, ROOT_START
    for region in regions:  # by start, then the widest first
        if region.end <= root.start or region.start >= root.end:
            continue
        if region.start > position:
            yield _gap(position, region.start, after, region.name, machine)
        if region.end > position:
            position, after = region.end, region.name
    if position < root.end:
        yield _gap(position, root.end, after, ROOT_END, machine)


def _gap(start: int, end: int, after: str, before: str, machine: str) -> Gap:
    for freed in registry.named(machine).freed_gaps:
        if (after, before) == (freed.after, freed.before):
            return Gap(start, end, after, before, freed.why, True)
    if after == ROOT_START:
        why = "between the image's start and its first region"
    elif before == ROOT_END:
        why = "between the last region and the image's end"
    else:
        why = "between two regions"
    return Gap(start, end, after, before, why)
