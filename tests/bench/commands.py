"""Whole commands: wall clock, and peak memory in a run of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command line, and what it is run with. Its output is thrown away."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    stdin_path: str = os.devnull

    def seconds(self) -> float:
        """Wall seconds of one run."""
        with open(self.stdin_path, "rb") as stdin:
            begin = time.perf_counter()
            process = subprocess.Popen(
                self.arguments, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment
            )
            status = process.wait()
            taken = time.perf_counter() - begin
        if status:
            raise BenchError(f"{' '.join(self.arguments)} left with {status}")
        return taken

    def output(self) -> bytes:
        """What one run prints."""
        with open(self.stdin_path, "rb") as stdin:
            done = subprocess.run(self.arguments, stdin=stdin, capture_output=True, env=self.environment, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise BenchError(f"{' '.join(self.arguments)} left with {done.returncode}: {said[-1] if said else ''}")
        return done.stdout

    def peak(self) -> float:
        """Peak resident memory of one run in MB, as time(1) tells it.

        The kernel counts a child's peak from what its parent had when it called execve: time is small, this Python is
        not.
        """
        with tempfile.NamedTemporaryFile("r") as file:
            timed = ("time", "--quiet", "-f", "%M", "-o", file.name, *self.arguments)
            Command(timed, self.environment, self.stdin_path).seconds()
            return int(file.read().split()[-1]) / 1000


class BenchError(Exception):
    """Something could not be measured; the message says why."""
