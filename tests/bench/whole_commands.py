"""Timing of whole commands: wall clock and peak memory, interleaved so that a busy machine weighs on all alike."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Runs:
    """The measured runs of one command."""

    seconds: list[float] = field(default_factory=list)
    kilobytes: list[int] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def peak(self) -> float:
        """Median of the peak resident memory, in MB."""
        return statistics.median(self.kilobytes) / 1000


def run_once(command: Sequence[str], stdin_path: str | None, environment: Mapping[str, str]) -> tuple[float, int]:
    """Wall seconds and peak resident kilobytes of one run; its output is thrown away."""
    with open(stdin_path or os.devnull, "rb") as stdin:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"bench: {' '.join(command)} left with {process.returncode}")
    return seconds, usage.ru_maxrss


def measure(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    stdin_path: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Runs]:
    """Run all commands in turn, `rounds` times, after one unmeasured round that warms the page cache."""
    runs = {name: Runs() for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            seconds, kilobytes = run_once(command, stdin_path, environment or os.environ)
            if number:
                runs[name].seconds.append(seconds)
                runs[name].kilobytes.append(kilobytes)
    return runs
