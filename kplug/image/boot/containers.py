"""The containers of boot images: every declaration, in the order in which they are tried.

Each is next to its relatives: `linux`, `efi`, `uboot`, `phones`. A file that is packed as a whole is one, too.
"""

from __future__ import annotations

import struct
from functools import partial

from kplug.files.compression import FORMATS
from kplug.image.boot.efi import UNIFIED, ZBOOT
from kplug.image.boot.formats import BadImageError, Container, Part, inside
from kplug.image.boot.linux import BZIMAGE, HEAD_BYTES, IPL, SELF_EXTRACTING, ZIMAGE
from kplug.image.boot.phones import ANDROID, CHROMEOS, MEDIATEK, UNCOMPRESSED_IMG
from kplug.image.boot.plain import image_machine
from kplug.image.boot.uboot import FIT, UIMAGE
from kplug.image.boot.window import Window

__all__ = ["CONTAINERS", "HEAD_BYTES", "container_of", "is_boot_image", "is_packed_file", "parts_of"]


def _packed_file(name: str, data: Window) -> list[Part]:
    return [Part(0, len(data), name, is_packed=True)]


# Image.gz, and a kernel that somebody packed.
_PACKED_FILES: tuple[Container, ...] = tuple(
    Container(f"{name} file", "the packer's own", "what it unpacks to", each.magics, 0, partial(_packed_file, name))
    for name, each in FORMATS.items()
)
CONTAINERS: tuple[Container, ...] = (
    ZBOOT,
    BZIMAGE,
    UNIFIED,
    UIMAGE,
    FIT,
    ANDROID,
    UNCOMPRESSED_IMG,
    MEDIATEK,
    CHROMEOS,
    ZIMAGE,
    IPL,
    *_PACKED_FILES,
    SELF_EXTRACTING,
)


def is_packed_file(container: Container) -> bool:
    return container in _PACKED_FILES


def container_of(data: Window) -> tuple[Container, list[Part]] | None:
    """The container that the data begins with, and its kernels; None if it is not a known one.

    BadImageError for a broken one.
    """
    for container in CONTAINERS:
        parts = parts_of(container, data)
        if parts is not None:
            return container, parts
    return None


def parts_of(container: Container, data: Window) -> list[Part] | None:
    """The kernels in a container of that kind; None if the data is none."""
    if not container.begins(data):
        return None
    try:
        parts = container.parts(data)
    except struct.error:
        raise BadImageError(f"truncated: it ends within its {container.name} header") from None
    return None if parts is None else [inside(part, data, container.name) for part in parts]


def is_boot_image(head: bytes) -> bool:
    """Whether a file with these first HEAD_BYTES is one for `open_boot_image` (not an ELF file, or a dump)."""
    if any(container.begins(head) for container in CONTAINERS if container is not SELF_EXTRACTING):
        return True
    return image_machine(Window(head)) is not None
