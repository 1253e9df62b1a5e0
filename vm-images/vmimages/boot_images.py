"""Boot images of architectures that nothing here boots: the one file out of an image's package, a few megabytes."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from . import unpack
from .apt import PrivateApt
from .errors import VMError
from .manifest import BOOKWORM, Source
from .paths import cache_root, locked
from .progress import Progress, size_text
from .resolve import release_of

# Debian's name of the architecture: what each is.
BOOT_IMAGES: dict[str, Source] = {
    "armhf": Source(BOOKWORM, "linux-image-armmp"),  # a zImage, xz, that EFI can start
    "armel": Source(BOOKWORM, "linux-image-rpi"),  # a zImage, xz
    "mips64el": Source(BOOKWORM, "linux-image-loongson-3"),  # a self-extracting ELF file
}


def boot_image(arch: str) -> Path:
    """The boot image of that architecture, fetched if the cache does not have it."""
    if arch not in BOOT_IMAGES:
        raise VMError(f"no boot image for {arch!r}; there are: {', '.join(BOOT_IMAGES)}")
    path = cache_root() / "boot-images" / arch / "vmlinuz"
    with locked("lock"):
        if not path.exists():
            _make(arch, BOOT_IMAGES[arch], path)
    return path


def _make(arch: str, source: Source, path: Path) -> None:
    progress = Progress(arch)
    apt = PrivateApt(source.suites, arch)
    apt.update(progress.note)
    names = [name for meta in apt.show(source.image) for name, _ in meta.depends if release_of(name) is not None]
    for package in apt.show(*names) if names else ():
        progress.update(f"downloading {package.name}, {size_text(package.size)}")
        deb = apt.download(package, lambda fraction: None)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            found = unpack.unpack(deb, _chosen, Path(folder), lambda size: None)
            if found:
                (Path(folder) / found[0]).rename(path)
        apt.forget([deb])
        if found:
            progress.done(f"{package.name} {package.version}, {size_text(path.stat().st_size)}")
            return
    raise VMError(f"{arch}: {source.image} of {', '.join(source.suites)} has no boot image")


def _chosen(member: str, size: int) -> str | None:
    return "vmlinuz" if re.fullmatch(r"/?boot/vmlinuz-[^/]+", member) else None
