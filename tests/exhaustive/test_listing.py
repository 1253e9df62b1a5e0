"""A distribution kernel of which only the output of `readelf -a` is known, as it was published."""

from __future__ import annotations

import pytest
from support.oracle.elf_writer import Kind, RawSection, RawSegment, write_elf
from support.oracle.listing import NAME_WIDTH, read_listing
from support.paths import TESTS

from kplug.image.elf.file import ElfFile
from kplug.image.elf.sections import Section, Segment, section_to_segment_mapping
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked
from kplug.resolver import Resolver

LISTING = TESTS / "data" / "readelf-a-distribution-kernel.txt"
SYSCTL_SCHED_RT_PERIOD = 0xFFFFFFFF8266EB24

SECTIONS, SEGMENTS, MAPPING = read_listing(LISTING.read_text())

_FLAGS = {"W": 1, "A": 2, "X": 4, "M": 0x10, "S": 0x20}
_TYPES = {"NULL": 0, "PROGBITS": 1, "STRTAB": 3, "NOTE": 7, "NOBITS": 8}
_SEGMENT_TYPES = {"LOAD": 1, "NOTE": 4}


def _bits(letters: str) -> int:
    return sum(_FLAGS[letter] for letter in letters)


def _segment_bits(letters: str) -> int:
    return sum(bit for letter, bit in (("R", 4), ("W", 2), ("E", 1)) if letter in letters)


def test_the_listing_is_whole() -> None:
    assert len(SECTIONS) == 35
    assert [row.number for row in SECTIONS] == list(range(35))
    assert len(SEGMENTS) == 5
    assert [len(row) for row in MAPPING] == [14, 3, 1, 15, 1]


def test_mapping_from_the_listing_alone() -> None:
    """The section-to-segment mapping, computed from the two tables, is the one readelf printed."""
    sections = [
        Section(
            row.number,
            row.name,
            row.type,
            row.address,
            row.offset,
            row.size,
            row.entry_size,
            _bits(row.flags),
            row.flags,
            row.link,
            row.info,
            row.alignment,
        )
        for row in SECTIONS
    ]
    segments = [
        Segment(
            row.number,
            row.type,
            row.offset,
            row.address,
            row.physical_address,
            row.file_size,
            row.memory_size,
            _segment_bits(row.flags),
            row.flags,
            row.alignment,
        )
        for row in SEGMENTS
    ]
    computed = [[section.name for section in held] for held in section_to_segment_mapping(sections, segments)]
    # .altinstr_replacement is .altinstr_replace in the section table: readelf -S without -W cuts names to 17 letters.
    # The mapping has it whole. No other name is longer.
    assert [name for row in MAPPING for name in row if len(name) > NAME_WIDTH] == [".altinstr_replacement"]
    assert computed == [[name[:NAME_WIDTH] for name in row] for row in MAPPING]


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An ELF file with the headers of the listing, and holes where the bytes were."""
    whole = {name[:NAME_WIDTH]: name for row in MAPPING for name in row}
    sections = [
        RawSection(
            whole.get(row.name, row.name),
            _TYPES[row.type],
            _bits(row.flags),
            row.address,
            row.offset,
            row.size,
            row.link,
            row.info,
            row.alignment,
            row.entry_size,
        )
        for row in SECTIONS[1:-1]
    ]
    segments = [
        RawSegment(
            _SEGMENT_TYPES[row.type],
            _segment_bits(row.flags),
            row.offset,
            row.address,
            row.physical_address,
            row.file_size,
            row.memory_size,
            row.alignment,
        )
        for row in SEGMENTS
    ]
    return write_elf(tmp_path_factory.mktemp("listing") / "vmlinux", Kind(), sections, segments)


def test_headers_come_back_from_the_file(vmlinux: str) -> None:
    elf = ElfFile(vmlinux)
    read = [(s.name[:NAME_WIDTH], s.type, s.address, s.offset, s.size, s.flag_letters) for s in elf.sections[:-1]]
    assert read == [(row.name, row.type, row.address, row.offset, row.size, row.flags) for row in SECTIONS[:-1]]
    assert [(s.type, s.flag_letters) for s in elf.segments] == [(row.type, row.flags) for row in SEGMENTS]
    computed = [[section.name for section in held] for held in KernelImage(elf).section_to_segment]
    assert computed == MAPPING


@pytest.mark.parametrize(
    ("address", "section", "segment", "flags", "region_class"),
    [
        (SYSCTL_SCHED_RT_PERIOD, ".data", 1, "RW", "data"),
        (0xFFFFFFFF81000000, ".text", 0, "R E", "text"),
        (0xFFFFFFFF81E025F6, ".text", 0, "R E", "text"),
        (0xFFFFFFFF81E025F7, None, 0, "R E", "none"),  # one byte further: between .text and .rodata
        (0xFFFFFFFF825537C4, ".notes", 0, "R E", "rodata"),  # also in NOTE[4], which is narrower
        (0xFFFFFFFF82C1A6F8, ".altinstr_replacement", 3, "RWE", "text"),
        (0xFFFFFFFF82C29000, ".bss", 3, "RWE", "bss"),
        (0x10, ".data..percpu", 2, "RW", "data"),
        (0xFFFFFFFF829657BF, ".data", 1, "RW", "data"),
        (0xFFFFFFFF829657C0, "__bug_table", 1, "RW", "data"),
        (0xFFFFFFFF83800000, None, None, None, "none"),
    ],
)
def test_addresses_from_the_listing_alone(
    vmlinux: str, address: int, section: str | None, segment: int | None, flags: str | None, region_class: str
) -> None:
    """Without any symbol there are no regions, but the section, the segment and the class are known."""
    image = KernelImage(ElfFile(vmlinux))
    resolver = Resolver([PlacedImage(image, as_linked(image.sections))])
    answer = resolver.where(address)
    section_layer, segment_layer = answer.last("section"), answer.first("segment")
    assert (section_layer.name if section_layer else None) == section
    assert (segment_layer.details["index"] if segment_layer else None) == segment
    assert (segment_layer.details["flags"] if segment_layer else None) == flags
    assert answer.region_class == region_class
    columns = resolver.bulk([address])
    assert (columns.section, columns.segment, columns.region_class) == ([section], [segment], [region_class])
