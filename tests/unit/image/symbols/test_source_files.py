"""The source file of a local symbol: told where the order of the table proves it, of the tables that linkers make."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.elf_builder import FILE, FUNC, GLOBAL, LOCAL, SHN_ABS, Elf, Sec, Sym
from support.symbol_tables import sections, table_of

from kplug.image.elf.file import ElfFile
from kplug.image.symbols.table import SymbolTable

HIDDEN = 2
A_C = """
int shared(int); static int counter;
__attribute__((noinline)) static int of_a(int x) { asm volatile(""); return x + counter++; }
__attribute__((visibility("hidden"), noinline)) int hidden_of_a(int x) { asm volatile(""); return x; }
int a_entry(int x) { return of_a(x) + of_a(x + 1) + shared(x); }
"""
B_C = """
int a_entry(int); int hidden_of_a(int);
__attribute__((noinline)) static int of_b(int x) { asm volatile("nop"); return x * 7; }
int shared(int x) { return of_b(x) + hidden_of_a(x); }
int _start(void) { return a_entry(3) + of_b(5); }
"""
ASSEMBLY = """
.text
.type of_assembly, @function
of_assembly: ret
.size of_assembly, .-of_assembly
"""


def file(name: str) -> Sym:
    return Sym(name, section=SHN_ABS, type=FILE, binding=LOCAL)


def function(name: str, address: int, binding: int = LOCAL, other: int = 0) -> Sym:
    return Sym(name, address, 8, ".text", FUNC, binding, fields={"st_other": other})


def files_of(folder: Path, symbols: Sequence[Sym], comment: bytes = b"GCC: 12") -> dict[str, str | None]:
    made = [section for section in sections() if section.name != ".comment"]
    table = table_of(folder, Elf(sections=[*made, Sec(".comment", data=comment)], symbols=list(symbols)))
    return {symbol.name: table.file_of(symbol) for symbol in map(table.symbol, table.places())}


def test_local_symbols_are_of_the_file_before_them(tmp_path: Path) -> None:
    symbols = [file("a.c"), function("one", 0x1000), function("two", 0x1010), file("b.c"), function("three", 0x1020)]
    found = files_of(tmp_path, [*symbols, function("shared", 0x1030, GLOBAL)])
    assert found == {"one": "a.c", "two": "a.c", "three": "b.c", "shared": None}


def test_globals_that_gnu_ld_makes_local_follow_a_nameless_file(tmp_path: Path) -> None:
    assert files_of(tmp_path, [file("a.c"), function("one", 0x1000), file(""), function("made", 0x1010)]) == {
        "one": "a.c",
        "made": None,
    }


def test_globals_that_lld_makes_local_are_of_no_file(tmp_path: Path) -> None:
    """clang's ThinLTO: static functions that another module needs, and whatever is hidden."""
    symbols = [file("core.c"), function("one", 0x1000), file("usercopy_64.c"), function("two", 0x1010)]
    made = [function("foo.llvm.1", 0x1020, other=HIDDEN), function("schedule", 0x1030, other=HIDDEN)]
    assert files_of(tmp_path, [*symbols, *made]) == {
        "one": "core.c",
        "two": "usercopy_64.c",
        "foo.llvm.1": None,
        "schedule": None,
    }


def test_the_padding_that_objtool_names_is_of_no_file(tmp_path: Path) -> None:
    symbols = [file("core.c"), function("one", 0x1010), file("usercopy_64.c"), function("two", 0x1028)]
    assert files_of(tmp_path, [*symbols, function("__pfx_one", 0x1000)])["__pfx_one"] is None


@pytest.mark.parametrize("comment", [b"GCC: 12", b"Linker: LLD 18.1\0clang version 18.1"])
def test_where_objects_without_a_file_are_not_marked_nothing_is_proved(tmp_path: Path, comment: bytes) -> None:
    of_assembly = [function("early", 0x1000)] if b"LLD" not in comment else []
    symbols = [*of_assembly, file("a.c"), function("one", 0x1010), function("of_another", 0x1020), file("b.c")]
    assert set(files_of(tmp_path, symbols, comment).values()) == {None}


# -- what linkers do ---------------------------------------------------------------------------------------------------


def linked(folder: Path, compiler: Sequence[str], linker: Sequence[str]) -> dict[str, str | None]:
    """A small program with assembly between its two C files, linked twice as a kernel is."""
    for name, text in (("a.c", A_C), ("b.c", B_C), ("s.s", ASSEMBLY)):
        (folder / name).write_text(text)
        subprocess.run([*compiler, "-O2", "-c", name], cwd=folder, check=True)
    subprocess.run([*linker, "-r", "-o", "vmlinux.o", "a.o", "s.o", "b.o"], cwd=folder, check=True, capture_output=True)
    subprocess.run([*linker, "-pie", "-o", "vmlinux", "vmlinux.o"], cwd=folder, check=True, capture_output=True)
    elf = ElfFile(str(folder / "vmlinux"))
    table = SymbolTable(elf, elf.sections)
    return {symbol.name: table.file_of(symbol) for symbol in map(table.symbol, table.places())}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_gnu_ld(tmp_path: Path) -> None:
    found = linked(tmp_path, ["gcc"], ["ld", "--no-dynamic-linker"])
    assert {name: found[name] for name in ("of_a", "counter", "of_assembly", "of_b")} == {
        "of_a": "a.c",
        "counter": "a.c",
        "of_assembly": "s.o",
        "of_b": "b.c",
    }
    assert found["hidden_of_a"] is None


@pytest.mark.skipif(None in (shutil.which("clang"), shutil.which("ld.lld")), reason="no clang, or no lld")
@pytest.mark.parametrize("flags", [[], ["-flto=thin"]])
def test_lld(tmp_path: Path, flags: list[str]) -> None:
    """Without link-time optimization, `of_assembly` is after the file symbol of a.c."""
    found = linked(tmp_path, ["clang", *flags], ["ld.lld", "--no-dynamic-linker"])
    assert "of_assembly" in found
    assert set(found.values()) == {None}
