"""Runs gdb with a list of commands, and gives back what each of them printed. `KPLUG_GDB` names another gdb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.paths import ROOT

if TYPE_CHECKING:
    from vmimages import VM

SCRIPT = ROOT / "gdb" / "kplug.py"
GDB = os.environ.get("KPLUG_GDB") or shutil.which("gdb") or "gdb"
# Debian's gdb knows its own machine's architecture alone.
GDB_OF_ALL = os.environ.get("KPLUG_GDB") or shutil.which("gdb-multiarch")

# Symbols are read from memory, and another kernel's banner is looked for, as long as a user would wait. This machine
# may be a busy one: how slow it is decides nothing. The second is for some tests: it takes long where none is.
_PATIENT_READER = "python from kplug_gdb import unnamed; unnamed._PATIENCE_SECONDS = 1e6"
PATIENT = "python from kplug_gdb import finder; finder._LOOK_SECONDS = 1e6"

# Runs inside gdb. It is given as text, not sourced: a sourced script's __file__ would be around for the others.
_DRIVER = """
import json, os
import gdb
results = []
def save():
    with open(os.environ["KPLUG_TEST_RESULTS"], "w") as file:
        json.dump(results, file)
for command in json.loads(os.environ["KPLUG_TEST_COMMANDS"]):
    try:
        results.append([command, gdb.execute(command, to_string=True), None])
    except gdb.error as error:
        results.append([command, "", str(error)])
    except KeyboardInterrupt:
        results.append([command, "", "KeyboardInterrupt"])
    save()
"""


def connect(machine: VM) -> str:
    """gdb's command for it."""
    return f"target remote {machine.gdb}"


@dataclass(frozen=True)
class Result:
    """What a command printed, and the error that it ended with."""

    command: str
    output: str
    error: str | None

    @property
    def text(self) -> str:
        """The output of a command that must have worked."""
        assert self.error is None, f"{self.command}: {self.error}"
        return self.output

    @property
    def json(self) -> list[dict[str, Any]]:
        """The lines of a command with --json."""
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def complaint(self) -> str:
        """The error of a command that must have failed: one line, and no traceback."""
        assert self.error is not None, f"{self.command} did not fail: {self.output}"
        assert "Traceback" not in self.error + self.output
        assert "internal error" not in self.error
        assert len(self.error.strip().splitlines()) == 1, self.error
        return self.error


@dataclass(frozen=True)
class Session:
    """All results of a run, and what gdb wrote besides."""

    results: tuple[Result, ...]
    stderr: str

    def __getitem__(self, command: str) -> Result:
        """The result of a command; of the last one if it was given more than once."""
        return next(result for result in reversed(self.results) if result.command == command)

    def all(self, command: str) -> list[Result]:
        return [result for result in self.results if result.command == command]


def surviving(asked: Callable[[], Session]) -> Session:
    """What a gdb says whose connection drops: gdb 13 itself dies of that now and then, and is started again."""
    for _ in range(3):
        session = asked()
        if "internal problem" not in session.stderr:
            break
    return session


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What gdb is started with: the drgn of the Python that runs the tests is in the active venv."""
    found = {**os.environ, "VIRTUAL_ENV": sys.prefix, "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    found.update({"DEBUGINFOD_URLS": "", **(extra or {})})
    return {name: value for name, value in found.items() if value}


def _index_kept() -> list[str]:
    """gdb keeps its index of a vmlinux's 590 MB under the build ID, which each gdb else makes for itself."""
    from vmimages.paths import cache_root

    folder = cache_root() / "gdb-index"
    return ["-iex", f"set index-cache directory {folder}", "-iex", "set index-cache enabled on"]


def run(
    commands: Sequence[str],
    scratch: Path,
    *,
    vmlinux: str | Path | None = None,
    before: Sequence[str] = (),
    script: str | Path | None = SCRIPT,
    extra: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 600.0,
    program: str = GDB,
    patient: bool = True,
) -> Session:
    """Start gdb (`program`) on `vmlinux`, do `before`, source the script and then run the commands.

    A gdb that does not end in time is killed, and the test fails: nothing may hang. One that isn't `patient` gives up
    as a user's does.
    """
    source = [f"source {script}"] if script is not None else []
    source += [_PATIENT_READER] if script == SCRIPT and patient else []
    file = scratch / "results.json"
    file.unlink(missing_ok=True)
    env = environment(extra)
    env["KPLUG_TEST_COMMANDS"] = json.dumps([*before, *source, *commands])
    env["KPLUG_TEST_RESULTS"] = str(file)
    driver = scratch / "driver.py"
    driver.write_text(_DRIVER)
    arguments = [
        program,
        "-nx",
        "-batch",
        "-iex",
        "set auto-load off",
        "-iex",
        "set debuginfod enabled off",
        *_index_kept(),
        *(["-iex", "set remotetimeout 600"] if patient else []),
        "-ex",
        "set width 0",
        "-ex",
        "set height 0",
    ]
    arguments += [str(vmlinux)] if vmlinux is not None else []
    arguments += ["-ex", f"python exec(compile(open({str(driver)!r}).read(), '<driver>', 'exec'))"]
    done = subprocess.run(
        arguments, env=env, cwd=cwd or scratch, capture_output=True, text=True, timeout=timeout, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        results = tuple(Result(*row) for row in json.loads(file.read_text()) if row[0] != _PATIENT_READER)
    except FileNotFoundError:
        raise AssertionError(f"gdb did not get to the commands:\n{done.stdout}\n{done.stderr}") from None
    return Session(results, done.stderr)
