"""A package with those that it depends on, unpacked into one folder: as installed, but for what their scripts do."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from .apt import PrivateApt
from .aptparse import Package
from .errors import VMError
from .progress import Progress


def unpack_with_needed(
    apt: PrivateApt, name: str, wanted: Callable[[str], bool], into: Path, progress: Progress
) -> None:
    """Unpack the newest package of that name, and of those that it and they depend on the ones with wanted names."""
    archives = []
    for package in _with_needed(apt, name, wanted):
        progress.update(f"downloading {package.name}")
        archives.append(apt.download(package, lambda _: None))
    for archive in archives:
        _extract(archive, into)
    apt.forget(archives)


def _with_needed(apt: PrivateApt, name: str, wanted: Callable[[str], bool]) -> Iterator[Package]:
    waiting, seen = [name], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        found = apt.show(name)
        if not found:
            raise VMError(f"{name} isn't in {', '.join(apt.suites)}")
        yield found[0]
        waiting += [needed for needed, _ in found[0].depends if wanted(needed)]


def _extract(archive: Path, into: Path) -> None:
    try:
        subprocess.run(
            ["dpkg-deb", "--extract", str(archive), str(into)],
            stdin=subprocess.DEVNULL, capture_output=True, check=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise VMError("dpkg-deb isn't installed") from None
    except subprocess.CalledProcessError as error:
        raise VMError(f"{archive.name}: dpkg-deb can't unpack it (status {error.returncode})") from None
