"""Containers in containers, opened to the end, kernels without a header, and several kernels in a file.

What should come out is what was put in; containers are made by hand from their descriptions.
"""

from __future__ import annotations

import random
import re
import runpy
import struct
from pathlib import Path

import pytest
from support.boot_image_builder import (
    PACKERS,
    android,
    bzimage,
    chromeos,
    efi_image,
    fit,
    flat_image,
    lz4_frame,
    mediatek,
    uimage,
    uncompressed_img,
    with_size,
    zimage,
)
from support.bounded_kplug import BoundedKplug
from support.elf_builder import Elf, Sec, Seg, small_vmlinux
from support.paths import ROOT

from kplug.errors import InputError
from kplug.image.boot.boot_image import BootImage, open_boot_image

BANNER = b"Linux version 6.1.0-one (a@b) (gcc) #1 SMP\n\0"
OTHER_BANNER = b"Linux version 5.10.0-two (a@b) (gcc) #7\n\0"
CODE = random.Random(7).randbytes(6000) + BANNER + random.Random(8).randbytes(3000)
KERNEL = bytes(small_vmlinux())
IMAGE = flat_image(random.Random(9).randbytes(5000) + BANNER + bytes(200))
OTHER_IMAGE = flat_image(random.Random(10).randbytes(4000) + OTHER_BANNER + bytes(100))


def self_extracting(packed: bytes, machine: int = 8, bits: int = 64, little: bool = True) -> bytes:
    """As arch/mips/boot/compressed and powerpc's wrapper make one: code, and the packed kernel among its data."""
    data = b"\x11" * 300 + packed + bytes(40)
    sections = [Sec(".text", address=0x1000, data=b"\x90" * 64), Sec(".data", address=0x2000, data=data)]
    return bytes(Elf(bits, little, machine=machine, sections=sections, segments=[Seg(covers=(".text", ".data"))]))


def image_of(folder: Path, data: bytes, offset: int | None = None) -> BootImage:
    path = folder / "vmlinuz"
    path.write_bytes(data)
    return open_boot_image(str(path), offset=offset)


XZ_ZIMAGE = zimage(with_size("xz", PACKERS["xz"](CODE), len(CODE)))
NESTED: dict[str, tuple[bytes, bytes, tuple[str, ...], str | None, str | None]] = {
    "uImage of a zImage": (uimage(XZ_ZIMAGE, 0, 2), CODE, ("uImage", "zImage"), "xz", "arm"),
    "FIT of a zImage": (fit(XZ_ZIMAGE, "none", "arm"), CODE, ("FIT", "zImage"), "xz", "arm"),
    "zImage, big-endian": (zimage(PACKERS["gzip"](CODE), little=False), CODE, ("zImage",), "gzip", "arm"),
    "UNCOMPRESSED_IMG": (uncompressed_img(IMAGE), IMAGE, ("UNCOMPRESSED_IMG", "Image"), None, "aarch64"),
    "Android of UNCOMPRESSED_IMG": (
        android(uncompressed_img(IMAGE)),
        IMAGE,
        ("Android boot image", "UNCOMPRESSED_IMG", "Image"),
        None,
        "aarch64",
    ),
    "Android of MediaTek's": (
        android(mediatek(PACKERS["gzip"](IMAGE))),
        IMAGE,
        ("Android boot image", "MediaTek image", "Image"),
        "gzip",
        "aarch64",
    ),
    "ChromeOS of a FIT of lz4": (
        chromeos(fit(lz4_frame(IMAGE), "lz4")),
        IMAGE,
        ("ChromeOS kernel partition", "FIT", "Image"),
        "lz4",
        "aarch64",
    ),
    "ChromeOS on x86": (
        chromeos(b"\x90" * 999 + PACKERS["lzo"](KERNEL)),
        KERNEL,
        ("ChromeOS kernel partition", "vmlinux"),
        "lzo",
        "x86_64",
    ),
    "lz4 frame": (lz4_frame(IMAGE), IMAGE, ("lz4 file", "Image"), "lz4", "aarch64"),
    "FIT of an lz4 frame": (fit(lz4_frame(IMAGE), "lz4"), IMAGE, ("FIT", "Image"), "lz4", "aarch64"),
    "uImage of an lz4 frame": (uimage(lz4_frame(CODE), 5, 7), CODE, ("uImage",), "lz4", "ppc"),
    "bzImage of an lz4 frame": (
        bzimage(with_size("lz4", lz4_frame(KERNEL), len(KERNEL))),
        KERNEL,
        ("bzImage", "vmlinux"),
        "lz4",
        "x86_64",
    ),
    "lz4 frame of a zImage in a uImage in gzip": (
        PACKERS["gzip"](uimage(zimage(lz4_frame(CODE)), 0, 2)),
        CODE,
        ("gzip file", "uImage", "zImage"),
        "gzip > lz4",
        "arm",
    ),
    "self-extracting, mips64": (self_extracting(PACKERS["lzma"](CODE)), CODE, ("self-extracting ELF file",), "lzma",
                                "mips64"),
    "self-extracting, ppc": (
        self_extracting(PACKERS["gzip"](bytes(small_vmlinux(32, False, 20))), 20, 32, False),
        bytes(small_vmlinux(32, False, 20)),
        ("self-extracting ELF file", "vmlinux"),
        "gzip",
        "ppc",
    ),
    "an unknown header before an Image": (b"\x77" * 24 + IMAGE, IMAGE, ("unknown container", "Image"), None, "aarch64"),
    "Android of an unknown header before an Image": (
        android(b"\x77" * 24 + IMAGE),
        IMAGE,
        ("Android boot image", "Image"),
        None,
        "aarch64",
    ),
    "an unknown header before an ELF file": (
        b"\x77" * 24 + KERNEL,
        KERNEL,
        ("unknown container", "vmlinux"),
        None,
        "x86_64",
    ),
    "an unknown header before a uImage": (
        b"\x77" * 999 + uimage(XZ_ZIMAGE, 0, 2),
        CODE,
        ("unknown container", "uImage", "zImage"),
        "xz",
        "arm",
    ),
    "code alone": (CODE, CODE, ("unknown container",), None, None),
}  # fmt: skip


