"""Broken and hostile files of kernels: how they are asked about, and what is an acceptable answer."""

from __future__ import annotations

import re
from collections.abc import Callable

from support.bounded_kplug import Answer, BoundedKplug
from support.elf_builder import EM_386, EM_PPC64, EM_X86_64, small_vmlinux

SECONDS = 2.0
EM_PPC = 20
COMMANDS = {
    "where": ("start_kernel+4", ".text+0x20", "ffffffff81000014", "0xc1000014", "0"),
    "sym": ("start_kernel", "s*", "0xffffffff81000014"),
    "regions": (),
    "sections": (),
    "segments": (),
}
FORMS = {
    "64 bit, little-endian": small_vmlinux(64, True, EM_X86_64),
    "64 bit, big-endian": small_vmlinux(64, False, EM_PPC64),
    "32 bit, little-endian": small_vmlinux(32, True, EM_386),
    "32 bit, big-endian": small_vmlinux(32, False, EM_PPC),
}
HOSTILE = (
    0,
    1,
    7,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0xFFFFFFFE,
    0xFFFFFFFF,
    1 << 40,
    1 << 63,
    (1 << 64) - 64,
    (1 << 64) - 1,
)
TWO_FORMS = ("64 bit, little-endian", "32 bit, big-endian")


def acceptable(answer: Answer, path: str) -> None:
    """The contract for whatever a file holds."""
    assert answer.crash is None
    assert answer.seconds < SECONDS
    assert answer.status in (0, 1, 2)
    assert "Traceback" not in answer.err
    if answer.status == 2:
        assert path in answer.err.splitlines()[-1]  # after what could be answered before it was met
    elif answer.status == 1:
        assert answer.err != ""
    else:
        assert answer.err == ""


def refused(answer: Answer, path: str, what: str = "") -> None:
    """One clear line on standard error that names the file and what is wrong; exit status 2."""
    assert answer.crash is None
    assert answer.status == 2, (answer.out[:200], answer.err[:200])
    assert answer.seconds < SECONDS
    assert answer.err.count("\n") == 1
    assert answer.err.endswith("\n")
    assert path in answer.err
    assert len(answer.err) < len(path) + 200
    assert re.search(what, answer.err), answer.err


def ask_all(kplug: BoundedKplug, path: str, check: Callable[[Answer, str], None] = acceptable) -> dict[str, Answer]:
    answers = {}
    for command, words in COMMANDS.items():
        answers[command] = kplug.run(command, "-s", path, *words)
        check(answers[command], path)
    return answers
