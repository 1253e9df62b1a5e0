"""The tree of the regions that a kernel's linker script defines.

A region is the range between two boundary symbols, `[start, end)`. `kplug.linker.region_builder` finds them. Addresses
are link addresses throughout. Regions usually nest, but nothing here relies on it: riscv's data holds its rodata, and
two regions may overlap in part.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from kplug.arch import registry
from kplug.frozen import Frozen, replace
from kplug.linker.boundary_table import ROOT_END, ROOT_START

BY_TABLE = "boundary symbols"


class Region(Frozen):
    """One region: `[start, end)` in link addresses, and what is known about it.

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


class Gap(Frozen):
    """A range of the image that no region holds, between two that have names."""

    start: int
    end: int
    after: str
    before: str
    why: str
    freed_after_boot: bool | None = None
    read_only_after_init: bool | None = None


class RegionTree:
    """The regions of one image, ready for look-ups. Build it with `build_region_tree`."""

    root: Region | None
    regions: tuple[Region, ...]
    empty: tuple[Region, ...]

    def __init__(
        self, root: Region | None, regions: Iterable[Region], empty: Iterable[Region] = (), machine: str = ""
    ) -> None:
        """`regions` are without the root, and of equal ones the outer comes first. The tree resolves inheritance."""
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
        """Each region with its parent, and with what it inherits from it."""
        root = self.root
        if root is not None:
            self._parents[root] = None
        resolved: list[Region] = []
        open_regions: list[Region] = []  # those that reach beyond the current start, widest first
        for region in ordered:
            open_regions = [other for other in open_regions if other.end > region.start]
            holders = [other for other in open_regions if other.end >= region.end]
            # Among the holders the smallest; of equal ones the last, which is the innermost.
            parent = min(reversed(holders), key=size_of) if holders else None
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
        """The gap in the image that holds the address; None if a region holds it, or if it is outside the image."""
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


def _nesting_order(region: Region) -> tuple[int, int]:
    return (region.start, -region.end)


def size_of(region: Region) -> int:
    return region.end - region.start


def _known(own: bool | None, inherited: bool | None) -> bool | None:
    return inherited if own is None else own


def _pieces(regions: Sequence[Region]) -> tuple[list[int], list[tuple[Region, ...]]]:
    """The address space divided at every boundary, and for each piece the regions that hold it, widest first."""
    bounds = sorted({bound for region in regions for bound in (region.start, region.end)})
    ranked = sorted(range(len(regions)), key=lambda index: (-size_of(regions[index]), index))
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
    read_only = _read_only(regions, machine)
    position, after = root.start, ROOT_START
    for region in regions:  # by start, then the widest first
        if region.end <= root.start or region.start >= root.end:
            continue
        if region.start > position:
            yield _gap(position, region.start, after, region.name, machine, position in read_only)
        if region.end > position:
            position, after = region.end, region.name
    if position < root.end:
        yield _gap(position, root.end, after, ROOT_END, machine)


def _read_only(regions: Sequence[Region], machine: str) -> range:
    """The addresses that the architecture says are mapped read-only, whatever is there."""
    declared = registry.named(machine).read_only
    starts = {region.name: region.start for region in regions}
    if declared is None or not starts.keys() >= {*declared}:
        return range(0)
    return range(starts[declared[0]], starts[declared[1]])


def _gap(start: int, end: int, after: str, before: str, machine: str, read_only: bool = False) -> Gap:
    for freed in registry.named(machine).freed_gaps:
        if (after, before) == (freed.after, freed.before):
            return Gap(start, end, after, before, freed.why, True)
    if read_only:
        return Gap(start, end, after, before, "between two regions, mapped read-only as they are", None, True)
    if after == ROOT_START:
        why = "between the image's start and its first region"
    elif before == ROOT_END:
        why = "between the last region and the image's end"
    else:
        why = "between two regions"
    return Gap(start, end, after, before, why)
