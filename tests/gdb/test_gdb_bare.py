"""A clone and Debian's gdb, with nothing installed: it answers what it answers beside the packages, all but drgn's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.gdb_expected import addresses_command, names_command, nm, sample, sections
from support.gdbhelp import SCRIPT, Session, run
from support.paths import ROOT
from support.rsp_stub import ElfMemory, Stub, registers_of

if TYPE_CHECKING:
    from vmimages import DumpSet, KernelFiles

pytestmark = pytest.mark.kernel

# Where pip, apt and a user's own pip put packages, and what makes a Python find them.
HIDE = "python import sys; sys.path[:] = [p for p in sys.path if not p.endswith('-packages')]"
NOTHING = (
    "python import importlib.util as u; print([n for n in ('elftools', 'drgn', 'prompt_toolkit') if u.find_spec(n)])"
)
BARE = {"VIRTUAL_ENV": "", "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
OF_FILES = (
    *("kwhere schedule+4", "kwhere --json init_task.comm runqueues 0xdead000000000122 0xffff888000000000"),
    *("kwhere -b .init.text linux_banner jiffies&-8 0x18", "ksym schedule", "ksym --json init_*", "ksections"),
    *("ksegments --json", "kregions --json", "kmap", "kmap --json -v", "kaslr", "kwhere no_such_name", "help kwhere"),
    *("complete kwhere sched_setaff", "p $kclass(&schedule)", 'printf "%s", $kwhere(&init_task)', "ksections loop"),
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script in a copy of the files that git tracks, as they are now."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    assert not (folder / ".venv").exists()
    return folder / "gdb" / "kplug.py"


def without_packages(commands: list[str], scratch: Path, clone: Path, **options: object) -> Session:
    session = run([NOTHING, *commands], scratch, script=clone, extra=BARE, **options)  # type: ignore[arg-type]
    assert session[NOTHING].text.strip() == "[]"
    assert session[f"source {clone}"].text == ""
    return session


def check_the_same(commands: list[str], bare: Session, full: Session) -> None:
    for command in commands:
        ours, theirs = bare[command], full[command]
        assert (ours.output, ours.error) == (theirs.output, theirs.error), command


def test_files_are_answered_for_the_same(kernel_61: KernelFiles, clone: Path, tmp_path: Path) -> None:
    """With source lines, which are gdb's own; symbols, sections' starts, and a module that add-symbol-file placed."""
    module, text = next(kernel_61.debug_modules.rglob("loop.ko")), 0xFFFFFFFFC0400000
    symbols = sample(nm(kernel_61.vmlinux), 60)
    starts = [address for address, _ in sections(kernel_61.vmlinux).values() if address]
    commands = [
        f"add-symbol-file {module} {text:#x} -s .data {text + 0x10000:#x}",
        addresses_command(symbols), names_command(symbols),
        "kwhere --json " + " ".join(f"{start:#x}" for start in starts),
        f"kwhere {text + 0x10:#x} lo_ioctl", *OF_FILES,
    ]  # fmt: skip
    bare = without_packages(commands, tmp_path, clone, vmlinux=kernel_61.vmlinux, before=[HIDE])
    check_the_same(commands, bare, run(commands, tmp_path, vmlinux=kernel_61.vmlinux))
    assert re.search(r"^  line +kernel/sched/core.c:\d+$", bare["kwhere schedule+4"].text, re.MULTILINE)
    assert "[loop]" in bare[commands[4]].text
    assert len(starts) > 20


@pytest.mark.boot
def test_memory_is_answered_for_the_same(dumped: DumpSet, bare_61: Path, clone: Path, tmp_path: Path) -> None:
    """On a core and on a stub, as far as drgn is not asked."""
    commands = ["kwhere $pc", "kwhere --json $sp init_task runqueues", "kregs", "kstack", "kx $sp 8", "kaslr", "kmap"]
    off = "set kplug drgn off"
    registers = registers_of((dumped.root / "truth" / "registers").read_text(), 0)
    core = [f"core-file {dumped.paths['elf-paging']}"]
    bare = without_packages(commands, tmp_path, clone, vmlinux=bare_61, before=[HIDE, *core])
    check_the_same(commands, bare, run([off, *commands], tmp_path, vmlinux=bare_61, before=core))
    assert "KASLR +0x" in bare["kwhere $pc"].text
    with Stub(ElfMemory(dumped.paths["elf-paging"]), registers) as stub:
        bare = without_packages(commands, tmp_path, clone, vmlinux=bare_61, before=[HIDE, stub.command])
        check_the_same(commands, bare, run([off, *commands], tmp_path, vmlinux=bare_61, before=[stub.command]))


def test_kplug_says_what_drgn_would_add(bare_61: Path, clone: Path, tmp_path: Path) -> None:
    session = without_packages(["kplug", "kplug --json", "kmod"], tmp_path, clone, vmlinux=bare_61, before=[HIDE])
    said = re.search(r"^missing.* drgn\n  cost +(.*)\n  remedy +(.*)$", session["kplug"].text, re.MULTILINE)
    assert said, session["kplug"].text
    assert "modules, slab objects" in said[1]
    assert said[2].endswith("install drgn")
    assert str(clone.parents[1] / ".venv") in said[2]
    assert {"what": "drgn", "cost": said[1], "remedy": said[2]} in session["kplug --json"].json[0]["missing"]
    assert "`kplug` says how to get drgn" in session["kmod"].complaint


def test_the_packages_beside_it_are_another_answer(tmp_path: Path) -> None:
    """That the comparison is one: the checkout that runs the tests has drgn where gdb's Python can take it."""
    if "KPLUG_GDB" in os.environ:
        pytest.skip("its Python may be another version")
    session = run([NOTHING], tmp_path, script=SCRIPT)
    assert "drgn" in session[NOTHING].text
