"""kregions, ksections, ksegments: tables of an image's layout, with runtime addresses."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug.commands.base import Command, add_json_argument
from kplug.errors import UsageError
from kplug.image.elf.sections import section_to_segment_mapping
from kplug.outputs import Column, Hex, Output, Problem, Size, Table

if TYPE_CHECKING:
    from kplug.image.placed import PlacedImage
    from kplug.linker.regions import Gap, Region, RegionTree
    from kplug.session import Session

_RANGE = (Column("START", "start"), Column("END", "end"), Column("SIZE", "size", right=True))


def _hex(number: int | None) -> Hex | None:
    return None if number is None else Hex(number)


def _asked_images(session: Session, names: Sequence[str]) -> Iterator[PlacedImage | Problem]:
    """The images of those names. Without names, those that the user gave: a kernel also has a hundred modules."""
    if not names:
        yield from session.images.given
    for name in names:
        found = session.images.named(name)
        if found is None:
            found = next((placed for placed in session.images.given if placed.image.name == name), None)
        yield found if found is not None else Problem(f"{name}: there is no image of that name")


def _add_images_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="a module (default: the images that were given)")
    add_json_argument(parser)


_SECTION_COLUMNS = (
    Column("NR", "index", right=True),
    Column("NAME", "name"),
    Column("TYPE", "type"),
    *_RANGE,
    Column("FLG", "flags"),
    Column("SEG", "segments"),
    Column("LINK START", "link_start"),
)
_SEGMENT_COLUMNS = (
    Column("NR", "index", right=True),
    Column("TYPE", "type"),
    *_RANGE,
    Column("FLG", "flags"),
    Column("PHYSICAL", "physical"),
    Column("SECTIONS", "sections"),
)
# As readelf -S and -l show them: link addresses, wherever the image is in memory.
FILE_SECTION_COLUMNS = (
    Column("NR", "index", right=True),
    Column("NAME", "name"),
    Column("TYPE", "type"),
    Column("ADDRESS", "link_start"),
    Column("OFFSET", "offset", right=True),
    Column("SIZE", "size", right=True),
    Column("ES", "entry_size", right=True),
    Column("FLG", "flags"),
    Column("LK", "link", right=True),
    Column("INF", "info", right=True),
    Column("AL", "alignment", right=True),
    Column("SEG", "segments"),
)
FILE_SEGMENT_COLUMNS = (
    Column("NR", "index", right=True),
    Column("TYPE", "type"),
    Column("OFFSET", "offset", right=True),
    Column("ADDRESS", "link_start"),
    Column("PHYSICAL", "physical"),
    Column("FILE SIZE", "file_size", right=True),
    Column("SIZE", "size", right=True),
    Column("FLG", "flags"),
    Column("ALIGN", "alignment", right=True),
    Column("SECTIONS", "sections"),
)


def section_table(placed: PlacedImage, columns: tuple[Column, ...] = _SECTION_COLUMNS, title: str = "") -> Table:
    """The image's sections, each with the segments that readelf maps it to."""
    image = placed.image
    segments: dict[int, list[str]] = {}
    for segment, held in zip(image.segments, section_to_segment_mapping(image.elf.sections, image.segments)):
        for section in held:
            segments.setdefault(section.index, []).append(f"{segment.index:02}")
    rows = []
    for section, as_read in zip(image.sections, image.elf.sections):
        held_at = placed.placement.runtime(section.address) if section.occupies_addresses else None
        rows.append(
            {
                "index": section.index,
                "name": section.name,
                "type": section.type,
                "start": _hex(held_at),
                "end": _hex(None if held_at is None else held_at + section.end - section.address),
                "size": Size(as_read.size),
                "flags": section.flag_letters,
                "segments": segments.get(section.index, []),
                "link_start": Hex(as_read.address),
                "offset": Hex(as_read.offset),
                "entry_size": Size(as_read.entry_size),
                "link": as_read.link,
                "info": as_read.info,
                "alignment": as_read.alignment,
                "image": image.name,
            }
        )
    return Table("kplug.sections/1", columns, rows, title)


def segment_table(placed: PlacedImage, columns: tuple[Column, ...] = _SEGMENT_COLUMNS, title: str = "") -> Table:
    """The image's segments, each with the sections that readelf maps to it."""
    image = placed.image
    rows = []
    for segment, held in zip(image.segments, image.section_to_segment):
        start = placed.placement.runtime(segment.address) if segment.memory_size else None
        rows.append(
            {
                "index": segment.index,
                "type": segment.type,
                "start": _hex(start),
                "end": _hex(None if start is None else start + segment.end - segment.address),
                "size": Size(segment.memory_size),
                "file_size": Size(segment.file_size),
                "flags": segment.flag_letters,
                "offset": Hex(segment.offset),
                "link_start": Hex(segment.address),
                "physical": Hex(segment.physical_address),
                "alignment": segment.alignment,
                "sections": [section.name for section in held],
                "image": image.name,
            }
        )
    return Table("kplug.segments/1", columns, rows, title)