@pytest.mark.parametrize("which", NESTED)
def test_the_innermost_kernel_comes_out(tmp_path: Path, which: str) -> None:
    data, kernel, containers, compression, machine = NESTED[which]
    image = image_of(tmp_path, data)
    assert image.payload[: len(kernel)] == kernel
    assert (image.containers, image.compression, image.machine) == (containers, compression, machine)
    assert image.warnings == ()
    assert 0 <= image.offset <= image.offset + image.length <= len(data)


@pytest.mark.parametrize("gap", [0, 4096 + 20])
def test_two_kernels_in_a_file_are_reported_as_two(tmp_path: Path, gap: int) -> None:
    """After a header that is not known; each is at the offset that is stated."""
    head, one, other = b"\x55" * 64, PACKERS["gzip"](IMAGE), uimage(PACKERS["xz"](OTHER_IMAGE), 0, 22)
    data = head + one + b"\xff" * gap + other + bytes(100)
    second = len(head) + len(one) + gap
    with pytest.raises(InputError) as caught:
        image_of(tmp_path, data)
    told = f"2 kernels in it: gzip at 0x40 (6.1.0-one), uImage at {second:#x} (5.10.0-two)"
    assert str(caught.value).startswith(f"{tmp_path / 'vmlinuz'}: {told} (kplug extract --offset ")
    assert image_of(tmp_path, data, 0x40).payload == IMAGE
    assert image_of(tmp_path, data, second).payload == OTHER_IMAGE
    assert image_of(tmp_path, data, second + 64).payload == OTHER_IMAGE


@pytest.mark.parametrize("first", ["Image", "EFI Image", "uImage", "gzip", "ELF"])
def test_another_kernel_after_the_one_that_the_header_names_is_mentioned(tmp_path: Path, first: str) -> None:
    """An Image with a header for EFI ends before its .bss, whose size is in the Image's own."""
    one = {
        "Image": IMAGE + bytes(4096),
        "EFI Image": efi_image(IMAGE),
        "uImage": uimage(IMAGE),
        "gzip": PACKERS["gzip"](IMAGE),
        "ELF": KERNEL,
    }[first]
    image = image_of(tmp_path, one + b"\xff" * 100 + OTHER_IMAGE)
    assert image.payload in (KERNEL, IMAGE, one) or image.payload[: len(IMAGE)] == IMAGE
    assert OTHER_BANNER not in image.payload
    place = len(one) + 100
    told = f"another kernel is in it: Image at {place:#x} (5.10.0-two) (kplug extract --offset {place:#x} writes it)"
    assert told in image.warnings
    assert image_of(tmp_path, one + b"\xff" * 100 + OTHER_IMAGE, place).payload == OTHER_IMAGE


