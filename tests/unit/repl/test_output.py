"""Where the prompt's lines go: what fits on the screen stays there, what does not goes to the pager."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kplug.repl.output import Screen

ROWS = 5


@pytest.mark.parametrize(
    ("lines", "paged"),
    [
        (["one"], False),
        (["one"] * (ROWS - 1), False),  # the prompt takes the last row
        (["one"] * ROWS, True),
        (["x" * 80] * (ROWS - 1), False),
        (["x" * 81] * 2, False),  # two rows each
        (["x" * 81] * 3, True),
        (["a\nb\nc\nd\ne"], True),
    ],
)
def test_the_rows_alone_decide_what_is_paged(
    lines: list[str], paged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pages = tmp_path / "pages"
    monkeypatch.setattr("shutil.get_terminal_size", lambda *args, **named: os.terminal_size((80, ROWS)))
    monkeypatch.setattr(Screen, "_pager", lambda self: f"cat > '{pages}'")
    with Screen().opened() as writer:
        for line in lines:
            writer.write(line)
    text = "".join(f"{line}\n" for line in lines)
    assert capfd.readouterr().out == ("" if paged else text)
    assert (pages.read_text() if pages.exists() else "") == (text if paged else "")


def test_what_was_written_before_an_error_is_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        with Screen().opened() as writer:
            writer.write("before")
            raise KeyboardInterrupt

    monkeypatch.setattr(Screen, "_pager", lambda self: "cat")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capfd.readouterr().out == "before\n"
