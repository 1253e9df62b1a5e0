"""The line that is shown while something takes long: on a terminal, never in a file, and gone afterwards."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from kplug import progress
from kplug.progress import Progress, waiting

ERASED = "\r\x1b[K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that takes any time is shown."""
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_REDRAW_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
def test_it_is_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("searching") as line:
        line.update(0.5)
        line.update(1.0)
    said = terminal.getvalue()
    assert said == (f"\rsearching [{'#' * 12}{'.' * 12}]  50%\x1b[K\rsearching [{'#' * 24}] 100%\x1b[K{ERASED}")


@pytest.mark.usefixtures("impatient")
def test_a_file_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with Progress("searching") as line:
        line.update(0.5)
    assert file.getvalue() == ""


def test_what_is_quick_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert waiting("thinking", lambda: 42) == 42
    assert terminal.getvalue() == ""


def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise LookupError("no such type")

    with pytest.raises(LookupError, match=r"^no such type$"):
        waiting("thinking", work)


def test_ctrl_c_does_not_wait_for_the_work() -> None:
    """The work sleeps in C for a minute; SIGINT comes after a moment."""
    code = (
        "import os, signal, threading, time\n"
        "from kplug.progress import waiting\n"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n"
        "    waiting('sleeping', lambda: time.sleep(60))\n"
        "except KeyboardInterrupt:\n"
        "    raise SystemExit(130)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], timeout=600, capture_output=True, text=True, check=False, env=os.environ
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")
