"""`make questions`: every front end is asked about each address that a guest planted, and the answers are counted.

    run.py [--kernel amd64-6.1] [--show QUESTION]

A row for each of docs/questions.md's twenty, a column for each front end: how many of its specimens are answered as
they were planted (tests/support/planted.py). `--show` prints what was wrong or missing. All front ends see one boot:
gdb on the guest while it is stopped, the live kernel inside it, the others its dump.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
# Python put this file's folder first, whose names are of no use to others.
sys.path[0:1] = [str(ROOT), str(ROOT / "vm-images"), str(ROOT / "tests")]

from support import gdbhelp, planted  # noqa: E402
from support.kplug_tree import PACKAGES, kplug_tree  # noqa: E402
from support.live_guest import Guest  # noqa: E402
from vmimages import Planted, Specimen, disk, dump, fetch, manifest, planted_guest  # noqa: E402

_SECONDS = 600
_ANSWER = re.compile(r"^0x[0-9a-f]{16}  ", re.MULTILINE)
_DRGN = """
import sys
from drgn.commands import run_command
for word in sys.argv[2:]:
    run_command(prog, f"kwhere {sys.argv[1]} {word}")
"""

# The text answers to addresses, in their order; the words before an address are options of kwhere.
Asker = Callable[[Sequence[int], str], list[str]]
Answered = list[tuple[Specimen, str]]


class Setting(NamedTuple):
    """The dump and the files that the front ends are given."""

    core: Path
    vmlinux: Path
    scratch: Path


def _split(text: str) -> list[str]:
    starts = [match.start() for match in _ANSWER.finditer(text)]
    return [text[start:end].rstrip() for start, end in zip(starts, [*starts[1:], len(text)])]


def _run(command: Sequence[str], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode > 1:
        sys.exit(f"{' '.join(command[:4])} ...: {done.stderr.strip()[-500:]}")
    return done.stdout


def _kplug(*words: str) -> list[str]:
    return [sys.executable, "-m", "kplug", *words]


def prompt(setting: Setting, *, vmlinux: bool) -> Asker:
    symbols = ["-s", str(setting.vmlinux)] if vmlinux else []

    def ask(addresses: Sequence[int], options: str) -> list[str]:
        commands = [word for address in addresses for word in ("-e", f"kwhere {options} {address:#x}")]
        return _split(_run(_kplug("-c", str(setting.core), *symbols, *commands)))

    return ask


def shell(setting: Setting) -> Asker:
    def ask(addresses: Sequence[int], options: str) -> list[str]:
        words = _kplug("where", "-c", str(setting.core), "-s", str(setting.vmlinux), *options.split(), "-")
        return _split(_run(words, "".join(f"{address:#x}\n" for address in addresses)))

    return ask


def drgn(setting: Setting) -> Asker:
    def ask(addresses: Sequence[int], options: str) -> list[str]:
        script = setting.scratch / "ask.py"
        script.write_text(_DRGN)
        program = [str(Path(sys.executable).with_name("drgn")), "-q", "-c", str(setting.core)]
        return _split(_run([*program, "-s", str(setting.vmlinux), str(script), options, *map(hex, addresses)]))

    return ask


def gdb(guest: Planted, setting: Setting, *, vmlinux: bool) -> Asker:
    def ask(addresses: Sequence[int], options: str) -> list[str]:
        commands = [f"kwhere {options} {address:#x}" for address in addresses]
        found = gdbhelp.run(
            [gdbhelp.connect(guest.vm), *commands],
            setting.scratch,
            vmlinux=setting.vmlinux if vmlinux else None,
            timeout=_SECONDS,
        )
        return _split("\n".join(found[command].output for command in commands))

    return ask


def live(guest: Planted) -> Asker:
    kplug = Guest(guest.vm).kplug
    return lambda addresses, options: _split(kplug(f"where -c /proc/kcore {options} -", given=map(hex, addresses))[1])


def columns(guest: Planted, setting: Setting) -> Iterator[tuple[str, Answered]]:
    """(name, answers) of each front end. The guest runs for the first, and is stopped then."""
    yield "live", _answered(guest, live(guest))
    guest.vm.stop()
    dump(guest.vm, setting.core, quiet=True)
    for name, ask in (
        ("gdb", gdb(guest, setting, vmlinux=True)),
        ("gdb, no vmlinux", gdb(guest, setting, vmlinux=False)),
        ("prompt", prompt(setting, vmlinux=True)),
        ("prompt, no vmlinux", prompt(setting, vmlinux=False)),
        ("shell", shell(setting)),
        ("drgn", drgn(setting)),
    ):
        yield name, _answered(guest, ask)


def _answered(guest: Planted, ask: Asker) -> Answered:
    """Each specimen with the answer to it; a user program's addresses are asked about by its PID."""
    found: Answered = []
    for specimens, options in ((guest.specimens, ""), (guest.user_specimens, f"--pid {guest.pid}")):
        answers = ask([specimen.address for specimen in specimens], options)
        if len(answers) != len(specimens):
            sys.exit(f"{len(specimens)} addresses were asked about, and {len(answers)} answers came")
        found += zip(specimens, answers)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", default="amd64-6.1", help="its name in vm-images' manifest")
    parser.add_argument("--show", type=int, metavar="QUESTION", help="what was missing in the answers to that one")
    arguments = parser.parse_args()
    files = fetch(arguments.kernel)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        disks = disk.python_disk(files, PACKAGES), disk.image(kplug_tree(scratch), scratch / "kplug.ext4")
        with planted_guest(
            arguments.kernel,
            memory=2048,  # vmlinux is mapped in the guest
            threads="multi",
            devices=disk.devices(*disks),
            modules=(*disk.MODULES, *manifest.EXTRA_MODULES),
        ) as guest:
            disk.attach(guest.vm)
            setting = Setting(scratch / "elf", files.vmlinux, scratch)
            answers = dict(columns(guest, setting))
        return report(answers, arguments.show)


def report(answers: dict[str, Answered], show: int | None) -> int:
    """Print the table. The exit status is 1 if an answer is not as it was planted."""
    wrong = 0
    print("| # | " + " | ".join(answers) + " |")
    print("|---" * (len(answers) + 1) + "|")
    for question in range(1, 21):
        cells = []
        for name, given in answers.items():
            asked = right = 0
            for specimen, answer in given:
                expected = planted.expected_of(specimen)
                if expected is None or question not in expected.questions:
                    continue
                lacking = planted.missing(specimen, answer)
                asked, right = asked + 1, right + (not lacking)
                if lacking and show == question:
                    print(f"{name}: {specimen.key} {lacking}: {specimen.truth}\n{answer}\n")
            wrong += asked - right
            cells.append(f"{right} of {asked}" if asked else "-")
        print(f"| {question} | " + " | ".join(cells) + " |")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
