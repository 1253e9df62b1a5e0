"""Locators of third parties come in through entry points."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from kplug import kinds
from kplug.errors import InputError
from kplug.plugins import installed_locators
from kplug.render.json_lines import JsonLines
from kplug.render.text import TextRenderer
from kplug.session import Session
from kplug.summary import summarize

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


# A kind of its own, as docs/extending.md shows it.
WITH_A_KIND = """
from kplug.kinds import Kind, before_range, register
from kplug.model import Layer

MAILBOX = register(
    Kind(
        "mailbox",
        order=720,
        details={"slot": "(of the firmware's protocol)"},
        words=lambda layer: (before_range(f"{layer.name}  slot {layer.details['slot']}", layer), True),
        phrase=lambda layer, offset: f"firmware mailbox slot {layer.details['slot']}+{offset:#x}",
        implies="data",
    )
)

class MailboxLocator:
    def locate(self, address):
        if 0xFFFF888000001000 <= address < 0xFFFF888000002000:
            yield Layer(MAILBOX.name, "mailbox", 0xFFFF888000001000, 0xFFFF888000002000, "the manual", {"slot": 3})

class LaterLocator:
    def locate(self, address):
        yield Layer("area", "the board's", 0xFFFF888000000000, 0xFFFF888000010000, "asked later, but wider")

def make(session):
    return MailboxLocator()

def later(session):
    return LaterLocator()
"""


def install(folder: Path, *entries: str, text: str = PLUGIN) -> list[str]:
    """What pip leaves behind of a plugin: a module and its entry points."""
    (folder / "board_plugin.py").write_text(text)
    info = folder / "board_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: board-plugin\nVersion: 1.0\n")
    lines = (f"board{number or ''} = board_plugin:{entry}\n" for number, entry in enumerate(entries))
    (info / "entry_points.txt").write_text("[kplug.locators]\n" + "".join(lines))
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


def test_a_plugins_kind_is_shown_in_its_place_and_in_the_one_line_answer(on_path: Path) -> None:
    install(on_path, "make", "later", text=WITH_A_KIND)
    try:
        answer = Session([], machine="x86_64").resolver.where(0xFFFF888000001010)
        assert [layer.kind for layer in answer.layers] == ["area", "area", "mailbox"]
        assert str(summarize(answer)) == "firmware mailbox slot 3+0x10 (direct map)"
        assert answer.region_class == "data"
        line = next(line for line in TextRenderer().annotation(answer).split("\n") if "mailbox  slot" in line)
        assert line == "  mailbox  mailbox  slot 3            0xffff888000001000-0xffff888000002000  +0x10"
        assert json.loads(JsonLines().annotation(answer))["layers"][-1]["details"] == {"slot": 3}
    finally:
        del kinds._KINDS["mailbox"]


def test_a_broken_plugin_is_named_in_one_line(on_path: Path) -> None:
    with pytest.raises(InputError, match=r"^plugin board \(board_plugin:broken\): RuntimeError: no board$"):
        installed_locators(Session([]), install(on_path, "broken"))


def test_without_plugins_nothing_is_imported(tmp_path: Path) -> None:
    assert installed_locators(Session([]), [str(tmp_path)]) == ()
