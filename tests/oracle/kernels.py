"""Where the real kernels are: the cache of vm-images, filled by its fetcher when something is missing."""

from __future__ import annotations

import importlib
import lzma
import sys
from pathlib import Path

NAMES = ("amd64-6.1", "amd64-6.12", "arm64-6.12")

_VM_IMAGES = Path(__file__).resolve().parents[2] / "vm-images"


def root(name: str) -> Path:
    """The folder with the files of a kernel (`$KPLUG_CACHE`/kernels/NAME), fetched if the cache doesn't have them."""
    if str(_VM_IMAGES) not in sys.path:
        sys.path.append(str(_VM_IMAGES))
    files = importlib.import_module("vmimages").fetch(name)
    return Path(files.root)


def vmlinux(name: str) -> str:
    """The vmlinux with its symbols and debug information."""
    return str(root(name) / "vmlinux")


def modules(name: str, count: int, scratch: Path) -> list[str]:
    """Some of a kernel's modules, spread over the tree, and as many of the separate debug files.

    Newer Debian kernels ship modules compressed; those are unpacked into `scratch`.
    """
    found = []
    for folder in ("modules", "debug-modules"):
        paths = sorted(path for path in (root(name) / folder).rglob("*.ko*") if path.suffix in (".ko", ".xz"))
        for path in paths[:: max(1, len(paths) // count)][:count]:
            if path.suffix == ".xz":
                unpacked = scratch / path.stem
                unpacked.write_bytes(lzma.decompress(path.read_bytes()))
                path = unpacked
            found.append(str(path))
    return found
