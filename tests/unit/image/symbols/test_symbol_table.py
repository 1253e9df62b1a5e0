"""Symbol tables: their entries decoded, and looked up by name.

The letters are those of nm(1), the fields those of the ELF gABI ("Symbol Table").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.elf_builder import (
    BASE_64,
    COMMON,
    EM_386,
    EM_PPC64,
    EM_X86_64,
    FILE,
    FUNC,
    GLOBAL,
    IFUNC,
    LOCAL,
    NOTYPE,
    OBJECT,
    SECTION,
    SHN_ABS,
    SHN_COMMON,
    SHN_UNDEF,
    SHN_XINDEX,
    SHT_NOBITS,
    SHT_SYMTAB_SHNDX,
    UNIQUE,
    WEAK,
    A,
    Elf,
    Sec,
    Sym,
    W,
    X,
    small_vmlinux,
)
from support.symbol_tables import sections, table_of

from kplug.image.symbols.symbol import Symbol
from kplug.image.symbols.table import SymbolTable

FORMS = ((64, True, EM_X86_64), (64, False, EM_PPC64), (32, True, EM_386), (32, False, 20))


def functions(folder: Path, function_names: Sequence[str]) -> SymbolTable:
    symbols = [Sym(name, 0x1000, 1, ".text", FUNC) for name in function_names]
    return table_of(folder, Elf(sections=sections(), symbols=symbols))


# -- decoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "little", "machine"), FORMS)
def test_a_symbol_is_decoded_in_every_class_and_byte_order(
    tmp_path: Path, bits: int, little: bool, machine: int
) -> None:
    symbols = [Sym("one", 0x1010, 0x20, ".text", FUNC, GLOBAL), Sym("two", 0x2001, 3, ".data", OBJECT, WEAK)]
    table = table_of(tmp_path, Elf(bits, little, machine=machine, sections=sections(), symbols=symbols))
    assert table.exact("one") == [Symbol("one", 0x1010, 0x20, "FUNC", "GLOBAL", "T", 1, 1)]
    assert table.exact("two") == [Symbol("two", 0x2001, 3, "OBJECT", "WEAK", "V", 2, 2)]
    assert len(table) == 2


@pytest.mark.parametrize("little", [True, False])
def test_a_section_number_above_255_is_decoded_in_both_byte_orders(tmp_path: Path, little: bool) -> None:
    fill = [Sec(f"s{i}", SHT_NOBITS, A, 0x10000 + i, size=1) for i in range(600)]
    elf = Elf(64, little, machine=EM_X86_64 if little else EM_PPC64, sections=[*sections(), *fill])
    elf.symbols = [Sym("far", 0x10000 + 599, 1, "s599", OBJECT)]
    assert table_of(tmp_path, elf).exact("far")[0].section_index == 604


def test_an_extended_section_number_comes_from_symtab_shndx(tmp_path: Path) -> None:
    """gABI: st_shndx SHN_XINDEX says that the real number is in the entry of that index in SHT_SYMTAB_SHNDX."""
    elf = Elf(
        sections=sections(), symbols=[Sym("f", 0x1000, 4, SHN_XINDEX, FUNC), Sym("d", 0x2000, 4, ".data", OBJECT)]
    )
    numbers = struct.pack("<III", 0, 1, 0)
    elf.sections.append(Sec(".symtab_shndx", SHT_SYMTAB_SHNDX, data=numbers, link=6, entry_size=4))
    table = table_of(tmp_path, elf)
    assert [(s.section_index, s.letter) for s in table.exact("f")] == [(1, "T")]
    assert [s.section_index for s in table.exact("d")] == [2]


def test_without_a_symbol_table_the_dynamic_one_counts(tmp_path: Path) -> None:
    elf = Elf(sections=sections(), symbols=[Sym("f", 0x1000, 4, ".text", FUNC)], symtab_fields={"sh_type": 11})
    table = table_of(tmp_path, elf)
    assert [symbol.name for symbol in table.exact("f")] == ["f"]


def test_without_any_symbol_table_nothing_is_found(tmp_path: Path) -> None:
    table = table_of(tmp_path, Elf(sections=sections()))
    assert (len(table), table.exact("f"), table.prefix(""), table.glob("*")) == (0, [], [], [])
    assert table.source == "no symbol table"


@pytest.mark.parametrize(
    ("symbol", "letter"),
    [
        (Sym("s", 1, 1, ".text", FUNC, GLOBAL), "T"),
        (Sym("s", 1, 1, ".text", FUNC, LOCAL), "t"),
        (Sym("s", 1, 1, ".data", OBJECT, GLOBAL), "D"),
        (Sym("s", 1, 1, ".data", OBJECT, LOCAL), "d"),
        (Sym("s", 1, 1, ".bss", OBJECT, GLOBAL), "B"),
        (Sym("s", 1, 1, ".bss", OBJECT, LOCAL), "b"),
        (Sym("s", 1, 1, ".rodata", OBJECT, GLOBAL), "R"),
        (Sym("s", 1, 1, ".rodata", OBJECT, LOCAL), "r"),
        (Sym("s", 1, 1, ".text", FUNC, WEAK), "W"),
        (Sym("s", 1, 1, ".data", OBJECT, WEAK), "V"),
        (Sym("s", 0, 0, SHN_UNDEF, FUNC, GLOBAL), "U"),
        (Sym("s", 0, 0, SHN_UNDEF, NOTYPE, WEAK), "w"),
        (Sym("s", 0, 0, SHN_UNDEF, OBJECT, WEAK), "v"),
        (Sym("s", 5, 0, SHN_ABS, NOTYPE, GLOBAL), "A"),
        (Sym("s", 5, 0, SHN_ABS, NOTYPE, LOCAL), "a"),
        (Sym("s", 4, 4, SHN_COMMON, COMMON, GLOBAL), "C"),
        (Sym("s", 1, 1, ".text", IFUNC, GLOBAL), "i"),
        (Sym("s", 1, 1, ".data", OBJECT, UNIQUE), "u"),
        (Sym("s", 0, 1, ".comment", OBJECT, LOCAL), "n"),
        (Sym("s", 0, 1, ".debug_info", NOTYPE, LOCAL), "N"),
    ],
)
def test_the_letter_is_that_of_nm(tmp_path: Path, symbol: Sym, letter: str) -> None:
    """nm(1), "The symbol type"; upper case is global."""
    held = [
        Sec(".text", flags=A | X, address=0x1000, data=bytes(16)),
        Sec(".rodata", flags=A, address=0x2000, data=bytes(16)),
        Sec(".data", flags=A | W, address=0x3000, data=bytes(16)),
        Sec(".bss", SHT_NOBITS, A | W, 0x4000, size=16),
        Sec(".comment", data=b"x"),
        Sec(".debug_info", data=b"x"),
    ]
    table = table_of(tmp_path, Elf(sections=held, symbols=[symbol]))
    assert table.symbol(1).letter == letter


# -- by name -----------------------------------------------------------------------------------------------------------


def test_a_static_symbol_has_the_file_it_follows_and_a_global_one_none(tmp_path: Path) -> None:
    table = table_of(tmp_path, small_vmlinux())
    twins = table.exact("twin")
    assert [(s.address - BASE_64, table.file_of(s)) for s in twins] == [(0x40, "a.c"), (0x60, "b.c")]
    assert table.file_of(table.exact("start_kernel")[0]) is None


def test_an_exact_name_is_not_a_part_of_one(tmp_path: Path) -> None:
    """Linkers keep a name as the tail of a longer one; both are found, each by its own name alone."""
    elf = Elf(sections=sections(), strings=b"\0do_fork\0")
    elf.symbols = [
        Sym("", 0x1000, 4, ".text", FUNC, fields={"st_name": 1}),
        Sym("", 0x1010, 4, ".text", FUNC, fields={"st_name": 4}),
    ]
    table = table_of(tmp_path, elf)
    assert [s.address for s in table.exact("do_fork")] == [0x1000]
    assert [s.address for s in table.exact("fork")] == [0x1010]
    assert table.exact("ork") == []
    assert table.exact("do_for") == []
    assert table.exact("") == []


@pytest.mark.parametrize("many", [0, 3, 1000])
def test_names_looked_up_together_are_found_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """By each way: a search for each place, by the bytes of the names' columns, by the columns."""
    names = [*(f"{'a' * length}tail{number % 7}" for number, length in enumerate(range(40))), "tail1", "tail1", ""]
    asked = ["tail1", "aatail2", "nothing", "", "tail9", *names[:9]]
    one_by_one = functions(tmp_path, names)
    expected = {name: [i for i, each in enumerate(["", *names]) if each == name and name] for name in asked}
    assert {name: one_by_one.indexes_of(name) for name in asked} == expected
    monkeypatch.setattr("kplug.image.symbols.table._FEW_PLACES", 0)
    monkeypatch.setattr("kplug.image.symbols.table._MANY_PLACES", many)
    together = functions(tmp_path, names)
    together.look_up(asked)
    monkeypatch.setattr(SymbolTable, "_search", None)  # nothing is searched for again
    assert {name: together.indexes_of(name) for name in asked} == expected


