"""Builds the region tree of an image from the values of its boundary symbols.

A region's name, class and whether it is freed after boot come from `kplug.linker.boundary_table`. Other pairs come from
the naming convention (`kplug.linker.boundary_names`), or from the linker script itself if there is a build tree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from kplug.arch import registry
from kplug.arch.types.boundaries import BoundaryRow
from kplug.frozen import replace
from kplug.linker.boundary_names import BY_CONVENTION, conventional_pairs
from kplug.linker.boundary_table import ROOT_END, ROOT_START, TEXT_ROWS, boundary_table
from kplug.linker.regions import Region, RegionTree, size_of
from kplug.model import TEXT

if TYPE_CHECKING:
    from kplug.linker.script import LinkerScript

BY_SCRIPT = "linker script {}"
LARGEST_IMAGE = 1 << 32  # bytes; a larger [_text, _end) means a wrong symbol table
MOST_UNKNOWN_PAIRS = 1000  # a kernel has a handful; more in a crafted symbol table are ignored
LARGEST_OUTSIDER = 1 << 30  # bytes; the same for a region that is not inside it
#: The symbols that `text_interior` needs.
TEXT_BOUNDS = (ROOT_START, ROOT_END, *(name for pair in TEXT_ROWS[0].pairs for name in (pair.start, *pair.ends)))
_TEXT_PAIR = r"__\w+_text_(?:start|begin)"


def build_region_tree(symbols: Mapping[str, int], machine: str, script: LinkerScript | None = None) -> RegionTree:
    """The region tree of an image.

    `symbols` gives the link address of each candidate for a boundary. From an ELF file these are the sizeless NOTYPE
    symbols that are global, and those in `table_symbols` whatever their binding. From a System.map or kallsyms, which
    have no sizes, they are the names with a capital letter, and those in `table_symbols`. `machine` is the architecture
    as `uname -m`, ELF or Debian name it. `script` is the build tree's own linker script, if there is one.
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
    unknown = chain(_script_pairs(script, symbols, rows), conventional_pairs(symbols))
    for region in islice(unknown, MOST_UNKNOWN_PAIRS):
        if (region.start_symbol, region.end_symbol) in pairs or (region.start, region.end) in spans:
            continue  # already there, perhaps by a better name
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


def text_interior(symbols: Mapping[str, int]) -> range:
    """The addresses within text, without the first: where one of a pair is there, and a name that no row has does not
    begin with `_`, the pair is no region (`_plausible`)."""
    text = _from_row(TEXT_ROWS[0], symbols, _root(symbols))
    return range(text.start + 1, text.end) if text is not None else range(0)


def _script_pairs(
    script: LinkerScript | None, symbols: Mapping[str, int], rows: Sequence[BoundaryRow]
) -> Iterator[Region]:
    """The pairs without a row that the linker script assigns, named as in the script."""
    if script is None:
        return
    from kplug.linker.script_brackets import brackets

    known = {ROOT_START, ROOT_END}
    for row in rows:
        for pair in row.pairs:
            known.update((pair.start, *pair.ends))
    for bracket in brackets(script, known):
        start, end = symbols.get(bracket.start_symbol), symbols.get(bracket.end_symbol)
        if start is not None and end is not None:
            source = BY_SCRIPT.format(os.path.basename(script.name))
            yield Region(bracket.name, start, end, bracket.start_symbol, bracket.end_symbol, source=source)


def _root(symbols: Mapping[str, int]) -> Region | None:
    start, end = symbols.get(ROOT_START), symbols.get(ROOT_END)
    if start is None or end is None or not start < end <= start + LARGEST_IMAGE:
        return None
    return Region("image", start, end, ROOT_START, ROOT_END)


def _from_row(row: BoundaryRow, symbols: Mapping[str, int], root: Region | None) -> Region | None:
    """The region that the row describes, if this image has it and its bounds are plausible.

    A pair counts where none before it does. Of a list without the names of data a pair may lack its end: the region is
    there, but what bounds it in other kernels bounds something else in this one.
    """
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
        elif any(name in symbols for name in pair.ends):
            continue
        else:
            return None
        region = Region(
            row.name, start, bounds[0], pair.start, bounds[1], row.region_class, row.freed, row.read_only_after_init
        )
        if _applies(row, region, symbols) and _sane(region, root, row.outside):
            # What is too short for an entry is padding up to the next symbol, which then ends nothing.
            if size_of(region) < row.least:
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
    return (outside or root is None) and size_of(region) <= LARGEST_OUTSIDER


def _repeats(region: Region, row: BoundaryRow, found: Sequence[Region]) -> bool:
    """Whether the row adds nothing: its pair is already used, or it only gives another name to a range that has one."""
    return any(
        other.start == region.start
        and other.end == region.end
        and (
            row.length is not None or (other.start_symbol, other.end_symbol) == (region.start_symbol, region.end_symbol)
        )
        for other in found
    )


def _plausible(region: Region, root: Region | None, found: Sequence[Region]) -> bool:
    """Whether a pair without a row can be a region of this image.

    It must lie in the image or in the per-CPU range, and not cut across a region that has a class. Within text, a name
    is not enough, since labels inside functions and pairs of functions are called X_start and X_end as well: only the
    script's own forms `__start_X` and `__X_text_start` count there.
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
        return start_symbol.startswith("__start_") or re.fullmatch(_TEXT_PAIR, start_symbol) is not None
    return True
