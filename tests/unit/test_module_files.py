"""Lines of logs that name a module which is not loaded here: answered within the module, from its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.elf_builder import FUNC, LOCAL, Sec, Sym, small_vmlinux

from kplug.shell.cli import main


def module(path: Path, vermagic: bytes) -> None:
    elf = small_vmlinux(type=1, segments=[])
    for section in elf.sections:
        section.address = 0
    elf.sections.append(Sec(".modinfo", data=b"name=my_mod\0vermagic=" + vermagic + b" SMP mod_unload \0"))
    elf.symbols = [
        Sym("my_open", 0x8, 0x20, ".text", FUNC, LOCAL),
        Sym("my_init", 0x0, 0x10, ".init.text", FUNC, LOCAL),
        Sym("twin", 0x40, 0x10, ".text", FUNC, LOCAL),
        Sym("twin", 0x60, 0x18, ".text", FUNC, LOCAL),
        Sym("my_read.isra.0", 0x80, 0x10, ".text", FUNC, LOCAL),
    ]
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(elf))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "vmlinux").write_bytes(bytes(small_vmlinux()))
    return ["where", "-s", str(folder / "vmlinux"), "--module-dir", str(folder / "modules")]


@pytest.fixture(scope="module")
def release(given: list[str]) -> str:
    from kplug.image.opening.files import open_vmlinux

    found = open_vmlinux(given[2]).release
    assert found is not None
    module(Path(given[4]) / "kernel" / "my-mod.ko", found.encode())
    return found


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("[   12.3] my_open+0x4/0x20 [my_mod]", ".text+0xc           my_open+0x4  [my_mod]  .text"),
        ("RIP: 0010:my_init+0x4/0x10 [my_mod]", ".init.text+0x4      my_init+0x4  [my_mod]  .init.text"),
        ("twin+0x4/0x18 [my_mod]", ".text+0x64          twin+0x4  [my_mod]  .text"),
        ("my_read+0x4/0x10 [my_mod]", ".text+0x84          my_read.isra.0+0x4  [my_mod]  .text"),
        ("[<ffffffffc0012345>] my_open+0x4/0x20 [my_mod]", ".text+0xc           my_open+0x4  [my_mod]  .text"),
    ],
)
def test_the_place_in_the_module(
    given: list[str], release: str, capsys: pytest.CaptureFixture[str], line: str, answer: str
) -> None:
    capsys.readouterr()
    assert main([*given, "-b", line]) == 0
    found = capsys.readouterr().out.splitlines()
    assert found[0] == answer
    assert "where module my_mod is loaded is not known" in found[-1]


def test_no_runtime_address_is_claimed(given: list[str], release: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main([*given, "--json", "my_open+0x4/0x20 [my_mod]"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["address"] is None
    assert {layer["start"] for layer in answer["layers"]} == {None}
    assert (answer["layers"][-1]["name"], answer["layers"][-1]["offset"]) == ("my_open", "0x4")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nothing+0x4/0x20 [my_mod]", "has no symbol nothing"),
        ("my_open+0x4/0x20 [other]", "module other is not loaded here"),
        ("my_open (drivers/a.c:12) [my_mod]", "my_open and a source line, and no address"),
    ],
)
def test_what_the_file_does_not_have_is_said(
    given: list[str], release: str, capsys: pytest.CaptureFixture[str], line: str, why: str
) -> None:
    capsys.readouterr()
    assert main([*given, "-b", line]) == 1
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    ["[<ffffffffc0012345>] nothing+0x4/0x20 [my_mod]", "#3 [ffffc90000013e08] my_open at ffffffffc0012345 [my_mod]"],
)
def test_an_address_in_the_line_is_answered_where_the_file_does_not_help(
    given: list[str], release: str, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    capsys.readouterr()
    assert main([*given, "-b", line]) == 0
    assert capsys.readouterr().out.startswith("0xffffffffc0012345 ")


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("=> my_open [my_mod]", "the line has no offset: this is where my_open begins"),
        ("my_open+0x4/0x24 [my_mod]", "has the size 0x24: another build?"),
        ("my_open+0x24/0x20 [my_mod]", "my_open+0x24/0x20: not in the symbol, by the size in the line"),
    ],
)
def test_what_the_line_lacks_or_has_otherwise_is_said(
    given: list[str], release: str, capsys: pytest.CaptureFixture[str], line: str, warning: str
) -> None:
    capsys.readouterr()
    assert main([*given, "-b", line]) == 0
    assert warning in capsys.readouterr().out


def test_a_size_below_0_tells_nothing(given: list[str], release: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Linux 6.1 prints it of a symbol in a module's data, where no symbol follows."""
    capsys.readouterr()
    assert main([*given, "-b", "my_open+0x4/0xffffffffffffefd0 [my_mod]"]) == 0
    answer, warning = capsys.readouterr().out.splitlines()
    assert answer.startswith(".text+0xc ")
    assert "where module my_mod is loaded is not known" in warning


def test_a_module_of_another_kernel_is_not_used(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module(tmp_path / "modules" / "my-mod.ko", b"1.2.3-other")
    capsys.readouterr()
    assert main([*given[:3], "--module-dir", str(tmp_path), "my_open+0x4/0x20 [my_mod]"]) == 1
    assert "is of kernel 1.2.3-other, not" in capsys.readouterr().err
