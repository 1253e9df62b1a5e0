"""The plug-ins that drgn loads when kplug opens a kernel: those of others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kplug.runtime.opening import opening


def test_where_nobody_else_has_one_drgn_looks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "some-1.0.dist-info"
    info.mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for names, disabled in (
        ("", "*"),
        ("builtin_commands = drgn.commands._builtin\nkplug = kplug.drgn_plugin\n", "*"),
        ("kplug = kplug.drgn_plugin\nfinder = some:finder\n", "builtin_commands,crash_commands,kplug"),
    ):
        (info / "entry_points.txt").write_text(f"[drgn.plugins]\n{names}")
        assert opening._unneeded_plugins() == disabled


def test_an_archive_on_the_path_may_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some.zip").write_bytes(b"PK")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "some.zip")])
    assert opening._unneeded_plugins() == "builtin_commands,crash_commands,kplug"
