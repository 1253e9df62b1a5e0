"""What all sections of `make bench` measure with."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.commands import BenchError, Command

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Setting:
    """The kernel that is asked about, kplug's command, and the environment of all commands."""

    kernel: str
    vmlinux: str
    kplug: str
    environment: Mapping[str, str]

    def command(self, *arguments: str, stdin_path: str = os.devnull) -> Command:
        return Command(arguments, self.environment, stdin_path)

    def ours(self, *arguments: str, stdin_path: str = os.devnull) -> Command:
        return self.command(self.kplug, *arguments, stdin_path=stdin_path)

    @property
    def drgn(self) -> str:
        """drgn's own command, of the same virtual environment."""
        return os.path.join(os.path.dirname(self.kplug), "drgn")

    def inside(self, script: str, *arguments: str) -> Any:
        """What tests/bench/`script`, in a Python of its own, prints as JSON.

        The heavy imports stay out of this process, and each script finds nothing that another one read.
        """
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests" / "bench" / script), *arguments],
            env={**self.environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'vm-images'}"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchError(f"{script}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
        return json.loads(done.stdout)


def text_addresses(vmlinux: str, count: int, seed: int) -> Sequence[int]:
    """Random distinct addresses of the kernel's text, the same for every tool."""
    from elftools.elf.elffile import ELFFile

    with open(vmlinux, "rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        if section is None:
            raise BenchError(f"{vmlinux} has no .text")
        start, size = section["sh_addr"], section["sh_size"]
    generator = random.Random(seed)
    return generator.sample(range(start, start + size), count)
