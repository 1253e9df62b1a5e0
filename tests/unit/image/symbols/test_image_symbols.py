"""Symbol tables by name, and by address. Rules: the head of kplug/image/symbols/by_address.py.

The letters are those of nm(1), the fields those of the ELF gABI ("Symbol Table").
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.elf_builder import (
    BASE_64,
    COMMON,
    EM_386,
    EM_AARCH64,
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
    TLS_SYMBOL,
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

from kplug.image.elf.file import ElfFile
from kplug.image.symbols import by_address as symbol_index
from kplug.image.symbols.bulk_lookup import SymbolCuts
from kplug.image.symbols.by_address import SymbolIndex
from kplug.image.symbols.symbol import Symbol
from kplug.image.symbols.table import SymbolTable

FORMS = ((64, True, EM_X86_64), (64, False, EM_PPC64), (32, True, EM_386), (32, False, 20))


def table_of(folder: Path, elf: Elf) -> SymbolTable:
    path = folder / "elf"
    path.write_bytes(bytes(elf))
    file = ElfFile(str(path))
    return SymbolTable(file, file.sections)


def sections() -> list[Sec]:
    """.text 0x1000-0x2000, .data 0x2000-0x3000 next to it, .bss 0x4000-0x5000 after a hole, and one not in memory."""
    return [
        Sec(".text", SHT_NOBITS, A | X, 0x1000, size=0x1000),
        Sec(".data", SHT_NOBITS, A | W, 0x2000, size=0x1000),
        Sec(".bss", SHT_NOBITS, A | W, 0x4000, size=0x1000),
        Sec(".comment", data=b"x"),
    ]


def functions(folder: Path, function_names: Sequence[str]) -> SymbolTable:
    symbols = [Sym(name, 0x1000, 1, ".text", FUNC) for name in function_names]
    return table_of(folder, Elf(sections=sections(), symbols=symbols))


def index_of(folder: Path, symbols: list[Sym], markers: Sequence[str] = (), machine: int = EM_X86_64) -> SymbolIndex:
    return SymbolIndex(table_of(folder, Elf(machine=machine, sections=sections(), symbols=symbols)), markers)


def names(index: SymbolIndex, address: int) -> list[str]:
    """Names of what holds the address, widest first."""
    return [extent.symbol.name for extent in index.chain(address)]


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
    assert [(s.address - BASE_64, table.file_of(s.entry)) for s in twins] == [(0x40, "a.c"), (0x60, "b.c")]
    assert table.file_of(table.exact("start_kernel")[0].entry) is None


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


# -- by address --------------------------------------------------------------------------------------------------------


def test_a_sized_symbol_holds_its_bytes_and_no_more(tmp_path: Path) -> None:
    index = index_of(tmp_path, [Sym("f", 0x1010, 0x20, ".text", FUNC), Sym("g", 0x1080, 8, ".text", FUNC)])
    assert [names(index, a) for a in (0x100F, 0x1010, 0x102F, 0x1030, 0x107F, 0x1080)] == [
        [],
        ["f"],
        ["f"],
        [],
        [],
        ["g"],
    ]


def test_past_a_sized_symbol_is_padding_between_it_and_the_next(tmp_path: Path) -> None:
    index = index_of(tmp_path, [Sym("f", 0x1010, 0x20, ".text", FUNC), Sym("g", 0x1080, 8, ".text", FUNC)])
    assert index.padding(0x1040, 0x1000, 0x2000) == (0x1030, 0x1080, "f", "g")
    assert index.padding(0x1001, 0x1000, 0x2000) == (0x1000, 0x1010, None, "f")
    assert index.padding(0x1100, 0x1000, 0x2000) == (0x1088, 0x2000, "g", None)


def test_padding_comes_after_the_symbol_that_ends_last(tmp_path: Path) -> None:
    index = index_of(tmp_path, [Sym("outer", 0x1000, 0x40, ".text", FUNC), Sym("inner", 0x1010, 8, ".text", FUNC)])
    assert index.padding(0x1050, 0x1000, 0x2000) == (0x1040, 0x2000, "outer", None)


def test_padding_knows_no_neighbours_of_other_sections(tmp_path: Path) -> None:
    symbols = [Sym("f", 0x1000, 8, ".text", FUNC), Sym("b", 0x4000, 8, ".bss", OBJECT)]
    assert index_of(tmp_path, symbols).padding(0x2800, 0x2000, 0x3000) == (0x2000, 0x3000, None, None)


def test_a_sizeless_symbol_reaches_to_the_next_one(tmp_path: Path) -> None:
    index = index_of(tmp_path, [Sym("label", 0x1000, 0, ".text"), Sym("f", 0x1040, 8, ".text", FUNC)])
    (extent,) = index.chain(0x103F)
    assert (extent.start, extent.end, extent.symbol.name, extent.sizeless) == (0x1000, 0x1040, "label", True)


def test_a_sizeless_symbol_ends_with_its_section(tmp_path: Path) -> None:
    index = index_of(tmp_path, [Sym("label", 0x1F00, 0, ".text")])
    assert [names(index, a) for a in (0x1FFF, 0x2000, 0x2001)] == [["label"], [], []]


def test_a_label_at_the_end_of_its_section_holds_nothing_of_the_next(tmp_path: Path) -> None:
    index = index_of(tmp_path, [Sym("end_of_text", 0x2000, 0, ".text"), Sym("d", 0x2010, 4, ".data", OBJECT)])
    assert [names(index, a) for a in (0x1FFF, 0x2000, 0x2001)] == [[], [], []]


def test_a_sizeless_symbol_ends_at_a_boundary_marker(tmp_path: Path) -> None:
    index = index_of(tmp_path, [Sym("label", 0x1000, 0, ".text"), Sym("_etext", 0x1010, 0, ".text")], ["_etext"])
    assert [names(index, a) for a in (0x100F, 0x1010, 0x1011)] == [["label"], ["_etext"], []]


def test_a_label_inside_a_function_is_told_with_it_and_ends_with_it(tmp_path: Path) -> None:
    symbols = [
        Sym("f", 0x1000, 0x20, ".text", FUNC),
        Sym("in_f", 0x1008, 0, ".text"),
        Sym("g", 0x1040, 4, ".text", FUNC),
    ]
    index = index_of(tmp_path, symbols)
    assert [names(index, a) for a in (0x1007, 0x1008, 0x101F, 0x1020)] == [["f"], ["f", "in_f"], ["f", "in_f"], []]


def test_a_label_ends_with_the_innermost_function_around_it(tmp_path: Path) -> None:
    symbols = [
        Sym("outer", 0x1000, 0x100, ".text", FUNC),
        Sym("inner", 0x1010, 0x10, ".text", FUNC),
        Sym("label", 0x1018, 0, ".text"),
        Sym("next", 0x1030, 4, ".text", FUNC),
    ]
    index = index_of(tmp_path, symbols)
    assert names(index, 0x101F) == ["outer", "inner", "label"]
    assert names(index, 0x1020) == ["outer"]


def test_nested_symbols_are_told_from_the_widest_to_the_narrowest(tmp_path: Path) -> None:
    symbols = [Sym(f"s{i}", 0x1000 + 0x10 * i, 0x200 - 0x20 * i, ".text", FUNC) for i in range(8)]
    assert names(index_of(tmp_path, symbols), 0x1078) == [f"s{i}" for i in range(8)]


def test_a_symbol_larger_than_its_section_ends_with_it(tmp_path: Path) -> None:
    index = index_of(tmp_path, [Sym("f", 0x1FF0, 0x1000, ".text", FUNC), Sym("d", 0x2010, 4, ".data", OBJECT)])
    assert [names(index, a) for a in (0x1FFF, 0x2000, 0x2010)] == [["f"], [], ["d"]]
    assert index.padding(0x2008, 0x2000, 0x3000) == (0x2000, 0x2010, None, "d")


def test_of_several_symbols_at_one_address_one_is_told_and_the_others_are_its_aliases(tmp_path: Path) -> None:
    symbols = [
        Sym("__se_sys_read", 0x1000, 0x20, ".text", FUNC, LOCAL),
        Sym("__x64_sys_read", 0x1000, 0x20, ".text", FUNC, GLOBAL),
        Sym("read_label", 0x1000, 0, ".text", NOTYPE, GLOBAL),
    ]
    (extent,) = index_of(tmp_path, symbols).chain(0x1010)
    assert extent.symbol.name == "__x64_sys_read"
    assert set(extent.aliases) == {"__se_sys_read", "read_label"}
    assert (extent.end, extent.sizeless) == (0x1020, False)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (Sym("f", 0x1000, 4, ".text", FUNC), Sym("a", 0x1000, 0, ".text", NOTYPE)),  # sized before sizeless
        (Sym("f", 0x1000, 4, ".text", FUNC), Sym("a", 0x1000, 4, ".text", FUNC, LOCAL)),  # global before local
        (Sym("f", 0x1000, 4, ".text", FUNC, WEAK), Sym("a", 0x1000, 4, ".text", FUNC, LOCAL)),  # weak before local
        (Sym("f", 0x1000, 4, ".text", FUNC), Sym("__f", 0x1000, 4, ".text", FUNC)),  # fewer underscores
        (Sym("f", 0x1000, 4, ".text", FUNC, LOCAL), Sym("__pfx_a", 0x1000, 4, ".text", FUNC)),  # bookkeeping last
        (Sym("f", 0x1000, 0, ".text", NOTYPE, LOCAL), Sym("__UNIQUE_ID_a", 0x1000, 4, ".text", OBJECT)),
        (Sym("z", 0x1000, 8, ".text", FUNC), Sym("a", 0x1000, 4, ".text", FUNC)),  # the larger
        (Sym("a", 0x1000, 4, ".text", FUNC), Sym("b", 0x1000, 4, ".text", FUNC)),  # else by name
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_best_name_at_an_address_is_the_one_a_person_means(
    tmp_path: Path, better: Sym, worse: Sym, order: int
) -> None:
    (extent,) = index_of(tmp_path, [better, worse][::order]).chain(0x1000)
    assert (extent.symbol.name, extent.aliases) == (better.name, (worse.name,))


def test_the_extent_at_an_address_is_that_of_its_largest_symbol(tmp_path: Path) -> None:
    symbols = [Sym("local", 0x1000, 0x40, ".text", FUNC, LOCAL), Sym("f", 0x1000, 0x10, ".text", FUNC)]
    (extent,) = index_of(tmp_path, symbols).chain(0x1038)
    assert (extent.symbol.name, extent.end) == ("f", 0x1040)


def test_a_boundary_marker_answers_only_its_very_address(tmp_path: Path) -> None:
    index = index_of(
        tmp_path, [Sym("__bss_start", 0x4000, 0, ".bss"), Sym("b", 0x4100, 4, ".bss", OBJECT)], ["__bss_start"]
    )
    (extent,) = index.chain(0x4000)
    assert (extent.symbol.name, extent.start, extent.end) == ("__bss_start", 0x4000, 0x4000)
    assert index.chain(0x4001) == ()


def test_a_boundary_marker_where_a_symbol_begins_is_its_alias(tmp_path: Path) -> None:
    index = index_of(tmp_path, [Sym("_sdata", 0x2000, 0, ".data"), Sym("d", 0x2000, 4, ".data", OBJECT)], ["_sdata"])
    (extent,) = index.chain(0x2001)
    assert (extent.symbol.name, extent.aliases) == ("d", ("_sdata",))


@pytest.mark.parametrize(
    "symbol",
    [
        Sym("a.c", 0x1000, 4, ".text", FILE, LOCAL),
        Sym("", 0x1000, 4, ".text", SECTION, LOCAL),
        Sym("tls", 0x1000, 4, ".text", TLS_SYMBOL),
        Sym("number", 0x1000, 4, SHN_ABS, OBJECT),
        Sym("undefined", 0x1000, 4, SHN_UNDEF, FUNC),
        Sym("elsewhere", 0x1000, 4, ".comment", OBJECT),
        Sym(".Lbranch", 0x1000, 0, ".text", NOTYPE, LOCAL),
        Sym("", 0x1000, 0, ".text", NOTYPE, LOCAL),
        Sym("", 0x1000, 4, ".text", FUNC, GLOBAL),
    ],
)
def test_what_names_no_place_holds_no_address(tmp_path: Path, symbol: Sym) -> None:
    assert index_of(tmp_path, [symbol]).chain(0x1001) == ()


@pytest.mark.parametrize("name", ["$x", "$d", "$x.12", "$d.realdata", "__kvm_nvhe_$x", "__pi_$d"])
def test_mapping_symbols_of_arm64_hold_no_address(tmp_path: Path, name: str) -> None:
    """ "Mapping symbols", ELF for the Arm 64-bit Architecture (AArch64), 5.5.5."""
    symbols = [Sym("f", 0x1000, 0x10, ".text", FUNC), Sym(name, 0x1004, 0, ".text", NOTYPE, LOCAL)]
    assert names(index_of(tmp_path, symbols, machine=EM_AARCH64), 0x1008) == ["f"]
    assert names(index_of(tmp_path, symbols[1:], machine=EM_AARCH64), 0x1008) == []


def test_a_dollar_is_an_ordinary_character_elsewhere(tmp_path: Path) -> None:
    assert names(index_of(tmp_path, [Sym("$x", 0x1000, 0, ".text")]), 0x1008) == ["$x"]


def test_distance_to_the_next_symbol_is_the_size_that_kallsyms_gives(tmp_path: Path) -> None:
    """kernel/kallsyms.c, get_symbol_pos(): up to the next symbol at a higher address."""
    symbols = [
        Sym("f", 0x1000, 8, ".text", FUNC),
        Sym("alias", 0x1000, 8, ".text", FUNC),
        Sym("g", 0x1040, 8, ".text", FUNC),
    ]
    assert index_of(tmp_path, symbols).distance_to_next(0x1000) == 0x40


# -- against brute force -----------------------------------------------------------------------------------------------

SECTION_BOUNDS = {".text": (0x1000, 0x2000), ".data": (0x2000, 0x3000), ".bss": (0x4000, 0x5000)}

_symbols = st.lists(
    st.builds(
        Sym,
        name=st.from_regex(r"_{0,2}[a-e]{1,3}", fullmatch=True),
        value=st.integers(0x0FF0 // 8, 0x5010 // 8).map(lambda n: 8 * n),
        size=st.one_of(st.sampled_from([0, 1, 8, 16]), st.integers(0, 0x3000)),
        section=st.sampled_from(sorted(SECTION_BOUNDS)),
        type=st.sampled_from([FUNC, NOTYPE]),
        binding=st.sampled_from([LOCAL, GLOBAL, WEAK]),
    ),
    min_size=1,
    max_size=12,
)


def limit(symbol: Sym) -> int:
    """Where the section ends that a symbol's bytes must lie in: its own, else the one around its address."""
    low, high = SECTION_BOUNDS[str(symbol.section)]
    if low <= symbol.value < high:
        return high
    return next((high for low, high in SECTION_BOUNDS.values() if low <= symbol.value < high), symbol.value)