def test_a_kernel_after_many_packed_files_is_found_or_what_was_not_tried_is_said(tmp_path: Path) -> None:
    """As in a router's firmware. Eight are unpacked as a whole, and two hundred to see how they begin."""
    text = PACKERS["gzip"](b"a manual page " * 40)
    assert image_of(tmp_path, bytes(64) + text * 150 + PACKERS["gzip"](IMAGE)).payload == IMAGE
    for count in (150, 300):
        with pytest.raises(InputError) as caught:
            image_of(tmp_path, bytes(64) + text * count)
        told = f"; and 5 more; not tried: {count - 8} more places that look like a container or packed data"
        assert str(caught.value).endswith(told)


def test_extract_writes_the_kernel_at_an_offset(kplug: BoundedKplug, tmp_path: Path) -> None:
    path, output = tmp_path / "flash", tmp_path / "vmlinux"
    path.write_bytes(bytes(64) + IMAGE + bytes(4096) + OTHER_IMAGE)
    assert kplug.run("extract", str(path), "-o", str(output)).status == 2
    for at, kernel in (("0x40", IMAGE), (str(64 + len(IMAGE) + 4096), OTHER_IMAGE)):
        answer = kplug.run("extract", "--offset", at, str(path), "-o", str(output))
        assert (answer.status, answer.err) == (0, "")
        assert output.read_bytes()[: len(kernel)] == kernel
    for at, message in (("0x1000000", "it has 0x.* bytes, none at 0x1000000"), ("x", "not a number: 'x'")):
        answer = kplug.run("extract", "--offset", at, str(path), "-o", str(output))
        assert (answer.status, answer.err.count("\n")) == (2, 1)
        assert re.search(message, answer.err)


def test_a_packed_module_is_no_kernel_and_is_known(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = tmp_path / "packed.ko.xz"
    path.write_bytes(PACKERS["xz"](KERNEL[:16] + b"\1\0" + KERNEL[18:]))
    assert kplug.run("extract", str(path), "-o", str(tmp_path / "out")).status == 2
    answer = kplug.run("info", str(path))
    assert (answer.status, answer.err) == (0, "")
    assert re.search("^container +xz file$", answer.out, re.M)


def test_the_documentation_has_every_container_as_it_is_declared() -> None:
    page = (ROOT / "docs" / "sources.md").read_text()
    written = runpy.run_path(str(ROOT / "docs" / "formats_table.py"))["written"]
    assert written(page) == page, "docs/formats_table.py writes it"


# -- reasons -----------------------------------------------------------------------------------------------------------

CRUMBS = b"\x5a" * 999 + b"\xfd7zXZ\0" + b"\x5a" * 999


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # The magic that decompressors hold is no data.
        (
            CRUMBS,
            r"no kernel found in it: neither a kernel's header nor a banner; tried what looks like xz at 0x3e7: .*",
        ),
        (b"\x5a" * 4096, "no kernel found in it: neither a kernel's header nor a banner, no container, nothing packed"),
        (
            CRUMBS + PACKERS["zstd"](b"nothing" * 99),
            "no kernel found in it: .*; tried zstd at 0x7d4: unpacks, but not to a kernel; what looks like xz at .*",
        ),
        (uimage(zimage(CRUMBS), 0, 2), r"no kernel in the uImage > zImage: neither .*; tried what looks like xz at .*"),
        (fit(zimage(b""), "none", "arm"), r"no kernel in the FIT > zImage: neither a kernel's header nor a banner"),
        (self_extracting(b""), "a program or a library, not a kernel: neither a kernel's header nor a banner"),
        (fit(lz4_frame(IMAGE)[:-500], "lz4"), "truncated: the lz4 data ends too early"),
        (fit(b"\x77" * 999, "lz4"), "its FIT header says lz4, but the data is not lz4"),
        (fit(PACKERS["xz"](IMAGE), "lz4"), "its FIT header says lz4, but the data is xz"),
        (b"CHROMEOS" + struct.pack("<3I", 2, 1, 1 << 30), "truncated: it ends within its ChromeOS kernel preamble"),
        (KERNEL[:-1], rf"truncated: its header claims {len(KERNEL)} bytes, it has {len(KERNEL) - 1}"),
        (uncompressed_img(IMAGE)[:2000], "truncated: its UNCOMPRESSED_IMG header claims .* bytes, it has 2000"),
        (CODE + OTHER_BANNER, "2 kernels' banners in it, and neither a header nor kallsyms tells where .* begins"),
    ],
)
def test_the_reason_is_what_was_found(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        image_of(tmp_path, data)
    assert re.fullmatch(f"{re.escape(str(tmp_path / 'vmlinuz'))}: {message}", str(caught.value)), str(caught.value)
