"""Locators of third parties come in through entry points."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kplug.errors import InputError
from kplug.plugins import installed_locators
from kplug.session import Session

PLUGIN = """
from kplug.model import Layer

class FirmwareLocator:
    def locate(self, address):
        if 0x1000 <= address < 0x2000:
            yield Layer("area", "firmware mailbox", 0x1000, 0x2000, "the board's manual")

def make(session):
    return FirmwareLocator()

def broken(session):
    raise RuntimeError("no board")
"""


def install(folder: Path, entry: str) -> list[str]:
    """What pip leaves behind of a plugin: a module and its entry points."""
    (folder / "board_plugin.py").write_text(PLUGIN)
    info = folder / "board_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: board-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[kplug.locators]\nboard = board_plugin:{entry}\n")
    return [str(folder)]


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "board_plugin", raising=False)
    return tmp_path


def test_a_plugin_adds_its_layers(on_path: Path) -> None:
    install(on_path, "make")
    layers = Session([]).resolver.where(0x1004).layers
    assert [layer.name for layer in layers if layer.source == "the board's manual"] == ["firmware mailbox"]


def test_a_broken_plugin_is_named_in_one_line(on_path: Path) -> None:
    with pytest.raises(InputError, match=r"^plugin board \(board_plugin:broken\): RuntimeError: no board$"):
        installed_locators(Session([]), install(on_path, "broken"))


def test_without_plugins_nothing_is_imported(tmp_path: Path) -> None:
    assert installed_locators(Session([]), [str(tmp_path)]) == ()
