"""`kplug` without a command: the running kernel for those who may read it, a line that helps for the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kplug import cli


def test_the_running_kernel_is_not_for_everyone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = tmp_path / "kcore"
    memory.touch()
    monkeypatch.setattr(cli, "_MEMORY", str(memory))
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == (
        "kplug: the running kernel's memory is root's to read: sudo kplug (-c VMCORE opens a dump)\n"
    )


def test_where_there_is_no_running_kernel_to_read_there_is_help(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_MEMORY", str(tmp_path / "none"))
    assert cli.main([]) == 0
    assert capsys.readouterr().out.startswith("usage: kplug ")
    assert cli.main(["-e", "kwhere"]) == 2
    assert "memory cannot be read" in capsys.readouterr().err
