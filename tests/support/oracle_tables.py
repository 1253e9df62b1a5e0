"""kplug's sections, segments and symbols beside what readelf and nm print of a file."""

from __future__ import annotations

from collections.abc import Callable

from kplug.image.elf.file import ElfFile
from kplug.image.elf.sections import section_to_segment_mapping
from kplug.image.kernel_image import KernelImage
from support.oracle import binutils
from support.oracle.binutils import SectionRow, SegmentRow

# readelf cuts segment types to this length, even with -W (RISCV_ATTRIBUT).
SEGMENT_TYPE_WIDTH = 14


def section_rows(elf: ElfFile) -> list[SectionRow]:
    """kplug's sections in the form of the oracle's rows."""
    return [
        SectionRow(
            s.index,
            s.name,
            s.type,
            s.address,
            s.offset,
            s.size,
            s.entry_size,
            s.flag_letters,
            s.link,
            s.info,
            s.alignment,
        )
        for s in elf.sections
    ]


def segment_rows(elf: ElfFile) -> list[SegmentRow]:
    """kplug's segments in the form of the oracle's rows."""
    return [
        SegmentRow(
            s.index,
            s.type[:SEGMENT_TYPE_WIDTH],
            s.offset,
            s.address,
            s.physical_address,
            s.file_size,
            s.memory_size,
            s.flag_letters,
            s.alignment,
        )
        for s in elf.segments
    ]


def mapping_names(elf: ElfFile) -> list[list[str]]:
    """kplug's section-to-segment mapping, by name."""
    return [[s.name for s in row] for row in section_to_segment_mapping(elf.sections, elf.segments)]


def assert_as_readelf(path: str) -> None:
    """All that `readelf -SlW` prints in tables."""
    elf = ElfFile(path)
    assert section_rows(elf) == binutils.sections(path)
    assert segment_rows(elf) == binutils.segments(path)
    assert mapping_names(elf) == binutils.mapping(path)


def assert_symbols_as_nm(
    image: KernelImage,
    rows: list[binutils.SymbolRow],
    letter_of: Callable[[binutils.SymbolRow], str] = lambda row: row.letter,
) -> None:
    """Letters, sizes, types, bindings and names of every entry of the symbol table."""
    wrong = []
    for row in rows[1:]:
        symbol = image.symbols.symbol(row.number)
        got = (symbol.address, symbol.size, symbol.type, symbol.binding, symbol.letter)
        name = symbol.name if row.type != "SECTION" else row.name  # readelf and nm show the section's name
        if (*got, name) != (row.value, row.size, row.type, row.binding, letter_of(row), row.name):
            wrong.append((row, got, symbol.name))
    assert not wrong, f"{len(wrong)} symbols differ; the first: {wrong[:8]}"
