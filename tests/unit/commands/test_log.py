"""klog over a log that is made here: what it prints, and what it says that is missing."""

from __future__ import annotations

import argparse
import json

import pytest
from support.answers import outputs
from support.printk_writer import CPU, RESERVED, Ring

from kplug.arch.types.word import WordFormat
from kplug.errors import TargetError, UsageError
from kplug.lifetimes import Memo
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.outputs import Problem
from kplug.render.show import Renderer
from kplug.session import Session
from kplug.target import Target

# The beginning of an oops of 6.1, and that of a warning, as kernel/panic.c and arch/x86/mm/fault.c print them.
OOPS = (
    b"BUG: kernel NULL pointer dereference, address: 0000000000000018",
    b"#PF: supervisor read access in kernel mode",
    b"Oops: 0000 [#1] PREEMPT SMP PTI",
    b"CPU: 0 PID: 123 Comm: sh Not tainted 6.1.0-57-cloud-amd64 #1  Debian 6.1.192-3",
    b"RIP: 0010:reads_null+0x5/0x20",
    b"---[ end trace 0000000000000000 ]---",
)
WARNING = (
    b"------------[ cut here ]------------",
    b"WARNING: CPU: 1 PID: 0 at kernel/sched/core.c:100 warns+0x1b/0x20",
    b"CPU: 1 PID: 0 Comm: swapper/1 Not tainted 6.1.0-57-cloud-amd64 #1  Debian 6.1.192-3",
    b"RIP: 0010:warns+0x1b/0x20",
    b"---[ end trace 0000000000000000 ]---",
)


class Host(Target):
    """A kernel that has a log, and nothing else."""

    def __init__(self, ring: Ring, info: VmcoreInfo | None = None) -> None:
        self._ring = ring
        self._info = info
        self._memo = Memo()

    @property
    def memo(self) -> Memo:
        return self._memo

    def has_memory(self) -> bool:
        return True

    def read(self, address: int, size: int) -> bytes:
        return self._ring.read(address, size)

    def vmcoreinfo(self) -> VmcoreInfo | None:
        return self._info


def session_of(*records: tuple[bytes, int], state: int | None = None) -> Session:
    ring = Ring(WordFormat(), bits=6, text_bits=13)
    for text, caller in records:
        ring.printk(text, 1_000_000_000, caller)
    if state is not None:
        ring.printk(b"half", 0, 0, state)
    return Session((), target=Host(ring, ring.note()), machine="x86_64")


def shown(session: Session, *words: str) -> list[str]:
    """What the command prints, problems with an exclamation mark before them."""
    renderer = Renderer(argparse.Namespace(json="--json" in words))
    lines = []
    for output in outputs(session, "log", *words):
        if isinstance(output, Problem):
            lines.append(f"! {output.message}")
        else:
            lines += renderer.lines(output)
    return lines


def test_each_line_is_explained_as_in_a_file() -> None:
    session = session_of((b"R12: dead000000000100\nand", 1))
    assert shown(session) == [
        "[    1.000000] R12: dead000000000100",
        "#> dead000000000100  LIST_POISON1",
        "[    1.000000] and",
    ]
    assert shown(session, "--plain") == ["[    1.000000] R12: dead000000000100", "[    1.000000] and"]
    assert shown(session, "--plain", "--caller")[1] == "[    1.000000][    T1] and"


def test_what_is_no_text_is_escaped() -> None:
    assert shown(session_of((b"\xff\ta \x1b[31m", 0)), "--plain") == ["[    1.000000] \\xff\ta \\x1b[31m"]


def test_the_events_of_two_cpus_at_once() -> None:
    mixed = [each for pair in zip(OOPS, WARNING) for each in zip(pair, (123, CPU | 1))]
    session = session_of(*mixed, (OOPS[-1], 123))
    lines = shown(session, "-e")
    assert [line.split("  ")[1] for line in lines] == [
        "BUG: unable to handle kernel NULL pointer dereference in reads_null",
        "WARNING in warns",
    ]
    types = {json.loads(line)["type"] for line in shown(session, "--json", "--caller")}
    assert types == {"null-deref", "warning"}


def test_what_is_missing_is_said_after_it() -> None:
    assert shown(session_of((b"whole", 0), state=RESERVED), "--plain") == [
        "[    1.000000] whole",
        "! 1 message of the kernel's log: still being written",
    ]
    assert shown(session_of(), "--plain") == ["! the kernel's log is empty"]


def test_nothing_to_read() -> None:
    with pytest.raises(UsageError, match="log: needs memory"):
        outputs(Session(()), "log")
    with pytest.raises(TargetError, match="no symbols say where it is"):
        outputs(Session((), target=Host(Ring(WordFormat())), machine="x86_64"), "log")
