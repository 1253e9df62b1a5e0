"""ELF files: headers, bytes, notes, readelf's words and its section-to-segment mapping.

Expected values: the ELF gABI, and binutils (include/elf/internal.h, ELF_SECTION_IN_SEGMENT; binutils/readelf.c). Real
kernels and many machines are compared with readelf itself in tests/exhaustive.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.elf_builder import (
    BANNER,
    BASE_64,
    BUILD_ID,
    COMPRESSED,
    ET_CORE,
    PT_DYNAMIC,
    PT_GNU_STACK,
    PT_LOAD,
    PT_NOTE,
    PT_PHDR,
    PT_TLS,
    SHT_NOBITS,
    SHT_NOTE,
    TLS,
    A,
    Elf,
    Sec,
    Seg,
    W,
    X,
    build_id_note,
    small_vmlinux,
)

from kplug.errors import InputError
from kplug.image.elf.file import ElfFile, Note, build_id_in, notes_in
from kplug.image.elf.names import segment_flag_letters
from kplug.image.elf.sections import Section, Segment, section_in_segment, section_to_segment_mapping


def elf_of(folder: Path, elf: Elf) -> ElfFile:
    path = folder / "elf"
    path.write_bytes(bytes(elf))
    return ElfFile(str(path))


FORMS = ((64, True, 62, "x86_64"), (64, False, 21, "ppc64"), (32, True, 3, "i386"), (32, False, 20, "ppc"))


@pytest.mark.parametrize(("bits", "little", "machine", "name"), FORMS)
def test_the_header_is_read_in_every_class_and_byte_order(
    tmp_path: Path, bits: int, little: bool, machine: int, name: str
) -> None:
    elf = elf_of(tmp_path, small_vmlinux(bits, little, machine))
    assert (elf.bits, elf.little_endian, elf.machine, elf.type) == (bits, little, name, "EXEC")


@pytest.mark.parametrize(("number", "name"), [(1, "REL"), (2, "EXEC"), (3, "DYN"), (4, "CORE")])
def test_the_type_is_a_word_and_only_rel_is_relocatable(tmp_path: Path, number: int, name: str) -> None:
    elf = elf_of(tmp_path, small_vmlinux(type=number))
    assert (elf.type, elf.relocatable) == (name, name == "REL")


@pytest.mark.parametrize(("bits", "little", "machine", "name"), FORMS)
def test_every_field_of_a_section_is_read(tmp_path: Path, bits: int, little: bool, machine: int, name: str) -> None:
    made = Sec(".x", 1, A | W, 0x12345678, b"abc", link=3, info=4, align=32, entry_size=7)
    section = elf_of(tmp_path, Elf(bits, little, machine=machine, sections=[made])).sections[1]
    assert section.offset % 32 == 0
    assert section == Section(1, ".x", "PROGBITS", 0x12345678, section.offset, 3, 7, 3, "WA", 3, 4, 32)
    assert (section.end, section.allocated, section.writable, section.executable) == (0x1234567B, True, True, False)


@pytest.mark.parametrize(("bits", "little", "machine", "name"), FORMS)
def test_every_field_of_a_segment_is_read(tmp_path: Path, bits: int, little: bool, machine: int, name: str) -> None:
    fields = {"p_offset": 1, "p_vaddr": 2, "p_paddr": 3, "p_filesz": 4, "p_memsz": 5, "p_align": 6}
    elf = elf_of(tmp_path, Elf(bits, little, machine=machine, segments=[Seg(PT_LOAD, 5, fields=fields)]))
    (segment,) = elf.segments
    assert segment == Segment(0, "LOAD", 1, 2, 3, 4, 5, 5, "R E", 6)
    assert (segment.name, segment.end) == ("LOAD[0]", 7)


@pytest.mark.parametrize(
    ("flags", "letters"),
    [(0, ""), (4, "R"), (5, "R E"), (6, "RW"), (7, "RWE"), (1, "  E"), (2, " W"), (8, "")],
)
def test_segment_flags_are_readelfs_three_columns(flags: int, letters: str) -> None:
    assert segment_flag_letters(flags) == letters


def test_more_sections_than_the_header_can_say_are_all_read(tmp_path: Path) -> None:
    """gABI, e_shnum: 0, and the number in sh_size of the null section; e_shstrndx likewise in its sh_link."""
    elf = small_vmlinux(header={"e_shnum": 0, "e_shstrndx": 0xFFFF})
    data = bytearray(bytes(elf))
    number = len(elf.sections) + 4
    null_section = len(data) - 64 * number
    struct.pack_into("<QI", data, null_section + 32, number, number - 1)
    path = tmp_path / "elf"
    path.write_bytes(data)
    assert [section.name for section in ElfFile(str(path)).sections[1:3]] == [".text", ".rodata"]
    assert len(ElfFile(str(path)).sections) == number


def test_more_segments_than_the_header_can_say_are_all_read(tmp_path: Path) -> None:
    """gABI, e_phnum: PN_XNUM (0xffff), and the number in sh_info of the null section."""
    elf = small_vmlinux(header={"e_phnum": 0xFFFF})
    data = bytearray(bytes(elf))
    struct.pack_into("<I", data, len(data) - 64 * (len(elf.sections) + 4) + 44, 4)
    path = tmp_path / "elf"
    path.write_bytes(data)
    assert len(ElfFile(str(path)).segments) == 4


def test_header_tables_may_have_larger_entries(tmp_path: Path) -> None:
    """gABI, e_shentsize: entries are that far apart; what a reader does not know lies behind what it does."""
    elf = small_vmlinux()
    data = bytes(elf)
    number = len(elf.sections) + 4
    start = len(data) - 64 * number
    wide = b"".join(data[start + 64 * i : start + 64 * (i + 1)] + b"\xee" * 8 for i in range(number))
    changed = bytearray(data[:start] + wide)
    struct.pack_into("<H", changed, 58, 72)
    path = tmp_path / "elf"
    path.write_bytes(changed)
    assert [s.name for s in ElfFile(str(path)).sections] == [s.name for s in elf_of(tmp_path, elf).sections]


def test_a_name_outside_the_table_is_empty(tmp_path: Path) -> None:
    elf = small_vmlinux()
    elf.sections[0].fields = {"sh_name": 0xFFFFFF}
    assert elf_of(tmp_path, elf).sections[1].name == ""


def test_without_a_name_table_sections_have_no_names(tmp_path: Path) -> None:
    elf = elf_of(tmp_path, small_vmlinux(header={"e_shstrndx": 0}))
    assert {section.name for section in elf.sections} == {""}


# -- bytes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, -1), (0, 1 << 62), (1 << 62, 1), ("end", 1), ("last", 2)])
def test_bytes_outside_the_file_are_refused_naming_what(tmp_path: Path, offset: int | str, size: int) -> None:
    elf = elf_of(tmp_path, small_vmlinux())
    position = {"end": elf.size, "last": elf.size - 1}.get(str(offset), offset)
    with pytest.raises(InputError, match=r"elf: the thing lies outside the file"):
        elf.read(int(position), size, "the thing")


def test_bytes_at_the_edges_of_the_file_are_read(tmp_path: Path) -> None:
    elf = elf_of(tmp_path, small_vmlinux())
    data = (tmp_path / "elf").read_bytes()
    assert elf.read(0, 4, "x") == b"\x7fELF"
    assert elf.read(elf.size - 1, 1, "x") == data[-1:]
    assert elf.read(elf.size, 0, "x") == b""


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    elf = elf_of(tmp_path, small_vmlinux())
    (tmp_path / "elf").write_bytes(b"")
    with pytest.raises(InputError, match="truncated"):
        elf.read(0, 64, "x")


def test_section_bytes_are_those_of_the_file_and_none_of_nobits(tmp_path: Path) -> None:
    elf = elf_of(tmp_path, small_vmlinux())
    assert elf.section_bytes(elf.sections[1]) == b"\x90" * 0x200
    bss = elf.section(".bss")
    assert bss is not None
    assert elf.section_bytes(bss) == b""


def test_compressed_and_oversized_sections_are_refused_by_name(tmp_path: Path) -> None:
    elf = small_vmlinux()
    elf.sections[0].flags |= COMPRESSED
    file = elf_of(tmp_path, elf)
    with pytest.raises(InputError, match=r"section \.text is compressed"):
        file.section_bytes(file.sections[1])
    with pytest.raises(InputError, match=r"section \.rodata claims 0x80 bytes"):
        file.section_bytes(file.sections[2], limit=0x7F)


def test_bytes_at_an_address_are_those_of_its_section(tmp_path: Path) -> None:
    elf = elf_of(tmp_path, small_vmlinux())
    assert elf.read_address(BASE_64 + 0x1000, 13) == BANNER[:13]
    assert elf.read_address(BASE_64 + 0x1FE, 100) == b"\x90\x90"  # up to the section's end
    assert elf.read_address(BASE_64 + 0x2040, 4) is None  # .bss has none
    assert elf.read_address(BASE_64 + 0x200, 4) is None  # between two sections


# -- notes -------------------------------------------------------------------------------------------------------------


def note(owner: bytes, number: int, description: bytes, little: bool = True) -> bytes:
    """gABI, "Note Section": three words, then name and description, each padded to four bytes."""
    header = struct.pack("<III" if little else ">III", len(owner), len(description), number)
    return (
        header + owner.ljust(-(-len(owner) // 4) * 4, b"\0") + description.ljust(-(-len(description) // 4) * 4, b"\0")
    )


@pytest.mark.parametrize("little", [True, False])
def test_notes_are_owner_number_and_description(little: bool) -> None:
    data = note(b"GNU\0", 3, b"\1\2\3\4\5", little) + note(b"Linux\0", 0x100, b"", little) + note(b"", 7, b"x", little)
    assert list(notes_in(data, little)) == [
        Note("GNU", 3, b"\1\2\3\4\5"), Note("Linux", 0x100, b""), Note("", 7, b"x"),
    ]  # fmt: skip


def test_a_broken_note_ends_the_notes(tmp_path: Path) -> None:
    whole = note(b"GNU\0", 3, b"\1\2\3\4")
    for cut in range(1, 20):
        assert list(notes_in(whole + whole[:cut], True)) == [Note("GNU", 3, b"\1\2\3\4")]


def test_the_build_id_is_the_gnu_note_of_type_3() -> None:
    notes = [Note("stapsdt", 3, b"\xff"), Note("GNU", 5, b"\xff"), Note("GNU", 3, b""), Note("GNU", 3, b"\x0a\xbc")]
    assert build_id_in(notes) == "0abc"
    assert build_id_in(notes[:3]) is None


@pytest.mark.parametrize("little", [True, False])
def test_the_build_id_of_a_file(tmp_path: Path, little: bool) -> None:
    elf = elf_of(tmp_path, small_vmlinux(64, little, 62 if little else 21))
    assert elf.build_id == BUILD_ID.hex()


def test_a_file_without_sections_has_the_notes_of_its_segments(tmp_path: Path) -> None:
    elf = small_vmlinux(type=ET_CORE, header={"e_shoff": 0, "e_shnum": 0})
    assert elf_of(tmp_path, elf).build_id == BUILD_ID.hex()


# -- the section-to-segment mapping ------------------------------------------------------------------------------------

FLAGS = {"": 0, "A": A, "WA": A | W, "AX": A | X, "WAT": A | W | TLS, "T": TLS}


def a_section(flags: str, address: int, offset: int, size: int, nobits: bool = False) -> Section:
    kind = "NOBITS" if nobits else "PROGBITS"
    return Section(1, ".s", kind, address, offset, size, 0, FLAGS[flags], flags, 0, 0, 1)


def a_segment(kind: str, address: int, offset: int, file_size: int, memory_size: int) -> Segment:
    return Segment(0, kind, offset, address, 0, file_size, memory_size, 4, "R", 1)


LOAD = a_segment("LOAD", 0x1000, 0x100, 0x80, 0x100)


@pytest.mark.parametrize(
    ("section", "segment", "inside"),
    [
        (a_section("A", 0x1000, 0x100, 0x80), LOAD, True),
        (a_section("A", 0x1000, 0x100, 0x81), LOAD, False),  # beyond the bytes in the file
        (a_section("A", 0x0FFF, 0x0FF, 0x10), LOAD, False),
        (a_section("A", 0x1000, 0x200, 0x10), LOAD, False),  # right address, wrong place in the file
        (a_section("A", 0x2000, 0x100, 0x10), LOAD, False),
        (a_section("", 0x0, 0x100, 0x10), LOAD, False),  # not in memory
        (a_section("WA", 0x1080, 0x180, 0x80, nobits=True), LOAD, True),  # .bss: by address alone
        (a_section("WA", 0x1080, 0x9999, 0x80, nobits=True), LOAD, True),
        (a_section("WA", 0x1081, 0x180, 0x80, nobits=True), LOAD, False),
        (a_section("A", 0x1000, 0x100, 0), LOAD, True),  # empty: at the start, not at the end
        (a_section("A", 0x1080, 0x180, 0), LOAD, False),
        (a_section("A", 0x107F, 0x17F, 0), LOAD, True),
        (a_section("WA", 0x1100, 0x180, 0, nobits=True), LOAD, False),
        (a_section("WAT", 0x1000, 0x100, 0x10), LOAD, True),  # .tdata
        (a_section("WAT", 0x1010, 0x110, 0x10, nobits=True), LOAD, False),  # .tbss takes no room there
        (a_section("WAT", 0x1010, 0x110, 0x10, nobits=True), a_segment("TLS", 0x1000, 0x100, 0x10, 0x20), True),
        (a_section("WA", 0x1000, 0x100, 0x10), a_segment("TLS", 0x1000, 0x100, 0x10, 0x20), False),
        (a_section("WAT", 0x1000, 0x100, 0x10), a_segment("NOTE", 0x1000, 0x100, 0x80, 0x80), False),
        (a_section("A", 0x1000, 0x100, 0x10), a_segment("PHDR", 0x1000, 0x100, 0x80, 0x80), False),
        (a_section("A", 0x1000, 0x100, 0x10), a_segment("NOTE", 0x1000, 0x100, 0x80, 0x80), True),
        (a_section("", 0, 0x100, 0x10), a_segment("NOTE", 0x1000, 0x100, 0x80, 0x80), True),
        (a_section("A", 0x1000, 0x100, 0), a_segment("NOTE", 0x1000, 0x100, 0x80, 0x80), False),  # empty: inside only
        (a_section("A", 0x1001, 0x101, 0), a_segment("NOTE", 0x1000, 0x100, 0x80, 0x80), True),
        (a_section("A", 0x1000, 0x100, 0), a_segment("DYNAMIC", 0x1000, 0x100, 0x80, 0x80), False),
        (a_section("", 0, 0x100, 0x10), a_segment("GNU_STACK", 0, 0, 0, 0), False),
        (a_section("A", 0x1000, 0x100, 0x10), a_segment("GNU_STACK", 0, 0, 0, 0), False),
    ],
)
def test_a_section_is_in_a_segment_as_binutils_decides(section: Section, segment: Segment, inside: bool) -> None:
    assert section_in_segment(section, segment) is inside


def test_the_mapping_keeps_the_order_of_the_file_and_leaves_out_the_null_section(tmp_path: Path) -> None:
    elf = elf_of(tmp_path, small_vmlinux())
    mapped = section_to_segment_mapping(elf.sections, elf.segments)
    assert [[section.name for section in held] for held in mapped] == [
        [".text", ".rodata", ".notes"], [".data", ".bss"], [".init.text"], [".notes"],
    ]  # fmt: skip


_offsets = st.integers(0, 12).map(lambda number: 0x100 + 0x10 * number)


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf")
@settings(max_examples=100)
@given(
    sections=st.lists(
        st.tuples(st.sampled_from(sorted(FLAGS)), _offsets, _offsets, st.integers(0, 6), st.sampled_from([1, 7, 8])),
        min_size=1,
        max_size=10,
    ),
    segments=st.lists(
        st.tuples(
            st.sampled_from([PT_LOAD, PT_NOTE, PT_TLS, PT_DYNAMIC, PT_PHDR, PT_GNU_STACK]),
            _offsets,
            _offsets,
            st.integers(0, 8),
            st.integers(0, 8),
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_any_layout_is_mapped_as_readelf_maps_it(
    tmp_path: Path,
    sections: list[tuple[str, int, int, int, int]],
    segments: list[tuple[int, int, int, int, int]],
) -> None:
    elf = Elf()
    for number, (flags, address, offset, size, kind) in enumerate(sections):
        fields = {"sh_offset": offset, "sh_size": 0x10 * size}
        elf.sections.append(Sec(f"s{number}", kind, FLAGS[flags], address, b"", fields=fields))
    for kind, address, offset, file_size, memory_size in segments:
        fields = {"p_offset": offset, "p_vaddr": address, "p_filesz": 0x10 * file_size, "p_memsz": 0x10 * memory_size}
        elf.segments.append(Seg(kind, fields=fields))
    path = tmp_path / "elf"
    path.write_bytes(bytes(elf).ljust(0x1000, b"\0"))
    file = ElfFile(str(path))
    listing = subprocess.run(["readelf", "-lW", str(path)], capture_output=True, text=True, check=False).stdout
    lines = listing.partition("Segment Sections...\n")[2].splitlines()
    expected = {int(line.split()[0]): line.split()[1:] for line in lines if line.strip()}
    found = section_to_segment_mapping(file.sections, file.segments)
    assert {number: [section.name for section in held] for number, held in enumerate(found)} == expected


# -- placing a module's sections ---------------------------------------------------------------------------------------


def test_sections_without_an_address_are_claimed_nowhere(tmp_path: Path) -> None:
    elf = elf_of(tmp_path, small_vmlinux(type=1, segments=[]))
    placed = elf.laid_out({1: 0xFFFFFFFFC0000000})
    assert (placed[1].address, placed[1].size) == (0xFFFFFFFFC0000000, 0x200)
    assert [section.name for section in placed if section.occupies_addresses] == [".text"]


def test_a_thread_local_template_without_bytes_occupies_no_addresses() -> None:
    assert not a_section("WAT", 0x1000, 0, 0x10, nobits=True).occupies_addresses
    assert a_section("WAT", 0x1000, 0, 0x10).occupies_addresses


def test_note_sections_are_found_by_type(tmp_path: Path) -> None:
    elf = Elf(
        sections=[Sec("any.name", SHT_NOTE, A, 0x1000, build_id_note(b"\xab\xcd")), Sec(".z", SHT_NOBITS, size=9)]
    )
    assert elf_of(tmp_path, elf).build_id == "abcd"
