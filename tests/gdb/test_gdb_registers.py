"""kregs, kstack and kx in gdb, on a QEMU guest: against gdb's own `info registers`, `bt` and `x`; and QEMU's QMP.

The guest is stopped by gdb, or by QMP where kplug asks QEMU's monitor itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.gdbhelp import Session, run
from support.paths import ROOT

if TYPE_CHECKING:
    from vmimages import VM

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


@pytest.fixture(scope="module")
def session(moved: VM, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """CPU 1, first as gdb has its symbols (as linked), then with the moved ones."""
    return run(
        [
            "kregs --json", "kstack --json", "set kplug drgn off", "kstack --json -n 32", "set kplug drgn auto",
            "info registers", "x/16gx $sp", "kx --json $sp 16", "kx --json $rsp + 8",
            "kregs --json rip $sp pc", "kregs no_such", "kx 0x1000", "kx", "kstack 0x1000", "x/2wx &init_task",
            "kaslr --apply", "bt", "kstack -r --json", "up 3", "kregs --json  ", "info registers ",
            "kstack -n 4 --json",
            "kx --json --size 4 init_task 2", "x/2wx &init_task ", "help kstack", "complete kx init_tas",
        ],
        tmp_path_factory.mktemp("gdb"), vmlinux=moved.files.vmlinux, before=[f"target remote {moved.gdb}", "thread 1"],
    )  # fmt: skip


def told(text: str) -> dict[str, int]:
    """`info registers`: names and values."""
    return {name: int(value, 16) for name, value in re.findall(r"^(\w+)\s+(0x[0-9a-f]+)\b", text, re.MULTILINE)}


def values(found: list[dict[str, Any]]) -> dict[str, int]:
    return {row["name"]: int(row["value"], 16) for row in found if row["value"] is not None}


@pytest.mark.parametrize(("kregs", "info"), [("kregs --json", "info registers"), ("kregs --json  ", "info registers ")])
def test_registers_are_gdbs(session: Session, kregs: str, info: str) -> None:
    """Of the innermost frame, and of one that called it."""
    expected, found = told(session[info].text), values(session[kregs].json)
    assert {"rax", "rip", "rsp", "eflags", "cr3", "gs_base", "efer"} <= found.keys()
    assert found.items() <= expected.items()


def test_those_asked_for(session: Session) -> None:
    found = session["kregs --json rip $sp pc"].json
    assert [row["name"] for row in found] == ["rip", "rsp", "rip"]
    assert found[0]["annotation"]["class"] == "text"
    assert session["kregs no_such"].complaint == "no_such: no such register here"


def test_words_are_gdbs(session: Session) -> None:
    expected = [int(word, 16) for word in re.findall(r"\t(0x[0-9a-f]+)", session["x/16gx $sp"].text)]
    found = session["kx --json $sp 16"].json
    assert [int(row["value"], 16) for row in found] == expected
    assert [row["value"] for row in session["kx --json $rsp + 8"].json] == [row["value"] for row in found[1:9]]


def test_words_of_four_bytes(session: Session) -> None:
    expected = re.findall(r"\t(0x[0-9a-f]+)", session["x/2wx &init_task "].text)
    found = session["kx --json --size 4 init_task 2"].json
    assert [int(row["value"], 16) for row in found] == [int(word, 16) for word in expected]


def test_unreadable(session: Session) -> None:
    assert "0x1000-0x1040 cannot be read: nothing is mapped" in session["kx 0x1000"].complaint
    assert "cannot be read from 0x1000 on" in session["kstack 0x1000"].complaint
    assert "required: ADDR" in session["kx"].complaint


def test_without_the_moved_symbols_no_frame_of_gdbs_is_told(session: Session) -> None:
    """gdb has none of the kernel's unwind information there, and guesses."""
    found = session["kstack --json -n 32"].json
    assert any(row["kind"] == "ret" for row in found)
    assert {row["frame"] for row in found} == {None}
    assert {row["stale"] for row in found} == {None}


def test_drgn_finds_the_frames_without_the_moved_symbols(session: Session) -> None:
    """It knows where the kernel is; without drgn there are none."""
    frames = [
        [(row["frame"], row["value"]) for row in session[command].json if row["frame"] is not None]
        for command in ("kstack --json", "kstack -r --json")
    ]
    assert frames[0] in (frames[1], [])


def test_frames_are_gdbs(session: Session) -> None:
    listed = {
        int(number): int(pc, 16) for number, pc in re.findall(r"^#(\d+)\s+(0x[0-9a-f]+) in", session["bt"].text, re.M)
    }
    found = {
        row["frame"]: int(row["value"], 16) for row in session["kstack -r --json"].json if row["frame"] is not None
    }
    assert len(found) > 3
    # gdb prints the address of the innermost of several functions that were inlined at one.
    assert set(found.values()) <= set(listed.values())
    assert len(found) == len({pc for number, pc in listed.items() if number and pc})


def test_from_an_outer_frame(session: Session) -> None:
    found = session["kstack -n 4 --json"].json
    assert len(found) == 4
    assert int(found[0]["address"], 16) == values(session["kregs --json  "].json)["rsp"]


def test_help_and_completion(session: Session) -> None:
    assert "return address" in session["help kstack"].text
    assert "kx init_task\n" in session["complete kx init_tas"].text


def test_a_guests_registers_by_qmp(moved: VM) -> None:
    """kplug at the shell asks QEMU's monitor for what drgn does not give of a running guest: here one that stands."""
    moved.stop()
    try:
        said = moved.monitor("info registers -a")
        words = [sys.executable, "-m", "kplug", "regs", "--json", "--qemu", str(moved.qmp_socket)]
        done = subprocess.run(
            [*words, "-s", str(moved.files.vmlinux)], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
    finally:
        moved.cont()
    assert (done.returncode, done.stderr) == (0, "")
    found = values([json.loads(line) for line in done.stdout.splitlines()])
    for name, value in re.findall(r"\b(R[A-Z0-9]{1,2}|CR[0-4]|EFER) ?=([0-9a-f]+)\b", said.partition("CPU#1")[0]):
        if name.lower() in found:
            assert found.pop(name.lower()) == int(value, 16), name
    assert found.keys() <= {"eflags", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base"}
