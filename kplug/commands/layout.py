"""kregions, ksections, ksegments: tables of an image's layout, with runtime addresses."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kplug.commands.base import Column, Command, Output, Problem, Table, add_json_argument
from kplug.image.layout import section_to_segment_mapping

if TYPE_CHECKING:
    from kplug.image.placed import PlacedImage
    from kplug.linker.regions import Gap, Region
    from kplug.session import Session

_RANGE = (Column("START", "start"), Column("END", "end"), Column("SIZE", "size", right=True))


def _no_image() -> Problem:
    return Problem("no vmlinux is loaded")


def _sections(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    if not session.images:
        yield _no_image()
    for placed in session.images:
        image = placed.image
        if not image.sections:
            yield Problem(f"{image.path}: has no section headers")
            continue
        segments: dict[int, list[str]] = {}
        for segment, held in zip(image.segments, section_to_segment_mapping(image.elf.sections, image.segments)):
            for section in held:
                segments.setdefault(section.index, []).append(f"{segment.index:02}")
        rows = []
        for section, as_read in zip(image.sections, image.elf.sections):
            held_at = placed.placement.runtime(section.address) if section.occupies_addresses else None
            rows.append(
                {
                    "index": f"{section.index}",
                    "name": section.name,
                    "type": section.type,
                    "start": held_at,
                    "end": None if held_at is None else held_at + section.end - section.address,
                    "size": as_read.size,
                    "flags": section.flag_letters,
                    "segments": " ".join(segments.get(section.index, ())),
                    "link_start": as_read.address,
                    "offset": as_read.offset,
                    "entry_size": as_read.entry_size,
                    "link": f"{as_read.link}",
                    "info": f"{as_read.info}",
                    "alignment": f"{as_read.alignment}",
                    "image": image.name,
                }
            )
        columns = (
            Column("NR", "index", right=True),
            Column("NAME", "name"),
            Column("TYPE", "type"),
            *_RANGE,
            Column("FLG", "flags"),
            Column("SEG", "segments"),
            Column("LINK START", "link_start"),
        )
        yield Table("kplug.sections/1", columns, rows)


def _segments(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    if not session.images:
        yield _no_image()
    for placed in session.images:
        image = placed.image
        if not image.segments:
            if placed is session.images[0]:
                yield Problem(f"{image.path}: has no program headers")
            continue  # a module never has
        rows = []
        for segment, held in zip(image.segments, image.section_to_segment):
            start = placed.placement.runtime(segment.address) if segment.memory_size else None
            rows.append(
                {
                    "index": f"{segment.index:02}",
                    "type": segment.type,
                    "start": start,
                    "end": None if start is None else start + segment.end - segment.address,
                    "size": segment.memory_size,
                    "file_size": segment.file_size,
                    "flags": segment.flag_letters,
                    "offset": segment.offset,
                    "link_start": segment.address,
                    "physical": segment.physical_address,
                    "alignment": segment.alignment,
                    "sections": " ".join(section.name for section in held),
                    "image": image.name,
                }
            )
        columns = (
            Column("NR", "index", right=True),
            Column("TYPE", "type"),
            *_RANGE,
            Column("FLG", "flags"),
            Column("PHYSICAL", "physical"),
            Column("SECTIONS", "sections"),
        )
        yield Table("kplug.segments/1", columns, rows)


def _regions(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    # Not at the head of the file: declaring the commands must stay cheap.
    from kplug.linker.regions import Gap

    main = session.main
    if main is None:
        yield _no_image()
        return
    tree = main.image.regions
    if not tree.regions:
        yield Problem(f"{main.image.path}: no boundary symbols, so no regions (no symbol table?)")
        return
    items: list[tuple[int, int, Any]] = [(r.start, -r.end, r) for r in tree.regions]
    items += [(gap.start, -gap.end, gap) for gap in tree.gaps]
    if arguments.empty:
        items += [(region.start, -region.end, region) for region in tree.empty]
    items.sort(key=lambda item: item[:2])
    rows = []
    for _, _, item in items:
        row = _gap_row(item) if isinstance(item, Gap) else _region_row(main, item, item not in tree.empty)
        start = main.placement.runtime(item.start)
        row.update(start=start, end=start + item.end - item.start, size=item.end - item.start, link_start=item.start)
        rows.append(row)
    columns = (
        Column("REGION", "shown"),
        *_RANGE,
        Column("CLASS", "class"),
        Column("AFTER BOOT", "after_boot"),
        Column("BOUNDS", "bounds"),
    )
    yield Table("kplug.regions/1", columns, rows)


def _region_row(placed: PlacedImage, region: Region, in_tree: bool) -> dict[str, Any]:
    tree = placed.image.regions
    after_boot = "freed" if region.freed_after_boot else "read-only" if region.read_only_after_init else None
    bounds = (region.start_symbol or "?") + " .. " + (region.end_symbol or f"+{region.end - region.start:#x}")
    return {
        "shown": "  " * (tree.depth(region) if in_tree else 1) + region.name,
        "name": region.name,
        "class": (tree.region_class(region.start) if in_tree and region is not tree.root else region.region_class),
        "after_boot": after_boot,
        "bounds": bounds,
        "start_symbol": region.start_symbol,
        "end_symbol": region.end_symbol,
        "freed_after_boot": region.freed_after_boot,
        "read_only_after_init": region.read_only_after_init,
        "source": region.source,
    }


def _gap_row(gap: Gap) -> dict[str, Any]:
    return {
        "shown": "  (gap)",
        "name": None,
        "class": "none",
        "after_boot": "freed" if gap.freed_after_boot else None,
        "bounds": f"{gap.after} .. {gap.before}: {gap.why}",
        "after": gap.after,
        "before": gap.before,
    }


def _add_regions_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--empty", action="store_true", help="list the pairs that bracket nothing, too")
    add_json_argument(parser)


SECTIONS = Command(
    name="sections",
    summary="the image's sections, where they are now",
    description="List the sections as readelf names them, with runtime and link addresses and their segments.",
    examples=(("", "the table"), ("--json", "for a script")),
    add_arguments=add_json_argument,
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
