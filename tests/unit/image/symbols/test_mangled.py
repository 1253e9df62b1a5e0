"""Mangled names by the name in the source. Mangled and demangled forms are those of the manglings' own descriptions."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from support.elf_builder import FUNC, LOCAL, Elf, Sym
from support.symbol_tables import sections, table_of

from kplug.image.symbols import mangled
from kplug.image.symbols.table import SymbolTable

SET_PARAM = "_RINvNtCsdJ13ReMSUMg_6kernel12module_param9set_paramaEB4_"
FMT = "_RNvXs1d_NtCs5l0EXMQXRMU_4core4timeNtB6_8DurationNtNtB8_3fmt5Debug3fmt"
LEGACY = "_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"
TEMPLATE = "_ZN2ns1fIiEET_S1_Pc.isra.0"
METHOD = "_ZNK2ns1S1mEi"
NAMES = (SET_PARAM, FMT, LEGACY, TEMPLATE, METHOD)
OF = {
    SET_PARAM: ["set_param", "module_param::set_param", "kernel::module_param::set_param"],
    FMT: ["fmt", "core::time::Duration::fmt", "<core::time::Duration as core::fmt::Debug>::fmt"],
    LEGACY: ["write_fmt", "core::fmt::Write::write_fmt"],
    TEMPLATE: ["f", "ns::f", "ns::f<int>", "ns::f<int>(int, char*)", "int ns::f<int>(int,  char*)"],
    METHOD: ["m", "S::m", "ns::S::m", "ns::S::m(int) const"],
}


@pytest.fixture
def table(tmp_path: Path) -> SymbolTable:
    symbols = [Sym(name, 0x1000 + 16 * n, 8, ".text", FUNC, LOCAL) for n, name in enumerate((*NAMES, "foo", "DO_READ"))]
    symbols += [Sym(f"__pfx_{METHOD}", 0x1100, 8, ".text", FUNC, LOCAL)]
    return table_of(tmp_path, Elf(sections=sections(), symbols=symbols))


@pytest.mark.parametrize(("name", "spelling"), [(name, each) for name, spellings in OF.items() for each in spellings])
def test_each_way_to_write_it(table: SymbolTable, name: str, spelling: str) -> None:
    assert [symbol.name for symbol in table.of_source_name(spelling)][:1] == [name]


def test_padding_comes_last(table: SymbolTable) -> None:
    assert [symbol.name for symbol in table.of_source_name("ns::S::m")] == [METHOD, f"__pfx_{METHOD}"]


@pytest.mark.parametrize(
    "name", ["set_par", "param::set_param", "core::fmt", "READ", "::", "<", "{closure#0}", "ns::f<long>"]
)
def test_nothing_else_is_found(table: SymbolTable, name: str) -> None:
    assert table.of_source_name(name) == []


def test_without_a_demangler_the_answer_says_what_is_missing(
    table: SymbolTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mangled, "TOOLS", ())
    for package in ("rust_demangler", "cxxfilt"):
        monkeypatch.setitem(sys.modules, package, None)
    assert table.of_source_name("set_param") == []
    assert list(table.unread_names("kernel::module_param::set_param")) == [SET_PARAM]
    assert list(table.unread_names("nothing_of_that_name")) == []


def test_the_packages_will_do(table: SymbolTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """rust-demangler writes closures in its own way; cxxfilt leaves the hash of legacy names."""
    known = {
        SET_PARAM: "kernel::module_param::set_param::<i8>",
        LEGACY: "core::fmt::Write::write_fmt::h0123456789abcdef",
    }

    def demangle(name: str) -> str:
        if name not in known:
            raise ValueError("not one of the tests' names")
        return known[name]

    monkeypatch.setattr(mangled, "TOOLS", (("no-such-tool",),))
    for package in ("rust_demangler", "cxxfilt"):
        module = types.ModuleType(package)
        module.demangle = demangle  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, package, module)
    assert [symbol.name for symbol in table.of_source_name("set_param")] == [SET_PARAM]
    assert [symbol.name for symbol in table.of_source_name("core::fmt::Write::write_fmt")] == [LEGACY]
    assert not table.unread_names("set_param")


def test_hostile_names_are_bounded() -> None:
    names = ["_R" + "N" * 4000, "_Z" + "N" * 4000, "_RNv\n", "_Z" + "<" * 4000, "_ZN" + "9" * 4000 + "E"]
    assert len(mangled.demangled(names)) == len(names)
    for text in ("<" * 4000, "(" * 4000 + ")", "a::" * 1000, " as " * 1000, "<a as " * 500):
        assert list(mangled.endings(text))
