"""Several sources of one kernel, and such as are not of one. The files are those of Debian's kernels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.oracle import kernels

from kplug.errors import MismatchError
from kplug.image.opening.sources import Given, join
from kplug.shell.cli import main

pytestmark = pytest.mark.kernel

NAME = "amd64-6.1"
OTHER = "amd64-6.12"


def path(name: str, file: str) -> str:
    return str(kernels.root(name) / file)


def address_of_schedule() -> int:
    line = re.search(r"(?m)^([0-9a-f]+) T schedule$", Path(path(NAME, "System.map")).read_text())
    assert line is not None
    return int(line[1], 16)


@pytest.fixture(scope="module")
def moved_symbol(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A System.map that has one symbol elsewhere."""
    text = Path(path(NAME, "System.map")).read_text()
    changed, number = re.subn(r"(?m)^[0-9a-f]+ T schedule$", "ffffffff81000010 T schedule", text)
    assert number == 1
    file = tmp_path_factory.mktemp("joining") / "System.map"
    file.write_text(changed)
    return str(file)


@pytest.mark.parametrize("option", ["-s", "--vmlinuz"])
def test_where_sources_disagree_the_answer_says_so(
    moved_symbol: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = path(NAME, "vmlinux" if option == "-s" else "vmlinuz")
    sources = [option, file, "--system-map", moved_symbol]
    assert main(["where", *sources, "schedule"]) == 0
    said = capsys.readouterr()
    # The vmlinux's own symbols are used; kallsyms gives way to the System.map, which has more.
    elsewhere = 0xFFFFFFFF81000010 if option == "-s" else address_of_schedule()
    other = moved_symbol if option == "-s" else file
    assert f"{other} has schedule elsewhere, at {elsewhere:#x}" in said.out
    assert main(["where", *sources, "io_schedule", "jiffies"]) == 0
    said = capsys.readouterr()
    assert "elsewhere" not in said.out + said.err


@pytest.mark.parametrize("first", ["vmlinux", "vmlinuz"])
def test_a_system_map_of_another_kernel_is_refused_by_name(first: str) -> None:
    ours, other = path(NAME, first), path(OTHER, "System.map")
    with pytest.raises(MismatchError) as raised:
        join(Given(**{first: ours, "system_map": other}))
    assert ours in str(raised.value)
    assert other in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_vmlinux_and_a_vmlinuz_of_different_builds_are_refused() -> None:
    with pytest.raises(MismatchError, match="are different kernels"):
        join(Given(vmlinux=path(NAME, "vmlinux"), vmlinuz=path(OTHER, "vmlinuz")))


def test_a_vmlinux_and_its_own_vmlinuz_and_system_map_agree() -> None:
    joined = join(Given(path(NAME, "vmlinux"), path(NAME, "vmlinuz"), path(NAME, "System.map")))
    assert joined.image.has_symbol_table
    assert not joined.disputed
    assert joined.placement is None


@pytest.mark.boot
def test_kallsyms_of_another_kernel_is_refused_by_name() -> None:
    from vmimages import dumps

    kallsyms = str(dumps(NAME, quiet=True).truth.root / "kallsyms")
    for kind in ("vmlinux", "vmlinuz", "system_map"):
        file = path(OTHER, "System.map" if kind == "system_map" else kind)
        with pytest.raises(MismatchError) as raised:
            join(Given(**{kind: file, "kallsyms": kallsyms}))
        assert file in str(raised.value)
        assert kallsyms in str(raised.value)


@pytest.mark.boot
def test_the_modules_of_a_saved_kallsyms(capsys: pytest.CaptureFixture[str]) -> None:
    from vmimages import dumps

    truth = dumps(NAME, quiet=True).truth
    kallsyms = str(truth.root / "kallsyms")
    symbol = next(each for each in truth.symbols if each.module == "br_netfilter" and each.kind in "tT")
    for more in ([], ["--vmlinuz", path(NAME, "vmlinuz")]):
        assert main(["where", "--kallsyms", kallsyms, *more, symbol.name, hex(symbol.address + 1)]) == 0
        said = capsys.readouterr().out
        assert f"{symbol.address:#x}" in said
        assert said.count("br_netfilter") >= 2