def test_files_sections_and_undefined_symbols_are_found_by_no_name(tmp_path: Path) -> None:
    symbols = [
        Sym("a.c", 0, 0, SHN_ABS, FILE, LOCAL),
        Sym("sec", 0x1000, 0, ".text", SECTION, LOCAL),
        Sym("undefined", section=SHN_UNDEF),
        Sym("number", 5, 0, SHN_ABS),
    ]
    table = table_of(tmp_path, Elf(sections=sections(), symbols=symbols))
    assert table.prefix("") == ["number"]
    assert table.glob("*") == ["number"]
    assert [bool(table.exact(name)) for name in ("a.c", "sec", "undefined", "number")] == [False, False, False, True]


def test_prefix_gives_sorted_distinct_names_up_to_the_limit(tmp_path: Path) -> None:
    given_names = ["tcp_b", "tcp_a", "udp", "tcp", "tcp_a", "tcq", "tc"]
    table = table_of(
        tmp_path, Elf(sections=sections(), symbols=[Sym(n, 0x1000, 1, ".text", FUNC) for n in given_names])
    )
    assert table.prefix("tcp") == ["tcp", "tcp_a", "tcp_b"]
    assert table.prefix("tcp", limit=2) == ["tcp", "tcp_a"]
    assert table.prefix("x") == []


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*_fops", ["a_fops", "b_fops"]),
        ("?_fops", ["a_fops", "b_fops"]),
        ("[b-z]_*", ["b_fops"]),
        ("[!a]_fops", ["b_fops"]),
        ("fops", []),
        ("A_*", []),
        ("*", ["a_fops", "b_fops", "fops.1", "x[0]"]),
        ("x[[]0]", ["x[0]"]),
        ("fops.?", ["fops.1"]),
        ("[", []),
    ],
)
def test_glob_is_the_shells(tmp_path: Path, pattern: str, found: list[str]) -> None:
    """POSIX.1, 2.13 Pattern Matching Notation; case counts."""
    given_names = ["a_fops", "b_fops", "fops.1", "x[0]"]
    table = table_of(
        tmp_path, Elf(sections=sections(), symbols=[Sym(n, 0x1000, 1, ".text", FUNC) for n in given_names])
    )
    assert table.glob(pattern) == found


