"""kmap: the whole virtual address space of the kernel, or what holds an address."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug import model
from kplug.arch.types.memory_map import CPU_ENTRY_AREA, DIRECT_MAP, FIXMAP, MODULES, VMALLOC, AddressSpace, Area
from kplug.commands.base import Command, add_json_argument
from kplug.errors import KplugError, TargetError, UsageError
from kplug.expressions import with_hint
from kplug.frozen import replace
from kplug.outputs import Address, Column, Hex, HumanSize, Output, Problem, Table

if TYPE_CHECKING:
    from kplug.image.placed import PlacedImage
    from kplug.session import Session

_COLUMNS = (
    Column("START", "start"),
    Column("END", "end"),
    Column("SIZE", "size", right=True),
    Column("AREA", "name"),
    Column("MOVED BY", "moved", right=True),
    Column("KNOWN FROM", "source"),
    Column("NOTE", "note"),
)
# How many levels of parts are listed by default; all, for areas that are not named here.
_BRIEFLY = {FIXMAP: 0, f"early {FIXMAP}": 0, "vsyscall": 0, CPU_ENTRY_AREA: 1}
_CLASSES = frozenset((model.TEXT, model.RODATA, model.INIT, model.DATA, model.BSS, model.BRK))
_MANY = 32  # parts that are listed by default
_ALL = 99


def _run(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    space = session.space
    if space is None:
        from kplug.arch import registry

        architecture = registry.named(session.machine)
        if architecture.memory_map is None:
            raise UsageError(f"kplug has no memory map of {architecture.title}")
        why = f"{architecture.title} lays its memory out when it boots, and its variables that tell it are not known"
        raise UsageError(with_hint(why, session.hints.memory))
    bits = space.bits
    contents: list[Area] = []
    with_modules = [area for area in space.areas if area.name in (MODULES, VMALLOC)]
    if arguments.verbose or any(_is_called(area, word) for area in with_modules for word in arguments.places):
        try:
            contents += session.contents() if session.contents is not None else ()
        except TargetError as error:
            yield Problem(str(error))
    areas = with_contents(session, space, contents)
    for warning in space.warnings:
        yield Problem(warning)
    if not arguments.places:
        rows = [row for area in areas for row in _rows(area, 0, _ALL if arguments.verbose else None, bits)]
        yield Table("kplug.map/1", _COLUMNS, rows, space.description, indented="name")
        return
    for word in arguments.places:
        named = [area for area in areas if _is_called(area, word)]
        if named:
            rows = [row for area in named for row in _rows(area, 0, _ALL, bits)]
            yield Table("kplug.map/1", _COLUMNS, rows, indented="name")
            continue
        try:
            addresses = [place.address for place in session.places(word)]
        except KplugError as error:
            yield Problem(str(error))
            continue
        for address in addresses:
            if not space.holds(address):
                yield Problem(f"{word}: more than {bits} bits")
                continue
            rows = [{**row, "input": word, "address": Hex(address)} for row in _holding(areas, space, address)]
            title = hex(address) if word.lower().removeprefix("0x") == f"{address:x}" else f"{word}: {address:#x}"
            yield Table("kplug.map/1", _COLUMNS, rows, title, indented="name")


def with_contents(session: Session, space: AddressSpace, contents: Sequence[Area] = ()) -> tuple[Area, ...]:
    """The areas of the space, with what is in them as parts."""
    return tuple(_with_contents(area, session, space, contents) for area in space.areas)


def _is_called(area: Area, word: str) -> bool:
    """Whether a word is the area's name, with a space, - or _ between its words. An area that may be either of two,
    because some facts are not known, has both names; the early slots of the fixmap belong to it.
    """
    if area.hole and area.name.startswith("hole "):
        return False
    plain = re.sub("[-_ ]+", " ", word.lower())
    names = re.split(", | or ", re.sub("[-_ ]+", " ", area.name.lower()).partition(" (")[0])
    return any(name in (plain, f"early {plain}") for name in names)


def _holding(areas: Sequence[Area], space: AddressSpace, address: int) -> Iterator[dict[str, Any]]:
    """The rows that hold an address, widest first."""
    area = next(area for area in areas if area.start <= address < area.end)
    yield next(_rows(area, 0, 0, space.bits))
    parts = list(space.parts_at(address))
    if not parts:
        part = area.part_at(address)
        while part is not None:
            parts.append(part)
            part = part.part_at(address)
    for depth, part in enumerate(parts, 1):
        yield next(_rows(part, depth, 0, space.bits))


def _rows(area: Area, depth: int, levels: int | None, bits: int) -> Iterator[dict[str, Any]]:
    """The row of an area or part, and the rows of its parts, `levels` deep (None: the default). `bits` are those of an
    address.
    """
    usual = levels is None
    details = area.details
    compiled = details.get("compiled_start")
    notes = [details[key] for key in ("note", "end_note") if key in details]
    if "then" in details:
        notes.append(f"if {details['if']}: {details['then']}")
    if area.nominal:
        notes.insert(0, "as compiled; the kernel may have moved it")
    if levels is None:
        levels = _BRIEFLY.get(area.name, _ALL)
        levels = 0 if len(area.parts) > _MANY else levels
        if not levels and len(area.parts) > 1:
            notes.append(f"{len(area.parts)} parts: -v, or the area's name, lists them")
    yield {
        "name": area.name,
        "depth": depth,
        "kind": "part" if depth else "hole" if area.hole else "area",
        "half": area.kind,
        "start": Address(area.start, bits),
        "end": Address(area.end, bits),
        "size": HumanSize(area.end - area.start),
        "moved": None if compiled is None or area.nominal else Hex(area.start - int(compiled, 16)),
        "compiled_start": compiled,
        "nominal": area.nominal,
        "source": _source(area),
        "note": "; ".join(notes) or None,
        **{key: details.get(key) for key in ("slot", "last_slot", "cpu", "physical", "class", "module")},
        "input": None,
        "address": None,
    }
    if levels:
        for part in area.parts:
            if not (usual and part.details.get("minor")):
                yield from _rows(part, depth + 1, None if usual and levels == _ALL else levels - 1, bits)


def _source(area: Area) -> str:
    """How the area is known, in few words: most come from the layout that is named above the table."""
    layout, _, more = area.source.partition("; ")
    return more or "layout" if " layout" in layout else area.source


def _with_contents(area: Area, session: Session, space: AddressSpace, contents: Sequence[Area]) -> Area:
    """The area with its contents as parts: the kernel image, RAM, modules."""
    parts = [*area.parts]
    modules = list(_disjoint(part for part in contents if area.start <= part.start < part.end <= area.end))
    if modules:
        count = len({part.details["module"] for part in modules})
        used = sum(part.end - part.start for part in modules)
        notes = [f"{count} modules have {used // 1024} KiB", *filter(None, [area.details.get("note")])]
        area = replace(area, details={**area.details, "note": "; ".join(notes)})
        parts += modules
    main = session.main
    if main is not None and main.image.regions.root is not None:
        start = main.placement.runtime(main.image.regions.root.start)
        if area.start <= start < area.end:
            parts.append(_image(main, area, space))
    ram_end = int(area.details.get("ram_end", "0"), 16)
    if area.name == DIRECT_MAP and area.start < ram_end < area.end:
        note = {"note": "up to the last page of RAM, including the holes between"}
        parts.append(Area("RAM", area.start, ram_end, "max_pfn", area.nominal, details=note))
        note = {"note": "addresses of the direct map without RAM"}
        parts.append(Area("beyond RAM", ram_end, area.end, "max_pfn", area.nominal, True, details=note))
    return replace(area, parts=tuple(sorted(parts, key=lambda part: part.start))) if parts else area


def _disjoint(parts: Iterable[Area]) -> Iterator[Area]:
    """The parts by address, without those that overlap an earlier one: a broken list may contain anything."""
    end = 0
    for part in sorted(parts, key=lambda part: part.start):
        if part.start >= end:
            yield part
            end = part.end


def _image(main: PlacedImage, area: Area, space: AddressSpace) -> Area:
    """The kernel image and its outermost regions."""
    image, placement, tree = main.image, main.placement, main.image.regions
    assert tree.root is not None
    runtime = placement.runtime
    regions = tuple(
        Area(
            region.name,
            runtime(region.start),
            runtime(region.start) + region.end - region.start,
            region.source,
            details={
                "class": region.region_class,
                "minor": region.name not in _CLASSES,
                **({"note": "freed after boot"} if region.freed_after_boot else {}),
            },
        )
        for region in tree.regions
        if tree.depth(region) == 1
    )
    start = runtime(tree.root.start)
    details: dict[str, Any] = {}
    if placement.known:
        details["compiled_start"] = f"{tree.root.start:#x}"
    physical = _physical(start, space)
    if physical is not None:
        details["physical"] = f"{physical:#x}"
        details["note"] = f"at physical address {physical:#x}"
    if area.name == VMALLOC:
        details["note"] = "; ".join(["in the vmalloc area", *filter(None, [details.get("note")])])
    name = f"{image.name} {image.release or ''}".rstrip()
    end = start + tree.root.end - tree.root.start
    return Area(name, start, end, placement.source, not placement.known, details=details, parts=regions)


def _physical(address: int, space: AddressSpace) -> int | None:
    """The physical address of an address in the image."""
    # Not at the top: the commands are declared when the script is sourced in gdb, and architectures take 14 ms.
    from kplug.arch import registry

    image_physical = registry.named(space.machine).image_physical
    physical = None if image_physical is None else image_physical(address, space.facts)
    return physical if physical is not None and 0 <= physical < 1 << 52 else None


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "places", nargs="*", metavar="ADDR|AREA", help="an address, or the name of an area (fixmap, direct-map, ...)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="all parts of each area, the fixmap by slot")
    add_json_argument(parser)


MAP = Command(
    name="map",
    summary="the kernel's virtual address space, area by area",
    description="""List the whole virtual address space of this kernel: each area and each hole, where it is, how far
randomisation moved it from its compiled address, and how that is known. Parts are indented below their area.""",
    examples=(
        ("", "the whole map"),
        ("fixmap", "one area, with all its parts"),
        ("0xffffc90000000000", "the area that holds an address"),
        ("-v", "the map with all parts"),
    ),
    add_arguments=_add_arguments,
    run=_run,
    takes_symbols=True,
)
