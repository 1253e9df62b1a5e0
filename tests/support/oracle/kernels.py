"""Where the real kernels are: the cache of vm-images, filled by its fetcher when something is missing."""

from __future__ import annotations

import functools
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vmimages import KernelFiles, VMError

NAMES = ("amd64-6.1", "amd64-6.12", "arm64-6.12")
#: The oldest and the newest too. The mirror has those for some time only: a test is skipped without them.
ALL = ("amd64-5.10", "amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12", "arm64-sid")


def parametrize(metafunc: pytest.Metafunc, fixture: str, names: Sequence[str]) -> None:
    """Have the tests that use `fixture` run for each of these kernels, or for those of --kernel."""
    marked = any(fixture in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if fixture in metafunc.fixturenames and not marked:
        metafunc.parametrize(fixture, metafunc.config.option.kernel or names, indirect=True, scope="package")


@functools.cache
def _files(name: str) -> KernelFiles | VMError:
    """The files of a kernel, fetched if the cache doesn't have them; or why one cannot be had that not all need."""
    import vmimages

    try:
        return vmimages.fetch(name, quiet=True)
    except vmimages.VMError as error:
        if vmimages.find(name).default:
            raise
        return error


def files(name: str) -> KernelFiles:
    """The files of a kernel, fetched if the cache doesn't have them. The test is skipped if the mirror has not either,
    and the kernel is not one of those that are fetched by default.
    """
    found = _files(name)
    if isinstance(found, Exception):
        pytest.skip(f"{name} is neither in the cache nor to be had: {found}")
    return found


def least(name: str, many: int) -> int:
    """How much of something a kernel has at least, of which a distribution's has so many: a built one is small."""
    import vmimages

    return many // 5 if vmimages.find(name).tree is not None else many


def root(name: str) -> Path:
    """The folder with the files of a kernel (`$KPLUG_CACHE`/kernels/NAME); as `files`."""
    return Path(files(name).root)


def lists_data(name: str) -> bool:
    """Whether the kernel's own kallsyms have more than code."""
    return "\nCONFIG_KALLSYMS_ALL=y\n" in (root(name) / "config").read_text()


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
