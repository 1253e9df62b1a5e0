"""The second table of `make questions`: which of the twenty questions crash, drgn and gdb answer in a command or two.

Each is asked about the same planted addresses, on the same dump: crash by `kmem`, `sym` and `vtop`, drgn by
`identify_address`, gdb, whose symbols were moved to where the kernel is, by `info symbol` and `info line`. A question
counts as answered if the output has the fact that it asks for, in whatever words.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
# Python put this file's folder first, whose names are of no use to others.
sys.path[0:1] = [str(ROOT), str(ROOT / "vm-images"), str(ROOT / "tests")]

from vmimages import DumpSet, planted_dump, specimens, user_pid, user_specimens  # noqa: E402

_KERNEL = "amd64-6.1"
_SECONDS = 600
_MARK = "-- asked --"


class Fact(NamedTuple):
    """What an answer to the question about a specimen has to have, in any order."""

    question: int
    key: str
    patterns: tuple[str, ...]


FACTS = (
    Fact(1, "vm_text", (r"schedule *\+ *(0x)?4\b",)),
    Fact(2, "mod_roai", (r"planted\b", r"data\.\.ro_after_init|\bro_after_init\b")),
    Fact(3, "reuse_slab", (r"planted_reuse", r"\bfreed\b")),
    Fact(4, "mod_data", (r"rw-|\bRW\b|\bNX\b",)),
    Fact(5, "null_off", (r"(?i)null",)),
    Fact(6, "flipped", (r"(?i)canonical",)),
    Fact(7, "list_poison1", (r"LIST_POISON1",)),
    Fact(8, "err_enomem", (r"ENOMEM",)),
    Fact(9, "plain_alloc", (r"planted_plain", r"(?i)allocated|slab object: planted_plain|\[ffff")),
    Fact(9, "full_redzone_left", (r"(?i)red zone",)),
    Fact(10, "user_alloc", (r"planted_make_object",)),
    Fact(11, "pcpu_mod_instance", (r"planted_pcpu_var",)),
    Fact(11, "pcpu_static", (r"cpu_info",)),
    Fact(12, "kthread_stack", (r"plantedthread",)),
    Fact(13, "estack_NMI_cpu1", (r"NMI",)),
    Fact(14, "kthread_guard_below", (r"(?i)guard",)),
    Fact(15, "vmalloc_guard", (r"(?i)vmap|vmalloc",)),
    Fact(15, "vmalloc", (r"(?i)vmap|vmalloc",)),
    Fact(16, "struct_page_slab", (r"(?i)pfn|physical",)),
    Fact(17, "text_alias", (r"\bschedule\b",)),
    Fact(18, "pt_pmd_user", (r"planted_user",)),
    Fact(19, "user_file", (r"/planted/data",)),
    Fact(20, "vm_roai", (r"ro_after_init", r"r--|\bRO\b")),
)

# The outputs for addresses, in their order; `pid` is the process of a program's own.
Asker = Callable[[Sequence[int], int], list[str]]


def _split(text: str) -> list[str]:
    return text.split(_MARK)[1:]


def _run(command: Sequence[str], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_SECONDS, errors="replace")
    return done.stdout + done.stderr


def kplug(dump: DumpSet, folder: Path) -> Asker:
    def ask(addresses: Sequence[int], pid: int) -> list[str]:
        words = [sys.executable, "-m", "kplug", "-c", str(dump.paths["elf"]), "-s", str(dump.files.vmlinux)]
        for address in addresses:
            of = f"--pid {pid} " if address < 1 << 47 and address > 1 << 16 else ""
            words += ["-e", f"print('{_MARK}')", "-e", f"kwhere {of}{address:#x}"]
        return _split(_run(words))

    return ask


def crash(dump: DumpSet, folder: Path) -> Asker:
    def ask(addresses: Sequence[int], pid: int) -> list[str]:
        lines = [f"set {pid}"]
        for address in addresses:
            lines += [f"!echo {_MARK}", f"kmem {address:x}", f"sym {address:x}"]
            lines += [f"vtop {address:x}"] if address > 1 << 47 else [f"vm -p | grep {address:x}"]
        text = _run(["crash", "-s", str(dump.files.vmlinux), str(dump.paths["elf"])], "\n".join([*lines, "quit", ""]))
        return _split(text)

    return ask


def drgn(dump: DumpSet, folder: Path) -> Asker:
    def ask(addresses: Sequence[int], pid: int) -> list[str]:
        script = folder / "ask.py"
        script.write_text(
            "import sys\nfrom drgn.helpers.common.memory import identify_address\n"
            f"for word in sys.argv[1:]:\n    print({_MARK!r})\n    print(identify_address(prog, int(word, 16)))\n"
        )
        program = [str(Path(sys.executable).with_name("drgn")), "-q", "-c", str(dump.paths["elf"])]
        return _split(_run([*program, "-s", str(dump.files.vmlinux), str(script), *map(hex, addresses)]))

    return ask


def gdb(dump: DumpSet, folder: Path) -> Asker:
    def ask(addresses: Sequence[int], pid: int) -> list[str]:
        offset = dump.truth.kaslr_offset(dump.files)
        words = ["gdb", "-nx", "-batch", "-ex", f"symbol-file -o {offset:#x} {dump.files.vmlinux}"]
        for address in addresses:
            words += ["-ex", f"echo {_MARK}", "-ex", f"info symbol {address:#x}", "-ex", f"info line *{address:#x}"]
        return _split(_run(words))

    return ask


def main() -> int:
    dump = planted_dump(_KERNEL)
    planted = {specimen.key: specimen.address for specimen in (*user_specimens(dump), *specimens(dump))}
    tools = {"kplug": kplug, "crash": crash, "drgn": drgn, "gdb": gdb}
    missing = [name for name in ("crash", "gdb") if shutil.which(name) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} must be installed: .ci/setup bench does")
    asked = [fact for fact in FACTS if fact.key in planted]
    with tempfile.TemporaryDirectory() as folder:
        given = {
            name: make(dump, Path(folder))([planted[fact.key] for fact in asked], user_pid(dump))
            for name, make in tools.items()
        }
    for name, answers in given.items():
        if len(answers) != len(asked):
            sys.exit(f"{name}: {len(asked)} addresses were asked about, and {len(answers)} outputs came")
    print("| # | " + " | ".join(given) + " |")
    print("|---" * (len(given) + 1) + "|")
    for question in sorted({fact.question for fact in asked}):
        cells = []
        for answers in given.values():
            here = [
                all(re.search(pattern, answer) for pattern in fact.patterns)
                for fact, answer in zip(asked, answers)
                if fact.question == question
            ]
            cells.append("yes" if all(here) else "partly" if any(here) else "no")
        print(f"| {question} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
