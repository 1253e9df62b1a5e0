"""Headers of ELF files that lie: one clear line, or an honest answer; no traceback, no hang, no unbounded memory.

Every case runs in a child with 1 GiB of address space (bounded_kplug). What the ELF fields mean is the gABI's; the
files are made by elf_builder.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bad_files import COMMANDS, FORMS, HOSTILE, SECONDS, TWO_FORMS, acceptable, ask_all, refused
from support.bounded_kplug import BoundedKplug
from support.elf_builder import (
    BASE_64,
    COMPRESSED,
    FUNC,
    HEADER_FIELDS,
    SECTION_FIELDS,
    SHT_NOBITS,
    SHT_NOTE,
    A,
    Sec,
    Seg,
    Sym,
    W,
    header_field,
    small_vmlinux,
)

# -- header fields -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", TWO_FORMS)
@pytest.mark.parametrize("name", [name for name, _, _ in HEADER_FIELDS])
def test_any_value_of_a_file_header_field(
    kplug: BoundedKplug, file: Callable[[bytes], str], form: str, name: str
) -> None:
    elf = FORMS[form]
    data = bytearray(bytes(elf))
    offset, size = header_field(elf.bits, name)
    for value in HOSTILE:
        if value < 1 << 8 * size:
            changed = data[:]
            changed[offset : offset + size] = value.to_bytes(size, "little" if elf.little else "big")
            path = file(bytes(changed))
            acceptable(kplug.run("where", "-s", path, *COMMANDS["where"]), path)


@pytest.mark.parametrize("form", TWO_FORMS)
@pytest.mark.parametrize("section", [".text", ".notes", ".bss", ".symtab", ".strtab", ".shstrtab"])
def test_any_value_of_a_section_header_field(
    kplug: BoundedKplug, file: Callable[[bytes], str], form: str, section: str
) -> None:
    elf = FORMS[form]
    data = bytearray(bytes(elf))
    order = "little" if elf.little else "big"
    layout = elf.sized(SECTION_FIELDS)
    names = ["", *(s.name for s in elf.sections), ".symtab", ".strtab", ".shstrtab"]
    size_of_one = sum(size for _, size in layout)
    start = len(data) - size_of_one * (len(names) - names.index(section))
    commands = list(COMMANDS.items())
    number = 0
    for field, (_, size) in enumerate(layout):
        for value in HOSTILE[field % 2 :: 2]:
            if value < 1 << 8 * size:
                changed = data[:]
                changed[start : start + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
                path = file(bytes(changed))
                command, words = commands[number % len(commands)]
                acceptable(kplug.run(command, "-s", path, *words), path)
                number += 1
        start += size


@pytest.mark.parametrize("form", TWO_FORMS)
def test_any_value_of_a_segment_header_field(kplug: BoundedKplug, file: Callable[[bytes], str], form: str) -> None:
    whole = FORMS[form]
    fields = ("p_type", "p_flags", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_align")
    for name in fields:
        for value in HOSTILE:
            if value < 1 << whole.bits:
                elf = small_vmlinux(whole.bits, whole.little, whole.machine)
                elf.segments[0] = Seg(flags=5, covers=(".text", ".rodata"), fields={name: value})
                path = file(bytes(elf))
                command = ("where", "segments")[len(name) % 2]
                acceptable(kplug.run(command, "-s", path, *COMMANDS[command]), path)


@pytest.mark.parametrize("form", TWO_FORMS)
@pytest.mark.parametrize("name", ["st_name", "st_value", "st_size", "st_info", "st_shndx"])
def test_any_value_of_a_symbol_field(kplug: BoundedKplug, file: Callable[[bytes], str], form: str, name: str) -> None:
    whole = FORMS[form]
    for value in HOSTILE:
        elf = small_vmlinux(whole.bits, whole.little, whole.machine)
        assert elf.symbols is not None
        elf.symbols += [Sym("liar", (elf.symbols[4].value), 8, ".text", FUNC, fields={name: value})]
        path = file(bytes(elf))
        for command in ("where", "sym"):
            acceptable(kplug.run(command, "-s", path, *COMMANDS[command]), path)


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({"e_shoff": 1 << 40}, "section header table lies outside the file"),
        ({"e_shoff": (1 << 64) - 1}, "section header table lies outside the file"),
        ({"e_shnum": 0xFFFE}, "section header table lies outside the file"),
        ({"e_shentsize": 0}, "entries of 0 bytes"),
        ({"e_shentsize": 63}, "entries of 63 bytes"),
        ({"e_shentsize": 0xFFFF}, "entries of 65535 bytes"),
        ({"e_phoff": 1 << 40}, "program header table lies outside the file"),
        ({"e_phentsize": 1}, "entries of 1 bytes"),
        ({"e_phnum": 0xFFFE}, "65534 program headers"),
    ],
)
def test_a_header_that_lies_is_refused_saying_how(
    kplug: BoundedKplug, file: Callable[[bytes], str], header: dict[str, int], what: str
) -> None:
    ask_all(kplug, file(bytes(small_vmlinux(header=header))), lambda answer, path: refused(answer, path, what))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"symtab_fields": {"sh_entsize": 1}}, "symbols of 1 bytes"),
        ({"symtab_fields": {"sh_entsize": 1 << 63}}, "symbols of"),
        ({"symtab_fields": {"sh_link": 0}}, "names no string table"),
        ({"symtab_fields": {"sh_link": 7}}, "names no string table"),  # itself
        ({"symtab_fields": {"sh_link": 1}}, "names no string table"),  # .text
        ({"symtab_fields": {"sh_link": 0xFFFFFFFF}}, "names no string table"),
        ({"symtab_fields": {"sh_size": 1 << 62}}, "claims 0x4000000000000000 bytes"),
        ({"symtab_fields": {"sh_size": 1 << 24}}, "lies outside the file"),
        ({"symtab_fields": {"sh_flags": COMPRESSED}}, "compressed"),
        ({"strtab_fields": {"sh_flags": COMPRESSED}}, "compressed"),
        ({"strtab_fields": {"sh_size": 1 << 24}}, "lies outside the file"),
        ({"strings": b"\0no end"}, "does not end with NUL"),
        ({"strings": b""}, "does not end with NUL"),
    ],
)
def test_a_symbol_table_that_lies_is_refused_saying_how(
    kplug: BoundedKplug, file: Callable[[bytes], str], changes: dict[str, object], what: str
) -> None:
    path = file(bytes(small_vmlinux(64, True, None, **changes)))
    for command in ("where", "sym", "regions"):
        refused(kplug.run(command, "-s", path, *COMMANDS[command]), path, what)


def test_a_symbol_table_without_entry_size_has_that_of_its_class(
    kplug: BoundedKplug, file: Callable[[bytes], str]
) -> None:
    """objcopy of some toolchains leaves it 0; the gABI gives the entries of each class one size."""
    path = file(bytes(small_vmlinux(symtab_fields={"sh_entsize": 0})))
    assert kplug.run("where", "-b", "-s", path, "start_kernel").status == 0


def test_a_million_sections_are_refused(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    """More than e_shnum can say: 0, and the number in the null section's sh_size (gABI, "ELF Header")."""
    elf = small_vmlinux(header={"e_shnum": 0})
    data = bytearray(bytes(elf))
    null_section = len(data) - 64 * (len(elf.sections) + 4)
    struct.pack_into("<Q", data, null_section + 32, 1_000_000)
    ask_all(kplug, file(bytes(data)), lambda answer, path: refused(answer, path, "1000000 sections"))


