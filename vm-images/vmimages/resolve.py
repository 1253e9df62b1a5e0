"""From a row of the manifest to packages that exist: an image and its debug twin of one version."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .apt import PrivateApt
from .aptparse import Package, version_key
from .manifest import Source

_RELEASE = re.compile(r"(\d+\.\d+)[^-]*(?:-\d+)?-(.+)")


@dataclass(frozen=True)
class Candidate:
    """Packages that give one kernel."""

    release: str  # as uname -r says it
    version: str
    images: tuple[Package, ...]
    debug: Package


def release_of(package: str) -> str | None:
    """The kernel release in the name of an image's package (or of its debug twin)."""
    match = re.fullmatch(r"linux-image-(\d.*?)(?:-unsigned)?(?:-dbg)?", package)
    return match[1] if match else None


def series_of(release: str) -> tuple[str, str] | None:
    """A release's series and flavour: 6.1.0-56-cloud-amd64 is of ("6.1", "cloud-amd64")."""
    match = _RELEASE.fullmatch(release)
    return (match[1], match[2]) if match else None


def candidates(apt: PrivateApt, source: Source) -> Iterator[Candidate]:
    """The kernels that `source` may give, the newest first.

    More than one, since an index can list a debug package that has left the mirror (or was never there).
    """
    releases: list[str] = []
    for meta in apt.show(source.image):
        for name, _ in meta.depends:
            release = release_of(name)
            if release is not None and release not in releases:
                releases.append(release)
    if not releases:
        return
    series = series_of(releases[0])
    if series is not None:
        pattern = f"^linux-image-{re.escape(series[0])}[^0-9].*-{re.escape(series[1])}-dbg$"
        others = [release for release in map(release_of, apt.names(pattern)) if release is not None]
        fresh = [release for release in others if release not in releases and series_of(release) == series]
        releases += sorted(fresh, key=version_key, reverse=True)
    for release in releases:
        yield from _pairs(apt.show, release)


def _pairs(show: Callable[..., list[Package]], release: str) -> Iterator[Candidate]:
    debugs = show(f"linux-image-{release}-dbg")
    # The signed image first: the unsigned one is the same kernel, but it can leave the index earlier or later.
    images = show(f"linux-image-{release}") + show(f"linux-image-{release}-unsigned")
    for debug in debugs:
        for image in images:
            if image.version == debug.version:
                yield Candidate(release, debug.version, (image, *_parts(show, image, release)), debug)
                break


def _parts(show: Callable[..., list[Package]], image: Package, release: str) -> Iterator[Package]:
    """The packages of the same release that an image asks for: newer packaging has the kernel, its modules and its
    configuration apart (linux-binary-REL, linux-modules-REL, linux-base-REL)."""
    for name, _ in image.depends:
        if name.endswith("-" + release):
            for part in show(name):
                if part.version == image.version:
                    yield part
                    break
