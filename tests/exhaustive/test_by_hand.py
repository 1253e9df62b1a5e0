"""A kernel small enough that every answer is written down by hand: the oracle and kplug both must give it.

It keeps the oracle honest: a rule that both sides had wrong in the same way would show here.
"""

from __future__ import annotations

from typing import Optional

import pytest
from support.oracle.elf_writer import Kind, RawSection, RawSegment, RawSymbol, write_elf
from support.oracle_comparison import KASLR_OFFSET, Subject
from support.sampling import Sampling

from kplug.image.placed import PlacedImage
from kplug.image.placement import moved_by
from kplug.resolver import Resolver

TEXT, RODATA, DATA, BSS = 0xFFFFFFFF81000000, 0xFFFFFFFF81001000, 0xFFFFFFFF81002000, 0xFFFFFFFF81002100
SECTIONS = [
    RawSection(".text", 1, 6, TEXT, 0x1000, 0x200),
    RawSection(".rodata", 1, 3, RODATA, 0x2000, 0x100),  # WA, as in real kernels
    RawSection(".data", 1, 3, DATA, 0x3000, 0x100),
    RawSection(".bss", 8, 3, BSS, 0x3100, 0x100),
    RawSection(".data..percpu", 1, 3, 0, 0x4000, 0x80),
    RawSection(".notes", 7, 2, RODATA + 0x200, 0x2200, 0x20),
]
SEGMENTS = [
    RawSegment(1, 5, 0x1000, TEXT, 0x1000000, 0x1220, 0x1220, 0x1000),
    RawSegment(1, 6, 0x3000, DATA, 0x1002000, 0x100, 0x200, 0x1000),
    RawSegment(1, 6, 0x4000, 0, 0x1003000, 0x80, 0x80, 0x1000),
    RawSegment(4, 4, 0x2200, RODATA + 0x200, 0x1001200, 0x20, 0x20, 4),
]
_LABEL, _FUNC, _OBJECT, _STATIC_FUNC, _STATIC, _WEAK, _LOCAL_LABEL = 0x10, 0x12, 0x11, 0x02, 0x01, 0x22, 0x00


def _marker(name: str, value: int, section: int) -> RawSymbol:
    return RawSymbol(name, value, 0, _LABEL, section)


SYMBOLS = [
    RawSymbol("file.c", 0, 0, 0x04, 0xFFF1),
    RawSymbol("inner_label", TEXT + 0x48, 0, _LOCAL_LABEL, 1),  # inside wide_function
    RawSymbol("static_alias", TEXT + 0x20, 0x10, _STATIC_FUNC, 1),
    RawSymbol(".Lnothing", TEXT + 0x24, 0, _LOCAL_LABEL, 1),
    RawSymbol("__pfx_wide_function", TEXT + 0x30, 0x10, _STATIC_FUNC, 1),
    RawSymbol("table", RODATA, 0x10, _STATIC, 2),
    RawSymbol("table_start", RODATA, 0, _LOCAL_LABEL, 2),
    _marker("_text", TEXT, 1),
    _marker("_stext", TEXT, 1),
    _marker("_etext", TEXT + 0x200, 1),
    _marker("__sched_text_start", TEXT + 0x80, 1),
    _marker("__sched_text_end", TEXT + 0xC0, 1),
    _marker("__start_rodata", RODATA, 2),
    _marker("__end_rodata", RODATA + 0x220, 2),
    _marker("below_its_section", RODATA + 0x300, 3),
    _marker("_sdata", DATA, 3),
    _marker("_edata", DATA + 0x100, 3),
    _marker("__bss_start", BSS, 4),
    _marker("__bss_stop", BSS + 0x100, 4),
    _marker("_end", BSS + 0x100, 4),
    _marker("__per_cpu_start", 0, 5),
    _marker("__per_cpu_end", 0x80, 5),
    RawSymbol("start_label", TEXT, 0, _LABEL, 1),
    RawSymbol("first", TEXT + 0x10, 8, _FUNC, 1),
    RawSymbol("__exported_alias", TEXT + 0x20, 0x10, _FUNC, 1),
    RawSymbol("exported_alias", TEXT + 0x20, 0x10, _FUNC, 1),
    RawSymbol("wide_function", TEXT + 0x40, 0x40, _FUNC, 1),
    RawSymbol("sched_label", TEXT + 0x90, 0, _LABEL, 1),
    RawSymbol("weak_function", TEXT + 0x100, 0x10, _WEAK, 1),
    RawSymbol("last_label", TEXT + 0x1F0, 0, _LABEL, 1),
    RawSymbol("variable", DATA + 0x10, 0x20, _OBJECT, 3),
    RawSymbol("member", DATA + 0x18, 8, _OBJECT, 3),
    RawSymbol("zeroed", BSS + 8, 8, _OBJECT, 4),
    RawSymbol("this_cpu", 0x40, 8, _OBJECT, 5),
    RawSymbol("a_number", 0x1234, 0, _LABEL, 0xFFF1),
]

