"""Kernel modules: what they are called, what they need, and in which order to load them."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import elf
from .errors import VMError

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
_ZSTD_SECONDS = 60


def module_name(path: str) -> str | None:
    """The name of the module in a file, None if the file holds none. The kernel's names have no hyphens."""
    base = path.rpartition("/")[2]
    for suffix in (*_SUFFIXES, ".ko.debug"):
        if base.endswith(suffix):
            return base[: -len(suffix)].replace("-", "_")
    return None


def read_module(path: Path) -> bytes:
    """A module's ELF bytes, decompressed."""
    data = path.read_bytes()
    try:
        if path.name.endswith(".xz"):
            return lzma.decompress(data)
        if path.name.endswith(".gz"):
            return gzip.decompress(data)
        if path.name.endswith(".zst"):
            # The standard library knows zstd only since 3.14.
            return subprocess.run(
                ["zstd", "-dcq"], input=data, capture_output=True, check=True, timeout=_ZSTD_SECONDS
            ).stdout
    except (lzma.LZMAError, OSError, EOFError, subprocess.SubprocessError) as error:
        raise VMError(f"{path}: can't be decompressed ({error})") from None
    return data


def depends_of(data: bytes) -> list[str]:
    """The modules that a module says it needs, in its .modinfo section."""
    info = elf.section(io.BytesIO(data), ".modinfo") or b""
    for field in info.split(b"\0"):
        if field.startswith(b"depends="):
            names = field[len(b"depends=") :].decode("ascii", "replace")
            return [name.replace("-", "_") for name in names.split(",") if name]
    return []


def make_modules_dep(tree: Path) -> str:
    """The text of `modules.dep` for a tree of modules, as depmod writes it: each file and all that it needs, what has
    to be loaded first at the end of the line.

    Debian's packages don't have this file: depmod makes it when a kernel is installed, which isn't done here.
    """
    files = {}
    for path in sorted(tree.rglob("*.ko*")):
        name = module_name(path.name)
        if name is not None and path.is_file():
            files[name] = path
    direct = {name: depends_of(read_module(path)) for name, path in files.items()}
    lines = []
    for name, path in files.items():
        needed = reversed(load_order([name], direct)[:-1])
        others = " ".join(str(files[other].relative_to(tree)) for other in needed if other in files)
        lines.append(f"{path.relative_to(tree)}:{' ' + others if others else ''}")
    return "\n".join(lines) + "\n"


def parse_modules_dep(text: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Of `modules.dep`: each module's file, and the modules that it needs."""
    files: dict[str, str] = {}
    needs: dict[str, list[str]] = {}
    for line in text.splitlines():
        path, colon, others = line.partition(":")
        name = module_name(path)
        if colon and name is not None:
            files[name] = path
            # depmod writes the deepest need last.
            found = (module_name(other) for other in reversed(others.split()))
            needs[name] = [other for other in found if other is not None]
    return files, needs


def load_order(names: Iterable[str], needs: Mapping[str, Iterable[str]]) -> list[str]:
    """The named modules and all that they need, each after what it needs itself. Circles are cut."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        for other in needs.get(name, ()):
            visit(other)
        order.append(name)

    for name in names:
        visit(name)
    return order
