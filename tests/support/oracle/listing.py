"""Reads a `readelf -a` listing that has passed through a web page: two lines an entry, blanks run together."""

from __future__ import annotations

import re

from support.oracle.binutils import SectionRow, SegmentRow

_FIRST = re.compile(r"^\[ ?(\d+)\] (?:(\S+) )?(\S+) ([0-9a-f]{16}) ([0-9a-f]{8})$")
_SECOND = re.compile(r"^([0-9a-f]{16}) ([0-9a-f]{16}) (?:([WAXMSILOGTCxoElp]+) )?(\d+) (\d+) (\d+)$")
_SEGMENT = re.compile(r"^([A-Z_]+) (0x[0-9a-f]+) (0x[0-9a-f]+) (0x[0-9a-f]+)$")
_SEGMENT_SECOND = re.compile(r"^(0x[0-9a-f]+) (0x[0-9a-f]+) (?:([RWE ]+) )?(0x[0-9a-f]+)$")
_MAPPING = re.compile(r"^(\d\d)((?: \S+)*)$")

# Without -W readelf cuts section names to this length in the table; the mapping below it has them whole.
NAME_WIDTH = 17


def read_listing(text: str) -> tuple[list[SectionRow], list[SegmentRow], list[list[str]]]:
    """Sections (with the table's cut names), segments, and readelf's own section-to-segment mapping."""
    lines = text.splitlines()
    sections: list[SectionRow] = []
    segments: list[SegmentRow] = []
    mapping: list[list[str]] = []
    in_mapping = False
    for line, following in zip(lines, [*lines[1:], ""]):
        first, second = _FIRST.match(line), _SECOND.match(following)
        if first and second:
            index, name, kind, address, offset = first.groups()
            size, entry_size, flags, link, info, alignment = second.groups()
            sections.append(
                SectionRow(
                    int(index),
                    name or "",
                    kind,
                    int(address, 16),
                    int(offset, 16),
                    int(size, 16),
                    int(entry_size, 16),
                    flags or "",
                    int(link),
                    int(info),
                    int(alignment),
                )
            )
        first, second = _SEGMENT.match(line), _SEGMENT_SECOND.match(following)
        if first and second:
            kind, offset, address, physical = first.groups()
            file_size, memory_size, flags, alignment = second.groups()
            segments.append(
                SegmentRow(
                    len(segments),
                    kind,
                    int(offset, 16),
                    int(address, 16),
                    int(physical, 16),
                    int(file_size, 16),
                    int(memory_size, 16),
                    (flags or "").strip(),
                    int(alignment, 16),
                )
            )
        in_mapping = in_mapping or line == "Segment Sections..."
        row = _MAPPING.match(line)
        if in_mapping and row:
            mapping.append(row.group(2).split())
    return sections, segments, mapping