# Link address: segment, section, region, class, symbol, offset.
Row = tuple[Optional[int], Optional[str], Optional[str], str, Optional[str], Optional[int]]
EXPECTED: dict[int, Row] = {
    TEXT - 1: (None, None, None, "none", None, None),
    TEXT: (0, ".text", "text", "text", "start_label", 0),
    TEXT + 0xF: (0, ".text", "text", "text", "start_label", 0xF),  # a label reaches to the next symbol
    TEXT + 0x17: (0, ".text", "text", "text", "first", 7),
    TEXT + 0x18: (0, ".text", "text", "text", None, None),  # past the end of a sized one: padding
    TEXT + 0x20: (0, ".text", "text", "text", "exported_alias", 0),  # global, and without underscores
    TEXT + 0x24: (0, ".text", "text", "text", "exported_alias", 4),  # .L is no symbol
    TEXT + 0x35: (0, ".text", "text", "text", "__pfx_wide_function", 5),
    TEXT + 0x47: (0, ".text", "text", "text", "wide_function", 7),
    TEXT + 0x48: (0, ".text", "text", "text", "inner_label", 0),  # the narrowest
    TEXT + 0x7F: (0, ".text", "text", "text", "inner_label", 0x37),  # to the end of the symbol around it
    TEXT + 0x80: (0, ".text", "sched.text", "text", "__sched_text_start", 0),  # a marker alone at its address
    TEXT + 0x81: (0, ".text", "sched.text", "text", None, None),  # but it holds nothing
    TEXT + 0xBF: (0, ".text", "sched.text", "text", "sched_label", 0x2F),
    TEXT + 0xC0: (0, ".text", "text", "text", "__sched_text_end", 0),  # a label does not pass a marker
    TEXT + 0xC1: (0, ".text", "text", "text", None, None),
    TEXT + 0x10F: (0, ".text", "text", "text", "weak_function", 0xF),
    TEXT + 0x1FF: (0, ".text", "text", "text", "last_label", 0xF),
    TEXT + 0x200: (0, None, None, "none", "_etext", 0),  # in the image and in LOAD[0], between .text and .rodata
    RODATA: (0, ".rodata", "rodata", "rodata", "table", 0),  # W in its flags: the region says more
    RODATA + 0x10: (0, ".rodata", "rodata", "rodata", None, None),
    RODATA + 0x100: (0, None, "rodata", "rodata", None, None),
    RODATA + 0x200: (0, ".notes", "rodata", "rodata", None, None),  # NOTE[3] too; LOAD[0] is wider
    RODATA + 0x220: (None, None, None, "none", "__end_rodata", 0),  # in no segment, but in [_text, _end)
    RODATA + 0x300: (None, None, None, "none", None, None),
    DATA: (1, ".data", "data", "data", "_sdata", 0),
    DATA + 0x17: (1, ".data", "data", "data", "variable", 7),
    DATA + 0x18: (1, ".data", "data", "data", "member", 0),
    DATA + 0x20: (1, ".data", "data", "data", "variable", 0x10),  # wider again
    BSS: (1, ".bss", "bss", "bss", "__bss_start", 0),  # of two markers the one with fewer underscores
    BSS + 0xF: (1, ".bss", "bss", "bss", "zeroed", 7),
    BSS + 0x100: (None, None, None, "none", None, None),  # _end is outside
    0: (2, ".data..percpu", "percpu", "percpu", "__per_cpu_start", 0),
    0x47: (2, ".data..percpu", "percpu", "percpu", "this_cpu", 7),
    0x80: (None, None, None, "none", None, None),
    0x1234: (None, None, None, "none", None, None),
}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    path = tmp_path_factory.mktemp("by_hand") / "vmlinux"
    ordered = sorted(SYMBOLS, key=lambda symbol: symbol.info >> 4 != 0)
    # Most of them are beside the few pages of it.
    return Subject(write_elf(path, Kind(), SECTIONS, SEGMENTS, ordered), random_addresses=10_000)