def test_as_many_sections_as_a_file_may_have_are_listed_in_time(
    kplug: BoundedKplug, file: Callable[[bytes], str]
) -> None:
    sections = [Sec("", SHT_NOBITS, A, BASE_64, size=0x1000, fields={"sh_name": 0}) for _ in range(15_000)]
    elf = small_vmlinux()
    elf.sections += sections
    answer = kplug.run("sections", "-s", file(bytes(elf)))
    assert (answer.status, answer.crash) == (0, None)
    assert answer.out.count("NOBITS") == 15_001
    assert answer.seconds < SECONDS


def test_sections_times_segments_are_bounded(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    elf = small_vmlinux(header={"e_shnum": 0, "e_shoff": 1 << 16, "e_phnum": 9999, "e_phoff": 8 << 20})
    first = elf.pack(elf.sized(SECTION_FIELDS), {"sh_size": 99_999})
    path.write_bytes(bytes(elf).ljust(1 << 16, b"\0") + first)
    os.truncate(path, 10 << 20)  # a hole: the file takes no room
    refused(kplug.run("segments", "-s", str(path)), str(path), "99999 sections in 9999 segments")


@pytest.mark.parametrize(
    "header", [{"e_shentsize": 0xFFFF, "e_shnum": 60_000}, {"e_phentsize": 0xFFFF, "e_phnum": 9000}]
)
def test_large_entries_in_a_large_file_take_no_memory(
    kplug: BoundedKplug, tmp_path: Path, header: dict[str, int]
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux(header=header)))
    os.truncate(path, 8 << 30)
    refused(kplug.run("where", "-s", str(path), "0"), str(path), "entries of 65535 bytes")


