"""The name that a function has in its source, of the symbols that compilers made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.elf_builder import FUNC, LOCAL, OBJECT, Elf, Sym
from support.symbol_tables import sections, table_of

from kplug.image.elf.header_only import bare_elf
from kplug.image.kernel_image import KernelImage
from kplug.image.symbols.listings import KallsymsListing
from kplug.image.symbols.sorted_list import LinesSymbolTable, OrderedSymbolTable
from kplug.image.symbols.source_names import SUFFIXES, source_name, tails, with_source_names
from kplug.image.symbols.table import SymbolTable

# (symbol, name in the source, a part of the function), as tables of kernels and the tests of gcc and LLVM have them.
NAMES = [
    ("finish_task_switch.isra.0", "finish_task_switch", False),
    ("x86_pmu_hw_config.part.0.cold", "x86_pmu_hw_config", True),
    ("foo.constprop.0.isra.0", "foo", False),
    ("foo.part.12.constprop.3", "foo", False),
    ("foo.cold", "foo", True),
    ("foo.cold.17", "foo", True),
    ("foo.localalias", "foo", False),
    ("foo.localalias.5", "foo", False),
    ("foo.lto_priv.0.lto_priv.1", "foo", False),
    ("foo.llvm.12345678901234567890", "foo", False),
    ("foo.llvm.0123abcdef", "foo", False),
    ("foo.__uniq.216459182714036180.llvm.7.cold", "foo", True),
    ("foo.0123456789abcdef0123456789abcdef.cfi_jt", "foo", True),
    ("foo.cfi", "foo", False),
    ("foo.specialized.1", "foo", False),
    ("foo.argprom", "foo", False),
    ("foo.retelim", "foo", False),
    ("foo.__part.1", "foo", True),
    ("foo$1234567890", "foo", False),
    ("__pfx_foo", "foo", True),
    ("__pfx_foo.isra.0", "foo", True),
    ("__cfi_foo", "foo", True),
    ("foo.7", "foo", False),
]
# Names of symbols, sections and labels to which no compiler added anything.
OWN_NAMES = ["schedule", ".text", "a.b", "foo.isra", "foo.isra.x", "foo.llvm.", "__pfx_", "foo.slowpath", ""]


@pytest.mark.parametrize(("symbol", "name", "is_part"), NAMES)
def test_what_a_compiler_added_is_no_part_of_the_name(symbol: str, name: str, is_part: bool) -> None:
    assert source_name(symbol)[:2] == (name, is_part)


@pytest.mark.parametrize("name", OWN_NAMES)
def test_other_names_are_the_sources_own(name: str) -> None:
    assert source_name(name)[:2] == (name, False)


def test_each_suffix_is_tried() -> None:
    for suffix in SUFFIXES:
        assert any(re.search(suffix.pattern, symbol) for symbol, _, _ in NAMES), suffix


def test_a_name_of_many_suffixes_takes_no_time() -> None:
    assert source_name("a" + ".1" * 250 + "!").name.endswith("!")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SymbolTable:
    symbols = [
        Sym("__pfx_foo.isra.0", 0x1000, 0x10, ".text", FUNC, LOCAL),
        Sym("foo.isra.0", 0x1010, 0x20, ".text", FUNC, LOCAL),
        Sym("foo.isra.0.cold", 0x1030, 0x8, ".text", FUNC, LOCAL),
        Sym("foo.constprop.0", 0x1040, 0x20, ".text", FUNC, LOCAL),
        Sym("barfoo.constprop.0", 0x1060, 0x20, ".text", FUNC, LOCAL),
        Sym("counter.5", 0x2000, 8, ".data", OBJECT, LOCAL),
        Sym("counter.6", 0x1080, 8, ".text", FUNC, LOCAL),
        Sym("shared.llvm.99", 0x2008, 8, ".data", OBJECT),
    ]
    return table_of(tmp_path_factory.mktemp("names"), Elf(sections=sections(), symbols=symbols))


def names(table: SymbolTable, name: str) -> list[str]:
    return [symbol.name for symbol in table.of_source_name(name)]


def test_functions_come_before_their_parts(table: SymbolTable) -> None:
    assert names(table, "foo") == ["foo.isra.0", "foo.constprop.0", "__pfx_foo.isra.0", "foo.isra.0.cold"]


def test_the_padding_before_a_function_has_its_own_name_in_the_source(table: SymbolTable) -> None:
    """So prints a kernel that cuts `.llvm.N`: `? __pfx_foo+0x10/0x10`."""
    assert names(table, "__pfx_foo") == ["__pfx_foo.isra.0"]
    assert names(table, "__cfi_foo") == []


def test_static_variables_of_functions_are_not_called_by_their_numbered_names(table: SymbolTable) -> None:
    """Every function may have a `counter`, and a debugger's own `counter` is meant."""
    assert names(table, "counter") == ["counter.6"]
    assert names(table, "shared") == ["shared.llvm.99"]


@pytest.mark.parametrize("name", ["", "oo", "fo", "foo.isra", "foo.isra.0", "bar", "nothing"])
def test_nothing_else_is_found(table: SymbolTable, name: str) -> None:
    assert names(table, name) == []


def test_many_questions_have_the_same_answers(tmp_path: Path, table: SymbolTable) -> None:
    few = {name: names(table, name) for name in ("foo", "counter", "barfoo", "oo", "__pfx_foo", "__pfx_oo")}
    for number in range(100):
        assert names(table, f"nothing{number}") == []
    assert {name: names(table, name) for name in few} == few


def test_completion_has_the_names_by_which_functions_are_found() -> None:
    names = ["__pfx_foo.isra.0", "bar", "counter.5", "foo.isra.0", "foo.isra.0.cold", "vfs.llvm.12"]
    added = [name for name in with_source_names(names) if name not in names]
    assert added == ["foo", "vfs"]


LINES = b"""ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000010 t __pfx_foo.isra.0
ffffffff81000020 t foo.isra.0
ffffffff81000040 t foo.isra.0.cold
ffffffff81000060 t barfoo.constprop.0
ffffffff81000080 t counter.6
ffffffff81001000 D shared.llvm.99
ffffffff81001008 d counter.5
ffffffff81002000 B _end
"""


@pytest.mark.parametrize("by_kernel", [False, True])
def test_lists_of_symbols_have_them_too(by_kernel: bool) -> None:
    listed = KallsymsListing(LINES, "kallsyms", by_kernel=by_kernel).kernel
    image = KernelImage(bare_elf("kallsyms", "x86_64", 64), name="vmlinux", listed=listed)
    assert type(image.symbols) is (LinesSymbolTable if by_kernel else OrderedSymbolTable)
    assert names(image.symbols, "foo") == ["foo.isra.0", "__pfx_foo.isra.0", "foo.isra.0.cold"]
    assert names(image.symbols, "barfoo") == ["barfoo.constprop.0"]
    assert names(image.symbols, "counter") == ["counter.6"]
    assert names(image.symbols, "shared") == ["shared.llvm.99"]
    assert names(image.symbols, "nothing") == []


def test_a_table_of_one_name_in_itself_is_bounded() -> None:
    strings = b"foo._R" * 200_000 + b"\0"
    assert sum(1 for _ in tails(strings, b"foo.")) <= 1 << 16
    assert sum(map(len, tails(strings, b"_R"))) < 1 << 20
