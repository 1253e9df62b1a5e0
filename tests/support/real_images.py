"""Real kernels in boot images: Debian's own, and their payloads packed again by the tools that the kernel's build uses.

What is packed is kept in the cache of vm-images.
"""

from __future__ import annotations

import functools
import os
import struct
import subprocess
from pathlib import Path

from vmimages.paths import cache_root, locked

from support.oracle import kernel_scripts, kernels

NAMES = kernels.ALL

# scripts/Makefile.lib, scripts/xz_wrap.sh: how each is packed; the size is appended to all but gzip's.
PACKERS = {
    "gzip": ("gzip", "-n", "-9"),
    "xz": ("xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB", "-c"),
    "lzma": ("xz", "--format=lzma", "-9", "-c"),
    "bzip2": ("bzip2", "-9", "-c"),
    "lzo": ("lzop", "-9", "-c"),
    "lz4": ("lz4", "-l", "-9", "-c", "-"),
    "zstd": ("zstd", "-q", "-22", "--ultra", "-T2", "-c"),
}
# The same formats, filters and windows with less search for what is shorter: a sixth of the time.
QUICK_PACKERS = {
    "gzip": ("gzip", "-n", "-1"),
    "xz": ("xz", "--check=crc32", "--x86", "--lzma2=preset=0,dict=32MiB", "-c"),
    "lzma": ("xz", "--format=lzma", "--lzma1=preset=0,dict=64MiB", "-c"),
    "bzip2": ("bzip2", "-1", "-c"),
    "lzo": ("lzop", "-1", "-c"),
    "lz4": ("lz4", "-l", "-1", "-c", "-"),
    "zstd": ("zstd", "-q", "-1", "--long=27", "-c"),
}


def vmlinuz(name: str) -> Path:
    return Path(kernels.files(name).vmlinuz)


@functools.cache
def by_the_script(name: str, image: Path, folder: Path, whole: bool) -> bytes:
    """What scripts/extract-vmlinux of the kernel `name` writes for an image; nothing if it finds none.

    In a `whole` run the script is each kernel's own. Up to 6.17 all have the same text, and to fetch one means to
    fetch a kernel's sources: other runs take one old script and the newest.
    """
    if not whole and not name.endswith("-sid"):
        name = "amd64-6.1"
    output = folder / "by-the-script"
    with output.open("wb") as file:
        subprocess.run(
            ["sh", str(kernel_scripts.script(name, "extract-vmlinux")), str(image)],
            stdout=file,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    return output.read_bytes()


def packed(name: str, data: bytes, version: str, whole: bool) -> bytes:
    """`data` packed in format `name`, in a `whole` run as the kernel's build does; `version` names it in the cache."""
    command = (PACKERS if whole else QUICK_PACKERS)[name]
    place = cache_root() / "packed" / f"{version}.{'' if whole else 'quick.'}{name}"
    with locked("packed-lock"):
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name}.{os.getpid()}")
            with temporary.open("wb") as file:
                subprocess.run(command, input=data, stdout=file, check=True)
            temporary.rename(place)
    return place.read_bytes()


def bzimage_with(image: bytes, payload: bytes) -> bytes:
    """A real bzImage with another payload in the place of its own (the fields of boot.rst)."""
    changed = bytearray(image)
    offset, size = struct.unpack_from("<2I", image, 0x248)
    start = (image[0x1F1] + 1) * 512 + offset
    struct.pack_into("<I", changed, 0x24C, len(payload))
    return bytes(changed[:start]) + payload + image[start + size :]