def test_a_symbol_table_of_half_a_gigabyte_takes_no_memory(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux(symtab_fields={"sh_size": 500 << 20})))
    os.truncate(path, 600 << 20)
    refused(kplug.run("where", "-s", str(path), "0"), str(path), "claims 0x1f400000 bytes")


# -- sections, segments, notes -----------------------------------------------------------------------------------------


def test_without_a_symbol_table_sections_and_segments_are_answered_with_a_warning(
    kplug: BoundedKplug, file: Callable[[bytes], str]
) -> None:
    path = file(bytes(small_vmlinux(symbols=None)))
    answer = kplug.run("where", "-s", path, "0xffffffff81000014", ".data+8")
    assert (answer.status, answer.err) == (0, "")
    assert re.search(r"segment +LOAD\[0\]", answer.out)
    assert re.search(r"section +\.text", answer.out)
    assert re.search(r"section +\.data", answer.out)
    assert answer.out.count("no symbol table") == 2
    for command in ("sections", "segments"):
        assert kplug.run(command, "-s", path).status == 0
    for command in ("sym", "regions"):
        answer = kplug.run(command, "-s", path, *COMMANDS[command][:1])
        assert answer.status == 1
        assert "no symbol table" in answer.err


def test_a_file_without_sections_says_so(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    path = file(bytes(small_vmlinux(header={"e_shoff": 0, "e_shnum": 0, "e_shstrndx": 0})))
    answer = kplug.run("sections", "-s", path)
    assert (answer.status, answer.out) == (1, "")
    assert "no section headers" in answer.err
    assert kplug.run("segments", "-s", path).status == 0


def test_a_file_without_segments_says_so(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    path = file(bytes(small_vmlinux(segments=[])))
    answer = kplug.run("segments", "-s", path)
    assert (answer.status, answer.out) == (1, "")
    assert "no program headers" in answer.err


@pytest.mark.parametrize("base", [(1 << 64) - 1, (1 << 64) - 0x1000, 1 << 63, 0])
def test_a_section_at_the_edge_of_the_address_space_ends_there(
    kplug: BoundedKplug, file: Callable[[bytes], str], base: int
) -> None:
    elf = small_vmlinux()
    elf.sections.append(Sec("edge", SHT_NOBITS, A | W, base, size=0x2000))
    path = file(bytes(elf))
    ask_all(kplug, path)
    answer = kplug.run("where", "--json", "-s", path, hex(base))
    assert answer.status == 0
    for number in re.findall(r'"(-?0x[0-9a-f]+)"', answer.out):
        assert 0 <= int(number, 16) <= 1 << 64


def test_sections_that_overlap_are_all_told(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    elf = small_vmlinux()
    elf.sections += [Sec(f"o{i}", SHT_NOBITS, A, BASE_64 + i, size=0x200 - 2 * i) for i in range(100)]
    answer = kplug.run("where", "-s", file(bytes(elf)), "ffffffff81000070")
    assert answer.status == 0
    assert len(re.findall(r"^  section  o\d+ ", answer.out, re.M)) == 100


def test_notes_that_lie_about_their_sizes_end_the_notes(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    for sizes in ((0xFFFFFFFF, 0), (0, 0xFFFFFFFF), (0xFFFFFFFC, 0xFFFFFFFC), (4, 0x10000), (0, 0)):
        elf = small_vmlinux()
        elf.sections[2] = Sec(".notes", SHT_NOTE, A, BASE_64 + 0x1080, struct.pack("<III", *sizes, 3) + b"GNU\0")
        path = file(bytes(elf))
        answer = kplug.run("where", "--json", "-s", path, "start_kernel")
        assert answer.status == 0
        assert '"build_id": null' in answer.out


def test_gigabytes_of_notes_are_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    elf = small_vmlinux()
    elf.sections += [Sec("n", SHT_NOTE, fields={"sh_offset": 1 << 21, "sh_size": 1 << 20}) for _ in range(3000)]
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(elf))
    os.truncate(path, 5 << 20)
    # An answer names the build ID, and so needs the notes; the tables do not.
    refused(kplug.run("where", "-s", str(path), "start_kernel"), str(path), "notes")
    for command in ("sections", "segments", "regions"):
        assert kplug.run(command, "-s", str(path)).status == 0
