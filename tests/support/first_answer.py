"""What the first answer from a file costs, for a cell of `make matrix`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.oracle import kernels
from support.recorder import Recorder

MEGABYTES = 400
_RUNS = 5

# A child's peak begins with its parent's memory, and pytest's is large: its parent is this, which has little.
_PARENT = """
import json, os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(json.dumps([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6]))
"""


def first_answer(cell: Recorder, option: str, path: Path, kernel: str) -> None:
    """Ask the shell where a symbol of the kernel is, in `path` as the source that `option` says."""
    name = "linux_banner" if kernels.lists_data(kernel) else "schedule"
    words = [sys.executable, "-m", "kplug", "where", option, str(path), name]
    _ask(words)  # has the file read into memory
    runs = [_ask(words) for _ in range(_RUNS)]
    megabytes = max(run[1] for run in runs)
    cell.first_answer(sorted(run[0] for run in runs)[_RUNS // 2], megabytes, path.stat().st_size / 1e6)
    assert megabytes <= MEGABYTES


def _ask(words: list[str]) -> tuple[float, float]:
    """The processor's seconds and the megabytes that one run took, as the kernel counts them."""
    done = subprocess.run([sys.executable, "-S", "-c", _PARENT, *words], capture_output=True, text=True, check=True)
    *answer, told = done.stdout.splitlines()
    status, seconds, megabytes = json.loads(told)
    assert (status, bool(answer)) == (0, True), done.stderr
    return seconds, megabytes
