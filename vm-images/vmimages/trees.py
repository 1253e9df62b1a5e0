"""Kernels that no package has: `.ci/build-tree` builds each once, and a row of the manifest names its tree."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .errors import VMError

#: Whose busybox their guests run.
BUSYBOX_OF = "amd64-6.12"
_BUILD_TREE = Path(__file__).resolve().parents[2] / ".ci" / "build-tree"
_FILES = {
    "vmlinux": "vmlinux",
    "vmlinuz": "arch/x86/boot/bzImage",
    "config": ".config",
    "System.map": "System.map",
}


def tree(name: str) -> Path:
    """The build tree of that name, which is made if the cache does not have it: that takes minutes."""
    done = subprocess.run([str(_BUILD_TREE), name], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise VMError(lines[-1].removeprefix("kplug: ") if lines else f"{_BUILD_TREE} {name} failed")
    return Path(done.stdout.strip())


def fill(tree: Path, folder: Path, busybox: Path) -> str:
    """Put into a folder what a kernel of a package has, modules without debug information too; the release."""
    release = (tree / "include/config/kernel.release").read_text().strip()
    for name, path in _FILES.items():
        _link(tree / path, folder / name)
    _link(busybox, folder / "busybox")
    for module in sorted(tree.rglob("*.ko")):
        for kind in ("modules", "debug-modules"):
            (folder / kind / module.relative_to(tree).parent).mkdir(parents=True, exist_ok=True)
        _link(module, folder / "debug-modules" / module.relative_to(tree))
        stripped = folder / "modules" / module.relative_to(tree)
        subprocess.run(["objcopy", "--strip-debug", str(module), str(stripped)], check=True)
    return release


def _link(file: Path, place: Path) -> None:
    """A second name, or where there can be none a copy."""
    try:
        os.link(file, place)
    except OSError:
        shutil.copy2(file, place)
