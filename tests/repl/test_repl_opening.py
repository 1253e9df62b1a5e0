"""`kplug` without a command: the running kernel for those who may read it, a line that helps for the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kplug.shell import cli


def test_the_running_kernel_is_not_for_everyone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = tmp_path / "kcore"
    memory.touch()
    monkeypatch.setattr(cli, "_MEMORY", str(memory))
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == (
        "kplug: only root can read the running kernel's memory: sudo kplug (-c VMCORE opens a dump)\n"
    )


def test_where_there_is_no_running_kernel_to_read_there_is_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_MEMORY", str(tmp_path / "none"))
    assert cli.main([]) == 2
    said = capsys.readouterr()
    assert said.out.startswith("usage: kplug ")
    assert "memory cannot be read" in said.err
    assert cli.main(["-e", "kwhere"]) == 2
    assert "memory cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--kaslr", "0x1000"], ["--kaslr=none"], ["--module", "a.ko@0"], ["--lds=x"]])
def test_what_places_files_is_not_for_a_kernel_with_memory(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["-c", "vmcore", *words]) == 2
    assert "is only for files without memory" in capsys.readouterr().err
