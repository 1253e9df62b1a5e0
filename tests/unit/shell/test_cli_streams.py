"""The shell front end's streams: colours, readers that go away, interrupts.

Expected are the customs of a shell: 130 after an interrupt, nothing said to a reader that has gone.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.bounded_kplug import BoundedKplug
from support.elf_builder import small_vmlinux
from support.paths import ROOT

from kplug.image.opening import sources
from kplug.shell import cli


def run(
    *words: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """A real process, for what only one shows: its streams, its exit."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **(environment or {})}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "kplug", *words]
    return subprocess.run(command, input=stdin, env=environment, timeout=600, check=False, **options)


def on_a_terminal(*words: str, **environment: str) -> str:
    """What a command writes to a terminal."""
    mine, its = pty.openpty()
    settings = {"TERM": "xterm", "NO_COLOR": "", **environment}
    done = run(*words, stdout=its, environment=settings)
    os.close(its)
    out = b""
    try:
        while data := os.read(mine, 65536):
            out += data
    except OSError:
        pass
    finally:
        os.close(mine)
    assert done.returncode == 0
    return out.decode()


def test_text_is_coloured_on_a_terminal_only(vmlinux: str) -> None:
    words = ("where", "-s", vmlinux, "start_kernel")
    assert "\x1b[" in on_a_terminal(*words)
    assert b"\x1b[" not in run(*words).stdout


@pytest.mark.parametrize(
    ("environment", "options"),
    [({"NO_COLOR": "1"}, []), ({"TERM": "dumb"}, []), ({}, ["--color", "never"]), ({}, ["--json"])],
)
def test_a_terminal_without_colours(vmlinux: str, environment: dict[str, str], options: list[str]) -> None:
    """no-color.org: NO_COLOR, when present and not an empty string, prevents colour."""
    assert "\x1b[" not in on_a_terminal("where", "-s", vmlinux, "start_kernel", *options, **environment)


def test_colours_may_be_asked_for(kplug: BoundedKplug, vmlinux: str) -> None:
    coloured = kplug.run("where", "-s", vmlinux, "--color", "always", "start_kernel").out
    plain = kplug.run("where", "-s", vmlinux, "start_kernel").out
    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_a_reader_that_goes_away_is_no_error(vmlinux: str) -> None:
    """`kplug where - | head -1`: nothing on standard error, whatever was still to come."""
    reading, writing = os.pipe()
    os.close(reading)
    done = run("where", "-s", vmlinux, "-", stdin=b"start_kernel\n" * 20_000, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line_and_status_2(vmlinux: str) -> None:
    with open("/dev/full", "wb") as full:
        done = run("where", "-s", vmlinux, "start_kernel", stdout=full)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


@pytest.mark.parametrize(("closed", "status"), [("<&-", 0), (">&-", 2), ("2>&-", 0)])
def test_closed_streams_are_no_traceback(vmlinux: str, closed: str, status: int) -> None:
    command = f'"{sys.executable}" -m kplug where -s "{vmlinux}" start_kernel - {closed}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["/bin/sh", "-c", command], input=b"", capture_output=True, env=environment, check=False)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr


def test_names_that_the_streams_encoding_lacks_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "kern字"
    path.write_bytes(bytes(small_vmlinux()))
    done = run("where", "-s", str(path), "start_kernel", environment={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"kern\\u5b57" in done.stdout


def test_an_interrupt_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], vmlinux: str
) -> None:
    class Interrupted:
        def readline(self, size: int) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", Interrupted())
    assert cli.main(["where", "-s", vmlinux, "-"]) == 130  # 128 + SIGINT
    assert "Traceback" not in capsys.readouterr().err


def test_memory_that_runs_out_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], vmlinux: str
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sources, "open_kernel", fail)
    assert cli.main(["where", "-s", vmlinux, "0"]) == 2
    assert capsys.readouterr().err == "kplug: out of memory\n"


def test_an_interrupt_while_it_starts_is_no_traceback() -> None:
    starting = """
import sys
class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "kplug.resolver":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from kplug.__main__ import main
sys.exit(main())
"""
    run = subprocess.run([sys.executable, "-c", starting], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "")