@pytest.mark.parametrize("address", EXPECTED, ids=hex)
def test_the_oracle(subject: Subject, address: int) -> None:
    (answer,) = subject.oracle.answers([address])
    piece, holder = answer.piece, answer.symbols[-1] if answer.symbols else answer.marker
    names = {row.number: row.name for row in subject.oracle.section_rows}
    got = (
        piece.segments[0] if piece.segments else None,
        names[piece.sections[-1]] if piece.sections else None,
        piece.regions[-1].name if piece.regions else None,
        piece.region_class,
        holder.chosen.name if holder else None,
        address - holder.start if holder else None,
    )
    assert got == EXPECTED[address]


@pytest.mark.parametrize("kaslr_offset", [0, KASLR_OFFSET, -0x200000], ids=["as linked", "moved up", "moved down"])
@pytest.mark.parametrize("address", EXPECTED, ids=hex)
def test_kplug(subject: Subject, address: int, kaslr_offset: int) -> None:
    image = subject.image
    resolver = Resolver([PlacedImage(image, moved_by(image.sections, kaslr_offset, "test"))])
    runtime = address if address < 0x80 else address + kaslr_offset & 0xFFFFFFFFFFFFFFFF
    columns = resolver.bulk([runtime])
    got = (
        columns.segment[0],
        columns.section[0],
        columns.region[0],
        columns.region_class[0],
        columns.symbol[0],
        columns.offset[0],
    )
    assert got == EXPECTED[address]
    annotation = resolver.where(runtime)
    segment, section = annotation.first("segment"), annotation.last("section")
    region, symbol = annotation.last("region"), annotation.last("symbol")
    assert (
        segment.details["index"] if segment else None,
        section.name if section else None,
        region.name if region else None,
        annotation.region_class,
        symbol.name if symbol else None,
        symbol.offset(runtime) if symbol else None,
    ) == EXPECTED[address]


def test_aliases_and_gaps(subject: Subject) -> None:
    _, resolver = subject.moved(0)
    symbol = resolver.where(TEXT + 0x20).last("symbol")
    assert symbol is not None
    assert sorted(symbol.details["aliases"]) == ["__exported_alias", "static_alias"]
    table = resolver.where(RODATA).last("symbol")
    assert table is not None
    assert sorted(table.details["aliases"]) == ["__start_rodata", "table_start"]
    padding = resolver.where(TEXT + 0x19).last("gap")
    assert padding is not None
    assert (padding.start, padding.end) == (TEXT + 0x18, TEXT + 0x20)
    assert (padding.details["after"], padding.details["before"]) == ("first", "exported_alias")
    between = resolver.where(TEXT + 0x300).last("gap")
    assert between is not None
    assert (between.start, between.end) == (TEXT + 0x200, RODATA)
    assert (between.details["after"], between.details["before"]) == ("text", "rodata")


def test_all_of_it(subject: Subject) -> None:
    for kaslr_offset in (0, KASLR_OFFSET):
        subject.compare_bulk(kaslr_offset, Sampling(0, whole=True)).check()
        subject.compare_where(kaslr_offset, Sampling(0, whole=True)).check()  # it is small
