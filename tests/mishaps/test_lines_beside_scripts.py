"""Source lines in a real log: what the kernel's own scripts/decode_stacktrace.sh and scripts/faddr2line say, `kplug
annotate -l` says too. They read the symbol table and start addr2line for each symbol.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.oracle import kernel_scripts
from vmimages import fetch
from vmimages.architectures import architecture
from vmimages.mishaps import mishap_logs

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

_LINE = re.compile(r"[\w./+-]+\.[chS]:\d+")
_SYMBOL = re.compile(r"([\w.]+\+0x[0-9a-f]+/0x[0-9a-f]+)(?! \[)")
# Any release has them; those of this one are of the kernel that all tests have.
_SCRIPTS_OF = "amd64-6.12"
# faddr2line takes seconds for each.
_SYMBOLS = 12


class Beside:
    """A log, and its lines with what was said of each."""

    def __init__(self, name: str, log: Path) -> None:
        self.files = fetch(name, quiet=True)
        self.environment = {**os.environ, "CROSS_COMPILE": architecture(self.files.arch).tools}
        (text,) = (text for _, text in mishap_logs(name, ["oom"], quiet=True))
        # The scripts take other lines apart, and a BUG names its place itself.
        self.lines = [line for line in text.splitlines() if _SYMBOL.search(line)]
        log.write_text("".join(f"{line}\n" for line in self.lines))
        self.log = log

    def run(self, *words: object) -> str:
        command = [str(word) for word in words]
        done = subprocess.run(
            command, input=self.log.read_text(), capture_output=True, text=True, env=self.environment, check=False
        )
        return done.stdout

    def annotated(self) -> list[set[str]]:
        """The places that kplug says for each line."""
        said = self.run(sys.executable, "-m", "kplug", "annotate", "-l", "-s", self.files.vmlinux, self.log)
        found: list[set[str]] = []
        for line in said.splitlines():
            if line.startswith("#> "):
                found[-1] |= set(_LINE.findall(line))
            else:
                found.append(set())
        return found


@pytest.fixture(scope="module", params=["amd64-6.1", "amd64-6.12", "arm64-6.12"])
def beside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Beside:
    return Beside(request.param, tmp_path_factory.mktemp("log") / "log")


def _missing(theirs: str, ours: set[str]) -> set[str]:
    """The places that they say and kplug does not: they leave some paths of the build machine as they are."""
    return {place for place in _LINE.findall(theirs) if not any(("/" + place).endswith("/" + own) for own in ours)}


def test_decode_stacktrace(beside: Beside) -> None:
    script = kernel_scripts.script(_SCRIPTS_OF, "decode_stacktrace.sh")
    theirs = beside.run("bash", script, beside.files.vmlinux, "auto", beside.files.debug_modules).splitlines()
    ours = beside.annotated()
    assert len(theirs) == len(ours) == len(beside.lines)
    assert len([line for line in theirs if _LINE.search(line)]) > 10
    assert [_missing(line, own) for line, own in zip(theirs, ours) if _missing(line, own)] == []


def test_faddr2line(beside: Beside) -> None:
    script = kernel_scripts.script(_SCRIPTS_OF, "faddr2line")
    ours: dict[str, set[str]] = {}
    for line, places in zip(beside.lines, beside.annotated()):
        for symbol in _SYMBOL.findall(line):
            ours.setdefault(symbol, places)
    answers = beside.run("bash", script, beside.files.vmlinux, *list(ours)[:_SYMBOLS])
    theirs = {answer.partition(":\n")[0]: answer.partition(":\n")[2] for answer in answers.strip().split("\n\n")}
    assert len([said for said in theirs.values() if _LINE.search(said)]) > _SYMBOLS / 2
    missing = {symbol: _missing(said, ours[symbol]) for symbol, said in theirs.items() if said}
    assert {symbol: places for symbol, places in missing.items() if places} == {}
