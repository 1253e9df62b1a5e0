"""kinfo and knotes in gdb: the same as at the shell, of the vmlinux and the core that gdb has."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.gdbhelp import run
from support.paths import ROOT

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


def at_the_shell(*words: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "kplug", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_notes_and_facts_of_a_core_and_its_vmlinux(dumped: DumpSet, bare_61: Path, tmp_path: Path) -> None:
    core = str(dumped.paths["elf-paging"])
    session = run(
        ["knotes --json", "kinfo --json", f"knotes --json {core}"],
        tmp_path, vmlinux=bare_61, before=[f"core-file {core}"],
    )  # fmt: skip
    of_core = at_the_shell("notes", core)
    assert session[f"knotes --json {core}"].json == of_core
    assert session["knotes --json"].json == at_the_shell("notes", str(bare_61)) + of_core
    assert session["kinfo --json"].json == at_the_shell("info", str(bare_61))
