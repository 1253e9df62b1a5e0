"""What the running Linux kernel says about itself, as far as the caller may read it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from kplug.arch.types.word import LITTLE
from kplug.errors import InputError
from kplug.image.elf.file import build_id_in, notes_in
from kplug.image.kernel_image import KernelImage

# Where distributions put the vmlinux with debug information, and where a build leaves it (drgn looks there too).
_VMLINUX_PLACES = (
    "/usr/lib/debug/boot/vmlinux-{release}",
    "/usr/lib/debug/lib/modules/{release}/vmlinux",
    "/boot/vmlinux-{release}",
    "/lib/modules/{release}/build/vmlinux",
    "/lib/modules/{release}/vmlinux",
)


def running_vmlinux() -> str | None:
    """The path of the running kernel's vmlinux, where one is installed."""
    return next((path for path in vmlinux_places(os.uname().release) if os.path.isfile(path)), None)


def vmlinux_places(release: str, root: str = "/") -> Iterator[str]:
    """Where the vmlinux of that release may be, the most likely place first."""
    return (root.rstrip("/") + place.format(release=release) for place in _VMLINUX_PLACES)


def running_build_id(root: str = "/") -> str | None:
    """The running kernel's build ID from /sys/kernel/notes, or None."""
    try:
        with open(os.path.join(root, "sys/kernel/notes"), "rb") as file:
            return build_id_in(notes_in(file.read(1 << 20), little_endian=sys.byteorder == LITTLE))
    except OSError:
        return None


def running_kaslr_offset(image: KernelImage, root: str = "/") -> int | None:
    """The running kernel's KASLR offset if `image` is that kernel and its addresses can be read; else None.

    It is the distance of _stext in /proc/kallsyms (0 without CAP_SYSLOG or under kptr_restrict) from that in the file.
    """
    try:
        build_id = image.build_id
    except InputError:  # broken notes: the file is not known to be this kernel
        return None
    if build_id is None or build_id != running_build_id(root):
        return None
    linked = {symbol.name: symbol.address for name in ("_stext", "_text") for symbol in image.symbols.exact(name)}
    try:
        with open(os.path.join(root, "proc/kallsyms"), encoding="ascii", errors="replace") as lines:
            for line in lines:
                address, _, name = line.split()[:3]
                if name in linked:
                    running = int(address, 16)
                    return running - linked[name] if running else None
    except (OSError, ValueError):
        return None
    return None
