"""Boot images of telephones, tablets and Chromebooks: Android's, and what vendors put around the kernel in it."""

from __future__ import annotations

from kplug.image.boot.formats import BadImageError, Container, Part
from kplug.image.boot.window import Window


def _android(data: Window) -> list[Part] | None:
    """The kernel is on the second page; from version 3 on pages are 4096 bytes."""
    if len(data) < 44:
        raise BadImageError("truncated: it ends within its Android boot image header")
    size, page, version = data.unpack("<I24xII", 8)
    # Before the format had versions, the last word was the size of a device tree.
    page = 4096 if version in (3, 4) else page
    if page & page - 1 or not 2048 <= page <= 1 << 16:
        raise BadImageError(f"its Android boot image header claims pages of {page} bytes")
    return [Part(page, size)]


def _uncompressed_img(data: Window) -> list[Part] | None:
    """The kernel's size, the kernel, and a device tree after it."""
    return [Part(20, data.unpack("<I", 16)[0])] if len(data) >= 20 else None


def _mediatek(data: Window) -> list[Part] | None:
    """A header of 512 bytes; the size after the magic does not count it."""
    return [Part(512, data.unpack("<I", 4)[0])] if len(data) >= 512 else None


def _chromeos(data: Window) -> list[Part] | None:
    """A key block, a preamble, and the body whose size the preamble's signature states.

    The body is a FIT or a uImage on arm; on x86 a bzImage without its header.
    """
    if len(data) < 20:
        return None
    preamble = data.unpack("<I", 16)[0]
    if preamble + 92 > len(data):
        raise BadImageError("truncated: it ends within its ChromeOS kernel preamble")
    start = preamble + data.unpack("<I", preamble)[0]
    return [Part(start, data.unpack("<I", preamble + 88)[0], is_exact=False)]


ANDROID = Container(
    "Android boot image",
    "AOSP, system/tools/mkbootimg: bootimg.h",
    "on its second page",
    (b"ANDROID!",),
    0,
    _android,
)
UNCOMPRESSED_IMG = Container(
    "UNCOMPRESSED_IMG",
    "Qualcomm's LK, app/aboot/aboot.c",
    "after 20 bytes",
    (b"UNCOMPRESSED_IMG",),
    0,
    _uncompressed_img,
)
MEDIATEK = Container(
    "MediaTek image",
    "MediaTek's LK, union prt_img_hdr",
    "after 512 bytes",
    (b"\x88\x16\x88\x58",),
    0,
    _mediatek,
)
CHROMEOS = Container(
    "ChromeOS kernel partition",
    "vboot_reference, vb2_kernel_preamble in firmware/2lib/include/2struct.h",
    "by its preamble; on x86 searched for in the body",
    (b"CHROMEOS",),
    0,
    _chromeos,
)