def test_a_glob_made_to_backtrack_ends(tmp_path: Path) -> None:
    symbols = [Sym("a" * 3000, 0x1000, 1, ".text", FUNC)]
    assert table_of(tmp_path, Elf(sections=sections(), symbols=symbols)).glob("*a" * 12 + "b") == []


def test_named_finds_many_names_at_once_by_name_and_address(tmp_path: Path) -> None:
    table = table_of(tmp_path, small_vmlinux())
    found = table.named(["twin", "jiffies", "undefined", "nothing"])
    assert [(s.name, s.address - BASE_64) for s in found] == [("jiffies", 0x2000), ("twin", 0x40), ("twin", 0x60)]


def test_a_name_that_is_no_utf8_is_shown_escaped(tmp_path: Path) -> None:
    elf = Elf(
        sections=sections(), strings=b"\0a\xff\0", symbols=[Sym("", 0x1000, 4, ".text", FUNC, fields={"st_name": 1})]
    )
    assert table_of(tmp_path, elf).symbol(1).name == "a\\xff"


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("schedule.cold", "schedule"),
        ("schedule.cold.12", "schedule"),
        ("__pfx_schedule", "schedule"),
        ("__cfi_schedule", "schedule"),
        ("schedule", None),
        ("cold", None),
        (".cold", None),
        ("schedule.colder", None),
        ("__pfx_", None),
    ],
)
def test_parts_of_a_function_name_it(tmp_path: Path, name: str, whole: str | None) -> None:
    symbols = [Sym(name, 0x1000, 1, ".text", FUNC)]
    assert table_of(tmp_path, Elf(sections=sections(), symbols=symbols)).symbol(1).whole == whole


def test_candidates_for_boundaries_are_the_sizeless_ones_without_a_type(tmp_path: Path) -> None:
    symbols = [
        Sym("local_label", 0x1004, 0, ".text", NOTYPE, LOCAL),
        Sym("_stext", 0x1000, 0, ".text"),
        Sym("__end", 0x6000, 0, SHN_ABS),
        Sym("sized", 0x1000, 4, ".text"),
        Sym("function", 0x1000, 0, ".text", FUNC),
        Sym("undefined", 0, 0, SHN_UNDEF),
    ]
    table = table_of(tmp_path, Elf(sections=sections(), symbols=symbols))
    assert table.boundary_candidates() == {"local_label": 0x1004, "_stext": 0x1000, "__end": 0x6000}
