"""Broken and hostile files: one clear line, or an honest answer; no traceback, no hang, no unbounded memory.

Every case runs in a child with 1 GiB of address
space (bounded_kplug). What the ELF fields mean is the gABI's; the files are made by elf_builder.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import lzma
import os
import random
import re
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.bounded_kplug import Answer, BoundedKplug
from support.elf_builder import (
    BASE_32,
    BASE_64,
    COMPRESSED,
    EM_386,
    EM_AARCH64,
    EM_PPC64,
    EM_X86_64,
    ET_REL,
    FUNC,
    HEADER_FIELDS,
    SECTION_FIELDS,
    SHN_XINDEX,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_SYMTAB_SHNDX,
    A,
    Elf,
    Sec,
    Seg,
    Sym,
    W,
    X,
    build_id_note,
    header_field,
    small_vmlinux,
)

from kplug.errors import InputError
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import as_linked

SECONDS = 2.0
EM_PPC = 20
COMMANDS = {
    "where": ("start_kernel+4", ".text+0x20", "ffffffff81000014", "0xc1000014", "0"),
    "sym": ("start_kernel", "s*", "0xffffffff81000014"),
    "regions": (),
    "sections": (),
    "segments": (),
}
FORMS = {
    "64 bit, little-endian": small_vmlinux(64, True, EM_X86_64),
    "64 bit, big-endian": small_vmlinux(64, False, EM_PPC64),
    "32 bit, little-endian": small_vmlinux(32, True, EM_386),
    "32 bit, big-endian": small_vmlinux(32, False, EM_PPC),
}
HOSTILE = (
    0,
    1,
    7,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0xFFFFFFFE,
    0xFFFFFFFF,
    1 << 40,
    1 << 63,
    (1 << 64) - 64,
    (1 << 64) - 1,
)
TWO_FORMS = ("64 bit, little-endian", "32 bit, big-endian")


def acceptable(answer: Answer, path: str) -> None:
    """The contract for whatever a file holds."""
    assert answer.crash is None
    assert answer.seconds < SECONDS
    assert answer.status in (0, 1, 2)
    assert "Traceback" not in answer.err
    if answer.status == 2:
        assert path in answer.err.splitlines()[-1]  # after what could be answered before it was met
    elif answer.status == 1:
        assert answer.err != ""
    else:
        assert answer.err == ""


def refused(answer: Answer, path: str, what: str = "") -> None:
    """One clear line on standard error that names the file and what is wrong; exit status 2."""
    assert answer.crash is None
    assert answer.status == 2, (answer.out[:200], answer.err[:200])
    assert answer.seconds < SECONDS
    assert answer.err.count("\n") == 1
    assert answer.err.endswith("\n")
    assert path in answer.err
    assert len(answer.err) < len(path) + 200
    assert re.search(what, answer.err), answer.err


def ask_all(kplug: BoundedKplug, path: str, check: Callable[[Answer, str], None] = acceptable) -> dict[str, Answer]:
    answers = {}
    for command, words in COMMANDS.items():
        answers[command] = kplug.run(command, "-s", path, *words)
        check(answers[command], path)
    return answers


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """Writes a file and gives its path; the same one each time."""
    path = tmp_path / "vmlinux"

    def write(data: bytes) -> str:
        path.write_bytes(data)
        return str(path)

    yield write
    path.unlink(missing_ok=True)


# -- what is no ELF file at all ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"\x7f", "not an ELF"),
        (b"\x7fELF", "truncated|broken"),
        (b"Linux version 6.1\n", "not an ELF"),
        (b"\0" * 4096, "not an ELF"),
        (b"MZ" + b"\0" * 4096, "no kernel found in it"),
        (b"\x1f\x8b" + b"\0" * 64, "gzip"),
        (b"\xfd7zXZ\0" + b"\0" * 64, "xz"),
        (b"KDUMP   " + b"\0" * 64, "kdump"),
        (b"makedumpfile\0\0\0\0" + b"\0" * 64, "flattened dump"),
        (b"\x7fELF\x03\x01\x01" + b"\0" * 64, "broken ELF header"),
        (b"\x7fELF\x02\x03\x01" + b"\0" * 64, "broken ELF header"),
    ],
)
def test_what_is_no_elf_file_is_refused_with_a_hint_at_what_it_is(
    kplug: BoundedKplug, file: Callable[[bytes], str], data: bytes, what: str
) -> None:
    ask_all(kplug, file(data), lambda answer, path: refused(answer, path, what))


def test_a_missing_file_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = str(tmp_path / "nothing")
    ask_all(kplug, path, lambda answer, path: refused(answer, path, "No such file"))


def test_a_directory_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    ask_all(kplug, str(tmp_path), lambda answer, path: refused(answer, path, "directory"))


@pytest.mark.parametrize("name", ["pipe", "pipe.xz", "pipe.gz"])
def test_a_pipe_is_refused_and_not_waited_for(kplug: BoundedKplug, tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    refused(kplug.run("where", "-s", str(tmp_path / name), "0"), str(tmp_path / name), "pipe")


def test_a_socket_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        refused(kplug.run("where", "-s", str(tmp_path / "s"), "0"), str(tmp_path / "s"), "not a file")


def test_a_device_is_refused(kplug: BoundedKplug) -> None:
    refused(kplug.run("where", "-s", "/dev/zero", "0"), "/dev/zero", "not a file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    path = file(bytes(small_vmlinux()))
    os.chmod(path, 0)
    refused(kplug.run("where", "-s", path, "0"), path, "Permission denied")


def test_a_name_with_control_characters_is_shown_safely(kplug: BoundedKplug, tmp_path: Path) -> None:
    answer = kplug.run("where", "-s", str(tmp_path / "a\x1b[31m\nb"), "0")
    assert answer.status == 2
    assert "\x1b" not in answer.err
    assert answer.err.count("\n") == 1


# -- truncation --------------------------------------------------------------------------------------------------------


def least(form: str, headers_first: bool = False) -> bytes:
    """A file with little in it, for what is tried at every byte."""
    whole = FORMS[form]
    elf = Elf(whole.bits, whole.little, machine=whole.machine, headers_first=headers_first)
    elf.sections = [
        Sec(".text", flags=A | X, address=0x1000, data=b"\x90" * 8),
        Sec(".notes", SHT_NOTE, A, 0x2000, build_id_note(b"\1\2\3\4", whole.little)),
    ]
    elf.segments = [Seg(flags=5, covers=(".text",))]
    elf.symbols = [Sym("f", 0x1000, 4, ".text", FUNC)]
    return bytes(elf)


def read_everything(path: str) -> None:
    image = open_vmlinux(path)
    placed = PlacedImage(image, as_linked(image.sections))
    for address in (0x1000, 0x1002, 0x1006, 0x2000):
        piece = placed.piece(address)
        if piece is not None:
            placed.layers(address, piece)
    assert image.symbols.prefix("") in ([], ["f"])


@pytest.mark.parametrize("form", FORMS)
def test_cut_at_every_byte_a_file_is_refused(file: Callable[[bytes], str], form: str) -> None:
    """The section headers are at the end, where linkers put them, so no cut leaves a whole file."""
    data = least(form)
    read_everything(file(data))
    for length in range(len(data)):
        path = file(data[:length])
        with pytest.raises(InputError) as refusal:
            read_everything(path)
        assert path in str(refusal.value)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("form", TWO_FORMS)
def test_cut_at_every_byte_behind_its_headers_a_file_is_refused(file: Callable[[bytes], str], form: str) -> None:
    data = least(form, headers_first=True)
    read_everything(file(data))
    for length in range(len(data)):
        path = file(data[:length])
        with pytest.raises(InputError) as refusal:
            read_everything(path)  # the last bytes of the file are the section names, which every question needs
        assert path in str(refusal.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("headers_first", [False, True])
def test_cut_here_and_there_the_command_line_refuses_it(
    kplug: BoundedKplug, file: Callable[[bytes], str], form: str, headers_first: bool
) -> None:
    data = least(form, headers_first)
    commands = list(COMMANDS.items())
    for number, length in enumerate(range(0, len(data), 41)):
        command, words = commands[number % len(commands)]
        path = file(data[:length])
        refused(kplug.run(command, "-s", path, *words), path)


def test_without_its_symbols_bytes_a_file_still_lists_sections_and_segments(
    kplug: BoundedKplug, file: Callable[[bytes], str]
) -> None:
    path = file(bytes(small_vmlinux(symtab_fields={"sh_offset": 1 << 40})))
    for command in ("sections", "segments"):
        answer = kplug.run(command, "-s", path)
        assert (answer.status, answer.err) == (0, "")
        assert ".init.text" in answer.out
    for command in ("where", "sym", "regions"):
        refused(kplug.run(command, "-s", path, *COMMANDS[command]), path, r"\.symtab lies outside the file")


@pytest.mark.kernel
def test_a_real_module_cut_anywhere_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    from support.oracle import kernels

    module = min((kernels.root("amd64-6.1") / "modules").rglob("*.ko"), key=lambda path: path.stat().st_size)
    data = module.read_bytes()
    (section_headers,), (count,) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<H", data, 60)
    data = data[: section_headers + 64 * count]  # without the signature behind them
    path = tmp_path / "cut.ko"
    for length in [*range(0, 200, 7), *range(200, len(data), max(1, len(data) // 150)), len(data) - 1]:
        path.write_bytes(data[:length])
        refused(kplug.run("sections", "-s", str(path)), str(path))
        refused(kplug.run("where", "--module", f"{path}@ffffffffc0000000", "ffffffffc0000000"), str(path))


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
        ({"strings": b"\0no end"}, "no NUL ends it"),
        ({"strings": b""}, "no NUL ends it"),
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


# -- symbols -----------------------------------------------------------------------------------------------------------

MANY = 15_000


def text_of(size: int, symbols: list[Sym], strings: bytes | None = None) -> bytes:
    """A file with a large .text (without bytes) and these symbols."""
    elf = small_vmlinux(symbols=symbols, strings=strings)
    elf.sections[0] = Sec(".text", SHT_NOBITS, A | X, BASE_64, size=size)
    elf.segments = []
    return bytes(elf)


def addresses(*numbers: int) -> bytes:
    return "".join(f"{number:#x}\n" for number in numbers).encode()


def test_thousands_of_symbols_at_one_address(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    path = file(text_of(0x1000, [Sym(f"s{i}", BASE_64 + 16, i % 7, ".text", FUNC) for i in range(MANY)]))
    answer = kplug.run("where", "-s", path, "0xffffffff81000011")
    acceptable(answer, path)
    assert "  s10+0x1  " in answer.out or "+0x1" in answer.out.splitlines()[0]


def test_thousands_of_nested_symbols_and_thousands_of_questions(
    kplug: BoundedKplug, file: Callable[[bytes], str]
) -> None:
    """Symbol i is [8i, 16n - 8i): past the innermost, ever fewer of them hold an address."""
    path = file(
        text_of(16 * MANY, [Sym(f"s{i}", BASE_64 + 8 * i, 16 * (MANY - i), ".text", FUNC) for i in range(MANY)])
    )
    questions = [BASE_64 + 16 * MANY - 1 - i % 64 for i in range(1000)]
    answer = kplug.run("where", "-b", "-s", path, "-", stdin=addresses(*questions))
    acceptable(answer, path)
    assert answer.out.splitlines()[0].split()[1] == f"s0+{16 * MANY - 1:#x}"
    assert answer.out.splitlines()[63].split()[1] == f"s7+{16 * MANY - 64 - 56:#x}"


def test_one_symbol_that_claims_everything_slows_no_other(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    symbols = [Sym(f"s{i}", BASE_64 + 8 * i, 4, ".text", FUNC) for i in range(1, MANY)]
    path = file(text_of(8 * MANY, [*symbols, Sym("huge", BASE_64, (1 << 64) - 1, ".text", FUNC)]))
    questions = [BASE_64 + 8 * (i * 7 % MANY) + 6 for i in range(2000)]
    answer = kplug.run("where", "-b", "-s", path, "-", stdin=addresses(*questions))
    acceptable(answer, path)
    assert answer.out.splitlines()[1].split()[1] == "huge+0x3e"
    beyond = kplug.run("where", "-b", "-s", path, f"{BASE_64 + 8 * MANY - 1:#x}", f"{BASE_64 + 8 * MANY:#x}")
    assert ["huge" in line for line in beyond.out.splitlines() if line.startswith("0x")] == [True, False]


@pytest.mark.parametrize("step", [0, 1])
def test_names_that_overlap_fill_no_memory(kplug: BoundedKplug, file: Callable[[bytes], str], step: int) -> None:
    """A million bytes of name for each of 20,000 symbols would be 20 GB."""
    symbols = [Sym("", BASE_64, 0, ".text", fields={"st_name": 1 + step * i}) for i in range(20_000)]
    path = file(text_of(0x1000, symbols, b"\0" + b"a" * 1_000_000 + b"\0"))
    for command, words in (("where", ("ffffffff81000014",)), ("sym", ("s*",)), ("regions", ())):
        refused(kplug.run(command, "-s", path, *words), path, "overlap")


def test_a_name_of_a_million_bytes_is_cut(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    path = file(text_of(0x1000, [Sym("a" * 1_000_000, BASE_64, 16, ".text", FUNC)]))
    answer = kplug.run("where", "-b", "-s", path, "0xffffffff81000001")
    assert answer.status == 0
    assert 0 < answer.out.count("a") < 10_000


def test_a_name_that_ends_many_names_is_found_in_time(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    symbols = [Sym("", BASE_64 + i, 1, ".text", FUNC, fields={"st_name": 1 + 2 * i}) for i in range(2000)]
    path = file(text_of(0x1000, symbols, b"\0" + b"a\0" * 2_000_000))
    answer = kplug.run("sym", "-s", path, "a")
    acceptable(answer, path)
    assert len(answer.out.splitlines()) == 2001


@pytest.mark.parametrize("machine", [EM_X86_64, EM_AARCH64])
@pytest.mark.parametrize("part", [b".L", b"$d.", b"__pi_", b"__kvm_nvhe_"])
def test_a_string_table_full_of_one_word_fills_no_memory(
    kplug: BoundedKplug, file: Callable[[bytes], str], part: bytes, machine: int
) -> None:
    symbols = [Sym("", BASE_64, 0, ".text", fields={"st_name": 1 + i}) for i in range(100)]
    elf = small_vmlinux(64, True, machine, symbols=symbols, strings=b"\0" + part * (20_000_000 // len(part)) + b"\0")
    path = file(bytes(elf))
    acceptable(kplug.run("where", "-s", path, "0xffffffff81000001"), path)


@pytest.mark.parametrize("offset", [10_000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_symbol_whose_name_lies_outside_the_table_answers_nothing(
    kplug: BoundedKplug, file: Callable[[bytes], str], offset: int
) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols.append(Sym("", BASE_64 + 0x180, 8, ".text", FUNC, fields={"st_name": offset}))
    answer = kplug.run("where", "-b", "-s", file(bytes(elf)), "ffffffff81000184")
    assert answer.status == 0
    assert answer.out.split()[1] == "label+0x84"


def test_a_symbol_beyond_its_section_holds_nothing_there(kplug: BoundedKplug, file: Callable[[bytes], str]) -> None:
    """ "Right or silent": .rodata is not `liar` because a symbol of .text claims to reach there."""
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols.append(Sym("liar", BASE_64 + 0x1F0, 0x100000, ".text", FUNC))
    path = file(bytes(elf))
    answer = kplug.run("where", "-b", "-s", path, ".text+0x1ff", ".rodata+0x10", ".rodata+0x70")
    inside, outside, padding = answer.out.splitlines()
    assert inside.split()[1] == "liar+0xf"
    assert outside.split()[1] == "linux_banner+0x10"
    assert "between linux_banner and end of .rodata" in padding


def test_a_symbol_that_claims_a_section_it_is_not_in_holds_nothing(
    kplug: BoundedKplug, file: Callable[[bytes], str]
) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols.append(Sym("liar", 0, (1 << 64) - 1, ".data", FUNC))
    answer = kplug.run("where", "--json", "-s", file(bytes(elf)), "0xffffffff81000014", "0x10")
    assert answer.status == 0
    assert "liar" not in answer.out


def test_extended_section_numbers_without_their_table_name_no_section(
    kplug: BoundedKplug, file: Callable[[bytes], str]
) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols.append(Sym("lost", BASE_64 + 0x180, 8, SHN_XINDEX, FUNC))
    path = file(bytes(elf))
    ask_all(kplug, path)
    assert "lost" not in kplug.run("where", "-b", "-s", path, "ffffffff81000184").out


@pytest.mark.parametrize("table", [b"", b"\1", b"\xff\xff\xff\xff" * 40, b"\0" * 4])
def test_a_table_of_extended_section_numbers_may_be_short_or_wrong(
    kplug: BoundedKplug, file: Callable[[bytes], str], table: bytes
) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    elf.symbols.append(Sym("lost", BASE_64 + 0x180, 8, SHN_XINDEX, FUNC))
    elf.sections.append(Sec(".symtab_shndx", SHT_SYMTAB_SHNDX, data=table, link=8, entry_size=4))
    ask_all(kplug, file(bytes(elf)))


@pytest.mark.parametrize("shape", ["nested", "crossing", "equal"])
def test_thousands_of_boundary_pairs_that_lie(kplug: BoundedKplug, file: Callable[[bytes], str], shape: str) -> None:
    elf = small_vmlinux()
    assert elf.symbols is not None
    for i in range(5000):
        low = {"nested": i % 2000, "crossing": i % 2000, "equal": 0}[shape]
        high = {"nested": 0xFFF - i % 2000, "crossing": 0x800 + i % 2000, "equal": 0xFFF}[shape]
        elf.symbols.append(Sym(f"__start_x{i}", BASE_64 + 0x1000 + low, 0, ".rodata"))
        elf.symbols.append(Sym(f"__stop_x{i}", BASE_64 + 0x1000 + high, 0, ".rodata"))
    ask_all(kplug, file(bytes(elf)))


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


# -- packed files ------------------------------------------------------------------------------------------------------

PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_is_answered_as_the_file_in_it(kplug: BoundedKplug, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"vmlinux{ending}"
    path.write_bytes(PACKERS[ending](bytes(small_vmlinux())))
    answer = kplug.run("where", "-b", "-s", str(path), "start_kernel+4")
    assert (answer.status, answer.out) == (0, "0xffffffff81000014  start_kernel+0x4  .text  [text]\n")


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_of_several_streams_is_whole(kplug: BoundedKplug, tmp_path: Path, ending: str) -> None:
    """gzip, xz and bzip2 all unpack files laid end to end as one."""
    path = tmp_path / f"vmlinux{ending}"
    data = bytes(small_vmlinux())
    path.write_bytes(PACKERS[ending](data[:1000]) + PACKERS[ending](data[1000:]))
    assert kplug.run("where", "-b", "-s", str(path), "start_kernel").status == 0


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_cut_anywhere_is_refused(kplug: BoundedKplug, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"vmlinux{ending}"
    packed = PACKERS[ending](bytes(small_vmlinux()))
    for length in [*range(1, 40), *range(40, len(packed), 23), len(packed) - 1]:
        path.write_bytes(packed[:length])
        refused(kplug.run("where", "-s", str(path), "0"), str(path), "cannot be unpacked")


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_with_a_flipped_byte_is_refused(kplug: BoundedKplug, tmp_path: Path, ending: str) -> None:
    """Each has a checksum; what is behind it in a .gz header (time, name) does not matter."""
    path = tmp_path / f"vmlinux{ending}"
    packed = PACKERS[ending](bytes(small_vmlinux()))
    for position in range(20, len(packed) - 24, 17):
        flipped = bytearray(packed)
        flipped[position] ^= 0x55
        path.write_bytes(flipped)
        refused(kplug.run("where", "-s", str(path), "0"), str(path), "cannot be unpacked|not an ELF")


@functools.cache
def _zeros(ending: str) -> bytes:
    return PACKERS[ending](bytes(1 << 24))


@pytest.mark.parametrize("head", [b"", bytes(small_vmlinux())])
@pytest.mark.parametrize("ending", PACKERS)
def test_what_unpacks_to_far_too_much_is_refused(kplug: BoundedKplug, tmp_path: Path, ending: str, head: bytes) -> None:
    """Repeats of a packed 16 MiB of zeros: a gigabyte in a file of a megabyte or less."""
    path = tmp_path / f"bomb.ko{ending}"
    zeros = _zeros(ending)
    path.write_bytes(PACKERS[ending](head) + zeros * 64)
    words = ("-s", str(path)) if head else ("--module", f"{path}@0")
    refused(kplug.run("where", *words, "0"), str(path), "unpacks to more than")


def test_an_xz_file_that_wants_a_gigabyte_of_dictionary_is_refused(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux.xz"
    packed = bytearray(lzma.compress(bytes(small_vmlinux()), check=lzma.CHECK_NONE))
    # The block header: its size, flags, filter 0x21 (LZMA2), one byte of properties, the dictionary's size; then CRC32.
    header = packed.index(b"\x21\x01") - 2
    size = (packed[header] + 1) * 4
    packed[header + 4] = 39  # 3 GiB (xz file format 1.1.0, 5.3.1)
    crc = zlib.crc32(bytes(packed[header : header + size - 4]))
    struct.pack_into("<I", packed, header + size - 4, crc)
    path.write_bytes(packed)
    refused(kplug.run("where", "-s", str(path), "0"), str(path), "[Mm]emory")


# -- chance ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_flipped_bytes_with_fixed_seeds(kplug: BoundedKplug, file: Callable[[bytes], str], form: str) -> None:
    data = bytes(FORMS[form])
    commands = list(COMMANDS.items())
    for seed in range(40):
        chance = random.Random(seed)
        changed = bytearray(data)
        for _ in range(chance.choice((1, 2, 8))):
            changed[chance.randrange(4, len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        path = file(bytes(changed))
        command, words = commands[seed % len(commands)]
        acceptable(kplug.run(command, "-s", path, *words), path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(sorted(FORMS)),
    flips=st.lists(st.tuples(st.integers(5, 4000), st.integers(0, 255)), min_size=1, max_size=12),
    command=st.sampled_from(sorted(COMMANDS)),
    headers_first=st.booleans(),
)
def test_flipped_bytes(
    kplug: BoundedKplug,
    file: Callable[[bytes], str],
    form: str,
    flips: list[tuple[int, int]],
    command: str,
    headers_first: bool,
) -> None:
    whole = FORMS[form]
    elf = small_vmlinux(whole.bits, whole.little, whole.machine, headers_first=headers_first)
    data = bytearray(bytes(elf))
    for position, value in flips:
        data[position % len(data)] = value
    data[:4] = b"\x7fELF"
    path = file(bytes(data))
    acceptable(kplug.run(command, "-s", path, *COMMANDS[command]), path)


@pytest.mark.parametrize("little", [True, False])
def test_flipped_bytes_in_a_module(kplug: BoundedKplug, file: Callable[[bytes], str], little: bool) -> None:
    elf = small_vmlinux(64, little, EM_X86_64 if little else EM_PPC64, type=ET_REL, segments=[])
    for section in elf.sections:
        section.address = 0
    assert elf.symbols is not None
    for symbol in elf.symbols:
        symbol.value &= 0xFFF
    data = bytes(elf)
    for seed in range(40):
        chance = random.Random(seed)
        changed = bytearray(data)
        changed[chance.randrange(18, len(data))] = chance.choice((0, 1, 0x80, 0xFF))
        path = file(bytes(changed))
        answer = kplug.run("where", "--module", f"{path}@ffffffffc0000000", "ffffffffc0000014", "start_kernel")
        acceptable(answer, path)


def test_the_bases_are_those_of_the_tests() -> None:
    """COMMANDS asks for addresses in both small kernels."""
    assert (BASE_64, BASE_32) == (0xFFFFFFFF81000000, 0xC1000000)