def brute_force(symbols: Sequence[Sym]) -> dict[int, tuple[int, frozenset[str]]]:
    """By start address: the end and the names. The rules of symbol_index, each address on its own."""
    sized: dict[int, int] = {}
    for symbol in symbols:
        if symbol.size:
            sized[symbol.value] = max(sized.get(symbol.value, 0), min(symbol.value + symbol.size, limit(symbol)))
    groups = {}
    for start in {symbol.value for symbol in symbols}:
        here = [symbol for symbol in symbols if symbol.value == start]
        if any(symbol.size for symbol in here):
            end = sized[start]
        else:
            low, high = SECTION_BOUNDS[str(here[0].section)]
            ends = [high if low <= start < high else start, *(s.value for s in symbols if s.value > start)]
            ends += [e for s, e in sized.items() if s < start < e]
            end = min(ends)
        groups[start] = (end, frozenset(symbol.name for symbol in here))
    return groups


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(symbols=_symbols, addresses=st.lists(st.integers(0x0FF0, 0x5020), min_size=1, max_size=8))
def test_the_symbols_that_hold_an_address_are_those_of_brute_force(
    tmp_path: Path, symbols: list[Sym], addresses: list[int]
) -> None:
    # A sizeless group ends with the section of one of them; which one is a matter of taste, so one section an address.
    symbols = list({(s.value, s.name): s for s in symbols}.values())
    home = {symbol.value: symbol.section for symbol in symbols}
    for symbol in symbols:
        symbol.section = home[symbol.value]
    index = index_of(tmp_path, symbols)
    groups = brute_force(symbols)
    for address in [*addresses, *(s.value for s in symbols), *(end - 1 for end, _ in groups.values())]:
        expected = [(s, e, n) for s, (e, n) in sorted(groups.items()) if s <= address < e]
        found = [(e.start, e.end, frozenset((e.symbol.name, *e.aliases))) for e in index.chain(address)]
        assert found == expected
        cuts = SymbolCuts(index, lambda _: True)
        pieces = cuts.pieces([address])
        bulk = [cuts.names(pieces)[0], cuts.offsets(pieces, [address])[0]]
        chain = index.chain(address)
        assert bulk == ([chain[-1].symbol.name, address - chain[-1].start] if chain else [None, None])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    symbols=_symbols,
    addresses=st.lists(st.integers(0x1000, 0x4FFF), min_size=2, max_size=12),
    neighbourhood=st.sampled_from([1, 8, 64, 512, 0x1000]),
    patience=st.sampled_from([0, 1, 64]),
)
def test_sorting_only_the_neighbourhood_changes_no_answer(
    tmp_path: Path, symbols: list[Sym], addresses: list[int], neighbourhood: int, patience: int
) -> None:
    """The first question sorts the symbols around it, and others may be answered from those."""
    table = table_of(tmp_path, Elf(sections=sections(), symbols=symbols))
    everything = SymbolIndex(table)
    everything.columns()  # sorts them all
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symbol_index, "_NEIGHBOURHOOD", neighbourhood)
        patch.setattr(symbol_index, "_PATIENT_STEPS", patience)
        index = SymbolIndex(table)
        for address in addresses:
            assert index.chain(address) == everything.chain(address)
            assert index.innermost(address) == everything.innermost(address)
            assert index.distance_to_next(address) == everything.distance_to_next(address)
            if not everything.chain(address):
                low, high = next((b for b in SECTION_BOUNDS.values() if b[0] <= address < b[1]), (0x3000, 0x4000))
                assert index.padding(address, low, high) == everything.padding(address, low, high)


def test_the_neighbourhood_of_the_first_question_knows_what_reaches_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second address lies before the first, within a symbol that begins beyond the neighbourhood of the first."""
    monkeypatch.setattr(symbol_index, "_NEIGHBOURHOOD", 0x100)
    symbols = [
        Sym("around", 0x1080, 0xF0, ".text", FUNC),
        Sym("inside", 0x1110, 0x10, ".text", FUNC),
        Sym("first", 0x1200, 0x10, ".text", FUNC),
        Sym("last", 0x1280, 0x10, ".text", FUNC),
    ]
    index = index_of(tmp_path, symbols)
    assert names(index, 0x1200) == ["first"]
    assert names(index, 0x1118) == ["around", "inside"]
    assert names(index, 0x1168) == ["around"]
