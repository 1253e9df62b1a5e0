"""`make hunt`: what users reported of other tools, asked of kplug on real kernels.

    run.py [--list] [WORD ...]

Each row of cases.py is run, or those with one of the words in their name; printed are the case, its answer, the right
value and the verdict. The exit status is 1 if an answer is wrong. cases.py says how to add a row.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
# Python put this file's folder first, whose names are of no use to others.
sys.path[0:1] = [str(ROOT), str(ROOT / "vm-images"), str(ROOT / "tests")]

from hunt.cases import CASES, Case  # noqa: E402
from support import gdbhelp  # noqa: E402
from vmimages import VM, boot, fetch  # noqa: E402
from vmimages.paths import cache_root  # noqa: E402

_SECONDS = 300
_SHOWN_LINES = 12
# The commands that cases are written with.
_TOOLS = {
    # boot-image ARCH: the path of another architecture's.
    "boot-image": f'exec {sys.executable} {ROOT}/vm-images/vm.py image "$1"',
    # kallsyms-finder FILE: vmlinux-to-elf's; it is GPL, so it is installed apart, and only run.
    "kallsyms-finder": f"""place={cache_root()}/vmlinux-to-elf
[ -x $place/bin/kallsyms-finder ] || {{
  {sys.executable} -m venv $place && $place/bin/pip install -q vmlinux-to-elf
}} >&2
exec $place/bin/kallsyms-finder "$@" 2>/dev/null""",
    "kplug": f'export PYTHONPATH={ROOT}; exec {sys.executable} -m kplug "$@"',
    # kgdb COMMAND...: gdb with kplug sourced, on $VMLINUX unless this is empty, and with the guest if there is one. The
    # commands are run one by one, and an error does not end gdb.
    "kgdb": f"""words=()
for word in ${{GDB_TARGET:+"target remote $GDB_TARGET"}} "$@"; do words+=(-ex "$word"); done
exec {gdbhelp.GDB} -nx -batch -iex 'set auto-load off' -iex 'set debuginfod enabled off' \\
    -ex 'set width 0' -ex 'set height 0' ${{VMLINUX:+"$VMLINUX"}} -ex 'source {ROOT}/gdb/kplug.py' "${{words[@]}}" """,
    # kdrgn WORD...: drgn, with the plugin.
    "kdrgn": f'export PYTHONPATH={ROOT}; exec {Path(sys.executable).with_name("drgn")} -q "$@"',
}


class Answer(NamedTuple):
    """What a case's command printed, errors too, and what it lacks or should not have."""

    text: str
    right: list[str]
    problems: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only cases that have it in their name")
    parser.add_argument("--list", action="store_true", help="the cases' names")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if not arguments.words or any(word in case.name for word in arguments.words)]
    if arguments.list or not chosen:
        print("\n".join(case.name for case in chosen) or "no such case")
        return 0 if chosen else 2
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for case, environment in _settings(chosen, Path(folder)):
            answer = _ask(case, environment)
            wrong += bool(answer.problems)
            _show(case, answer)
    print(f"{len(chosen) - wrong} of {len(chosen)} right")
    return 1 if wrong else 0


def _settings(cases: list[Case], scratch: Path) -> Iterator[tuple[Case, dict[str, str]]]:
    """Each case with its environment; a guest is booted once for all cases that need it."""
    tools = scratch / "bin"
    tools.mkdir()
    for name, text in _TOOLS.items():
        (tools / name).write_text(f"#!/bin/bash\n{text}\n")
        (tools / name).chmod(0o755)
    plain = gdbhelp.environment({"PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"})
    for kernel, guest in dict.fromkeys((case.kernel, case.guest) for case in cases):
        files = fetch(kernel, quiet=True)
        environment = {**plain, "K": str(files.vmlinux.parent), "VMLINUX": str(files.vmlinux)}
        with ExitStack() as stack:
            if guest:
                machine = stack.enter_context(_stopped_guest(kernel, scratch / f"{kernel}.kallsyms"))
                environment.update(GDB_TARGET=machine.gdb, KALLSYMS=str(scratch / f"{kernel}.kallsyms"))
            for case in cases:
                if (case.kernel, case.guest) == (kernel, guest):
                    yield case, environment


@contextmanager
def _stopped_guest(kernel: str, kallsyms: Path) -> Iterator[VM]:
    """A guest of that kernel with KASLR, stopped; its own /proc/kallsyms is kept in the file."""
    with boot(kernel, quiet=True) as machine:
        kallsyms.write_bytes(machine.read_file("/proc/kallsyms"))
        machine.stop()
        yield machine


def _ask(case: Case, environment: dict[str, str]) -> Answer:
    with tempfile.TemporaryDirectory() as folder:
        if case.prepare:
            subprocess.run(["bash", "-ec", case.prepare], cwd=folder, env=environment, check=True, timeout=_SECONDS)
        done = _bash(case.command, folder, environment, case.given)
        text = done.stdout
        right = [value for line in _lines(case.right) for value in _values(line, folder, environment)]
    problems = [f"lacks: {value}" for value in right if value not in text]
    problems += [f"has: {value}" for value in _lines(case.wrong) if value in text]
    if case.status is not None and case.status != done.returncode:
        problems.append(f"exit status {done.returncode}, not {case.status}")
    return Answer(text.rstrip(), right, problems if right or case.wrong else ["no right value"])


def _values(line: str, folder: str, environment: dict[str, str]) -> list[str]:
    """The right values that a line states: those that a command prints, or the line itself."""
    if not line.startswith("$ "):
        return [line]
    return _lines(_bash(line[2:], folder, environment).stdout) or [f"(nothing from {line})"]


def _bash(command: str, folder: str, environment: dict[str, str], given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=_SECONDS,
        check=False,
    )


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _show(case: Case, answer: Answer) -> None:
    lines = answer.text.splitlines()
    more = [f"({len(lines) - _SHOWN_LINES} more lines)"] if len(lines) > _SHOWN_LINES else []
    print(f"{'WRONG' if answer.problems else 'ok   '}  {case.name}")
    print(f"  $ {case.command}")
    for heading, values in (
        ("given", case.given.splitlines()),
        ("answer", lines[:_SHOWN_LINES] + more),
        ("right", answer.right),
        ("source", [case.source]),
        ("WRONG", answer.problems),
    ):
        for number, value in enumerate(values):
            print(f"  {'' if number else heading:<6}  {value}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
