"""Source lines from the command line, of a vmlinux alone. binutils' addr2line tells the truth."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import vmimages
from support.paths import ROOT

pytestmark = pytest.mark.kernel


def test_one_line_answers_end_with_the_place_in_the_source() -> None:
    vmlinux = str(vmimages.fetch("amd64-6.1", quiet=True).vmlinux)
    names = ["schedule", "vfs_read", "tcp_v4_rcv", "do_exit", "kfree", "mutex_lock", "start_kernel"]

    def asked(*options: str) -> list[str]:
        # Options between the words: none of them is lost.
        words = [names[0], *options, *names[1:], "jiffies_64"]
        command = [sys.executable, "-m", "kplug", "where", "-s", vmlinux, *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    plain, *with_lines = asked("-b"), asked("-b", "-l"), asked("-bl"), asked("--lines", "--brief")
    assert all(lines == with_lines[0] for lines in with_lines)
    addresses = [line.split()[0] for line in plain]
    told = subprocess.run(
        ["addr2line", "-e", vmlinux, *addresses], capture_output=True, text=True, check=True
    ).stdout.splitlines()  # fmt: skip
    assert len(plain) == len(told) == len(names) + 1
    for bare, lined, place in zip(plain[:-1], with_lines[0], told):
        assert lined.startswith(f"{bare}  ")
        assert re.sub(r" \(discriminator \d+\)$", "", place).endswith(f"/{lined.split()[-1]}")
    assert with_lines[0][-1] == plain[-1]  # data has none