def _sections(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    for placed in _asked_images(session, arguments.images):
        if isinstance(placed, Problem):
            yield placed
        elif not placed.image.sections:
            yield Problem(f"{placed.image.path}: has no section headers")
        else:
            yield section_table(placed, title=_title(session, placed.image.path))


def _segments(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    given = session.images.given
    for placed in given:
        image = placed.image
        if image.segments:
            yield segment_table(placed, title=_title(session, image.path))
        elif placed is given[0]:  # a module never has
            yield Problem(f"{image.path}: has no program headers")


def _title(session: Session, path: str) -> str:
    return path if len(session.images.given) > 1 else ""


def _regions(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    # Imported here so that declaring the commands stays cheap.
    from kplug.linker.regions import Gap

    main = session.main
    if main is None:
        raise UsageError("regions need a vmlinux, and none is given")
    tree, placement = main.image.regions, main.placement
    if not tree.regions:
        yield Problem(f"{main.image.path}: no boundary symbols, so no regions (no symbol table?)")
        return
    items: list[Region | Gap] = [*tree.regions, *tree.gaps, *(tree.empty if arguments.empty else ())]
    items.sort(key=lambda item: (item.start, -item.end))
    rows = []
    for item in items:
        if isinstance(item, Gap):
            row = _gap_row(item)
        else:
            row = _region_row(tree, item, in_tree=item.start < item.end)
        start = placement.runtime(item.start)
        size = item.end - item.start
        link_start = Hex(item.start) if placement.link_known else None
        rows.append(
            {**row, "start": Hex(start), "end": Hex(start + size), "size": Size(size), "link_start": link_start}
        )
    columns = (
        Column("REGION", "name"),
        *_RANGE,
        Column("CLASS", "class"),
        Column("AFTER BOOT", "after_boot"),
        Column("BOUNDS", "bounds"),
    )
    yield Table("kplug.regions/1", columns, rows, indented="name")


def _region_row(tree: RegionTree, region: Region, in_tree: bool) -> dict[str, Any]:
    bounds = (region.start_symbol or "?") + " .. " + (region.end_symbol or f"+{region.end - region.start:#x}")
    return {
        "kind": "region",
        "name": region.name,
        "depth": tree.depth(region) if in_tree else 1,
        "class": tree.region_class(region.start) if in_tree and region != tree.root else region.region_class,
        "after_boot": _after_boot(region),
        "bounds": bounds,
        "start_symbol": region.start_symbol,
        "end_symbol": region.end_symbol,
        "freed_after_boot": region.freed_after_boot,
        "read_only_after_init": region.read_only_after_init,
        "source": region.source,
    }


def _after_boot(item: Region | Gap) -> str | None:
    return "freed" if item.freed_after_boot else "read-only" if item.read_only_after_init else None


def _gap_row(gap: Gap) -> dict[str, Any]:
    return {
        "kind": "gap",
        "name": "(gap)",
        "depth": 1,
        "class": None,
        "after_boot": _after_boot(gap),
        "bounds": f"{gap.after} .. {gap.before}: {gap.why}",
        "start_symbol": None,
        "end_symbol": None,
        "freed_after_boot": gap.freed_after_boot,
        "read_only_after_init": gap.read_only_after_init,
        "source": "boundary symbols",
        "after": gap.after,
        "before": gap.before,
    }


def _add_regions_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--empty", action="store_true", help="also list the pairs that bracket nothing")
    add_json_argument(parser)


SECTIONS = Command(
    name="sections",
    takes_modules=True,
    summary="the image's sections, where they are now",
    description="List the sections as readelf names them, with runtime and link addresses and their segments.",
    examples=(("", "the table"), ("ext4", "those of a loaded module"), ("--json", "for a script")),
    add_arguments=_add_images_argument,
    run=_sections,
)
SEGMENTS = Command(
    name="segments",
    summary="the image's segments, where they are now",
    description="List the program headers, with runtime addresses and the sections in each as readelf maps them.",
    examples=(("", "the table"), ("--json", "for a script")),
    add_arguments=add_json_argument,
    run=_segments,
)
REGIONS = Command(
    name="regions",
    summary="the linker script's regions, as a tree",
    description="""List what the linker script brackets with boundary symbols (text, rodata, init, data,
bss, ...), with the gaps between, what is freed and what is read-only after boot.""",
    examples=(("", "the tree"), ("--empty", "with the pairs that bracket nothing")),
    add_arguments=_add_regions_arguments,
    run=_regions,
)
