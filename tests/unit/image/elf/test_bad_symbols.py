"""Symbol tables that are broken or hostile: an honest answer, in time and in bounded memory.

Every case runs in a child with 1 GiB of address space (bounded_kplug). What the ELF fields mean is the gABI's; the
files are made by elf_builder.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.bad_files import acceptable, ask_all, refused
from support.bounded_kplug import BoundedKplug
from support.elf_builder import (
    BASE_64,
    EM_AARCH64,
    EM_X86_64,
    FUNC,
    SHN_XINDEX,
    SHT_NOBITS,
    SHT_SYMTAB_SHNDX,
    A,
    Sec,
    Sym,
    X,
    small_vmlinux,
)

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
