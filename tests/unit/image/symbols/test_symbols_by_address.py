"""Which symbols hold an address. Rules: the head of kplug/image/symbols/by_address.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.elf_builder import (
    EM_AARCH64,
    EM_X86_64,
    FILE,
    FUNC,
    GLOBAL,
    LOCAL,
    NOTYPE,
    OBJECT,
    SECTION,
    SHN_ABS,
    SHN_UNDEF,
    TLS_SYMBOL,
    WEAK,
    Elf,
    Sec,
    Sym,
    W,
)
from support.symbol_tables import sections, table_of

from kplug.image.symbols import by_address as symbol_index
from kplug.image.symbols.bulk_lookup import SymbolIntervals
from kplug.image.symbols.by_address import SymbolIndex


def index_of(folder: Path, symbols: list[Sym], markers: Sequence[str] = (), machine: int = EM_X86_64) -> SymbolIndex:
    return SymbolIndex(table_of(folder, Elf(machine=machine, sections=sections(), symbols=symbols)), markers)


def names(index: SymbolIndex, address: int) -> list[str]:
    """Names of what holds the address, widest first."""
    return [extent.symbol.name for extent in index.chain(address)]


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


def test_a_marker_in_no_allocated_section_does_not_name_the_address(tmp_path: Path) -> None:
    """ppc64 has an empty .data_nosave at the start of __bug_table; riscv an absolute copy of each for its EFI stub."""
    markers = ["__nosave_begin", "__copy", "__start___bug_table"]
    table_sections = [*sections(), Sec(".data_nosave", flags=W, address=0x2000)]
    symbols = [
        Sym("__nosave_begin", 0x2000, section=".data_nosave"),
        Sym("__copy", 0x2000, section=SHN_ABS),
        Sym("__start___bug_table", 0x2000, section=".data"),
    ]
    table = table_of(tmp_path, Elf(machine=EM_X86_64, sections=table_sections, symbols=symbols))
    (extent,) = SymbolIndex(table, markers, markers[:1]).chain(0x2000)
    assert (extent.symbol.name, extent.aliases) == ("__start___bug_table", ("__nosave_begin", "__copy"))


def test_a_sizeless_symbol_ends_where_what_it_names_does(tmp_path: Path) -> None:
    """The kernel's own tables have known sizes; strings without a symbol may follow them."""
    symbols = [Sym("table", 0x1010, 0, ".text", FUNC), Sym("far", 0x1080, 8, ".text", FUNC)]
    table = table_of(tmp_path, Elf(sections=sections(), symbols=symbols))
    index = SymbolIndex(table, known_size={"table": 0x18}.get)
    assert [names(index, address) for address in (0x1010, 0x1027, 0x1028, 0x107F)] == [["table"], ["table"], [], []]
    intervals = SymbolIntervals(index, lambda address: True)
    pieces = intervals.pieces([0x1027, 0x1028, 0x1080])
    assert intervals.names(pieces) == ["table", None, "far"]


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


def test_a_sizeless_symbol_of_data_ends_at_a_local_label(tmp_path: Path) -> None:
    """SIGMA2 of blake2s, and the strings after it; a function of the assembler has such labels within it."""
    symbols = [Sym(name, start, 0, ".data", NOTYPE) for name, start in (("SIGMA2", 0x2000), (".LC0", 0x2010))]
    symbols += [Sym(name, start, 0, ".text", NOTYPE) for name, start in (("memcpy", 0x1000), (".Ltail", 0x1010))]
    index = index_of(tmp_path, symbols)
    assert [names(index, address) for address in (0x200F, 0x2010, 0x2011)] == [["SIGMA2"], [], []]
    assert index.padding(0x2011, 0x2000, 0x3000).after == "SIGMA2"
    assert names(index, 0x1011) == ["memcpy"]


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


@settings(max_examples=80)
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
        cuts = SymbolIntervals(index, lambda _: True)
        pieces = cuts.pieces([address])
        bulk = [cuts.names(pieces)[0], cuts.offsets(pieces, [address])[0]]
        chain = index.chain(address)
        assert bulk == ([chain[-1].symbol.name, address - chain[-1].start] if chain else [None, None])


@settings(max_examples=80)
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
