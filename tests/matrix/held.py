"""The kernels that cells have fetched: how much they hold, and their removal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.paths import VM_IMAGES
from vmimages import cached, find
from vmimages.manifest import KERNELS
from vmimages.paths import cache_root, kernel_dir, remove_tree

_MARK = ".of-the-matrix"


def is_here(name: str) -> bool:
    return cached(name) is not None


def fetching(name: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, str(VM_IMAGES / "vm.py"), "fetch", name],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def mark(name: str) -> None:
    """Fetched for cells, by this process: nobody else has asked for it."""
    (kernel_dir(name) / _MARK).write_text(str(os.getpid()))


def fetched_here() -> list[str]:
    """The kernels that cells have fetched and that are still here."""
    return [row.name for row in KERNELS if (kernel_dir(row.name) / _MARK).exists()]


def left_behind() -> list[str]:
    """Those of them whose run was interrupted."""
    return [name for name in fetched_here() if not _runs((kernel_dir(name) / _MARK).read_text())]


def _runs(pid: str) -> bool:
    return pid.isdigit() and Path("/proc", pid).exists()


def megabytes(name: str) -> float:
    """What a kernel and its dumps take on the disk."""
    return sum(_size(folder) for folder in _folders(name)) / 1e6


def remove(name: str) -> float:
    """Remove a kernel and its dumps, if it was fetched for cells and `make test` does not use it; the megabytes."""
    if find(name).tested or name not in fetched_here():
        return 0.0
    taken = megabytes(name)
    for folder in _folders(name):
        remove_tree(folder)
    return taken


def _folders(name: str) -> list[Path]:
    dumps = cache_root() / "dumps"
    mine = [path for path in dumps.glob(f"{name}*") if _kernel_of(path.name) == name] if dumps.exists() else []
    return [path for path in (kernel_dir(name), *mine) if path.exists()]


def _kernel_of(folder: str) -> str | None:
    """The kernel whose dumps a folder has: the longest name that it begins with."""
    names = [row.name for row in KERNELS if folder == row.name or folder.startswith(f"{row.name}-")]
    return max(names, key=len, default=None)


def _size(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            try:
                total += os.lstat(os.path.join(root, file)).st_blocks * 512
            except OSError:
                continue
    return total
