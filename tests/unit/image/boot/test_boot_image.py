"""Boot images: every container and compression, and what hostile ones are answered.

Containers are made by hand from their descriptions (tests/support/boot_image_builder.py); what should come out is what
was put in. Real kernels and the kernel's own script are asked in tests/boot_images.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.boot_image_builder import (
    PACKERS,
    android,
    bzimage,
    fit,
    flat_image,
    lz4_bomb,
    uimage,
    unified,
    with_size,
    zboot,
    zstd_bomb,
)
from support.bounded_kplug import Answer, BoundedKplug
from support.elf_builder import small_vmlinux

from kplug.errors import InputError
from kplug.files.bounded_output import Unpacked
from kplug.files.compression import decompress
from kplug.image.boot.boot_image import BootImage, open_boot_image
from kplug.image.boot.containers import HEAD_BYTES, is_boot_image

KERNEL = bytes(small_vmlinux()) + random.Random(2).randbytes(20_000)
IMAGE = flat_image(random.Random(3).randbytes(20_000))
RAW = random.Random(4).randbytes(5000) + b"Linux version 6.1.0 (root@x)" + bytes(100)
SECONDS = 10.0


def packed(name: str, data: bytes = KERNEL) -> bytes:
    return with_size(name, PACKERS[name](data), len(data))


BZIMAGES = {name: bzimage(packed(name)) for name in PACKERS}
# Container, what is in it, the words for the containers from the outside in.
CONTAINERS: dict[str, tuple[bytes, bytes, tuple[str, ...], str | None]] = {
    **{f"bzImage {name}": (data, KERNEL, ("bzImage", "vmlinux"), "x86_64") for name, data in BZIMAGES.items()},
    **{
        f"zboot {name}": (zboot(PACKERS[name](IMAGE), name, len(IMAGE)), IMAGE, ("EFI zboot", "Image"), "aarch64")
        for name in PACKERS
    },
    **{f"{name} file": (packed(name, IMAGE), IMAGE, (f"{name} file", "Image"), "aarch64") for name in PACKERS},
    "Image": (IMAGE, IMAGE, ("Image",), "aarch64"),
    "riscv": (flat_image(b"code" * 99, b"RSC\x05"), flat_image(b"code" * 99, b"RSC\x05"), ("Image",), "riscv64"),
    "vmlinux": (KERNEL, KERNEL, ("vmlinux",), "x86_64"),
    "uncompressed bzImage": (bzimage(KERNEL), KERNEL, ("bzImage", "vmlinux"), "x86_64"),
    "uImage": (uimage(IMAGE), IMAGE, ("uImage", "Image"), "aarch64"),
    "uImage gzip": (uimage(PACKERS["gzip"](IMAGE), 1), IMAGE, ("uImage", "Image"), "aarch64"),
    "uImage lzma": (uimage(PACKERS["lzma"](RAW), 3, 5), RAW, ("uImage",), "mips"),
    "uImage of code": (uimage(RAW, 0, 7), RAW, ("uImage",), "ppc"),
    "uImage of several": (
        uimage(struct.pack(">3I", len(IMAGE), 4, 0) + IMAGE + b"init", kind=4),
        IMAGE,
        ("uImage", "Image"),
        "aarch64",
    ),
    "FIT": (fit(IMAGE), IMAGE, ("FIT", "Image"), "aarch64"),
    "FIT lz4": (fit(packed("lz4", IMAGE), "lz4"), IMAGE, ("FIT", "Image"), "aarch64"),
    "Android 0": (android(IMAGE, 0), IMAGE, ("Android boot image", "Image"), "aarch64"),
    "Android 4": (android(packed("lz4", IMAGE), 4), IMAGE, ("Android boot image", "Image"), "aarch64"),
    "Android of bzImage": (
        android(BZIMAGES["zstd"]),
        KERNEL,
        ("Android boot image", "bzImage", "vmlinux"),
        "x86_64",
    ),
    "unified": (unified(BZIMAGES["lz4"]), KERNEL, ("unified kernel image", "bzImage", "vmlinux"), "x86_64"),
}


def image_of(folder: Path, data: bytes) -> BootImage:
    path = folder / "vmlinuz"
    path.write_bytes(data)
    return open_boot_image(str(path))


def error_of(folder: Path, data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        image_of(folder, data)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'vmlinuz'}: ")
    assert "\n" not in message
    return message


# -- what is in which container ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", CONTAINERS)
def test_the_kernel_comes_out_of_its_container(tmp_path: Path, which: str) -> None:
    data, kernel, containers, machine = CONTAINERS[which]
    image = image_of(tmp_path, data)
    assert image.payload[: len(kernel)] == kernel
    assert image.containers == containers
    assert image.machine == machine
    assert image.kind == ("ELF" if kernel is KERNEL else "flat Image")
    assert image.length <= len(data) - image.offset
    assert image.warnings == ()
    assert {"payload", "machine"} <= set(image.sources)
    assert is_boot_image(data[:HEAD_BYTES]) is (which != "vmlinux")


@pytest.mark.parametrize("name", PACKERS)
def test_the_place_of_the_payload_is_the_headers(tmp_path: Path, name: str) -> None:
    image = image_of(tmp_path, BZIMAGES[name])
    assert (image.compression, image.offset, image.length) == (name, 3 * 512 + 0x20, len(packed(name)))


def test_what_follows_a_packed_file_is_told_of(tmp_path: Path) -> None:
    """Android's Image.gz-dtb: device trees behind the kernel."""
    image = image_of(tmp_path, PACKERS["gzip"](IMAGE) + b"\xd0\x0d\xfe\xed" * 10)
    assert image.payload == IMAGE
    assert image.warnings == ("40 bytes follow the gzip data (an appended device tree?)",)


def test_the_header_of_a_flat_image_is_read(tmp_path: Path) -> None:
    header = image_of(tmp_path, IMAGE).header
    assert header is not None
    assert (header.text_offset, header.image_size) == (0, len(IMAGE) + 4096)
    assert (header.little_endian, header.page_size) == (True, 4096)  # flags 0xa: little-endian, 4 KiB pages


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("before", [b"junk" * 100, bytes(0x24) + b"\x18\x28\x6f\x01" + bytes(500)])
def test_what_has_no_known_header_is_searched(tmp_path: Path, name: str, before: bytes) -> None:
    image = image_of(tmp_path, before + packed(name) + b"\x90" * 1000)
    assert image.payload == KERNEL
    assert (image.compression, image.offset) == (name, len(before))
    assert image.sources["payload"].startswith("the search for magics")
    assert image.containers[0] == ("zImage" if len(before) == 0x24 + 504 else "unknown container")


@pytest.mark.parametrize(("string", "machine"), [(b"S390EP", "s390x"), (b"\0\0\0\0\0\0", None)])
def test_what_ipl_loads_is_searched_and_has_its_machine(tmp_path: Path, string: bytes, machine: str | None) -> None:
    head = bytes.fromhex("0008000080000200 0200001860000050 0200006860000050").ljust(0x10008, b"\x40") + string
    image = image_of(tmp_path, head + packed("gzip", RAW))
    assert (image.payload, image.machine, image.containers) == (RAW, machine, ("IPL image",))


def test_a_number_that_is_the_magic_of_a_zimage_makes_none(tmp_path: Path) -> None:
    """s390x's vmlinuz has a table of the image's addresses, as which 0x016f2818 can occur."""
    table = struct.pack(">200I", *range(0x016F2700, 0x016F2700 + 8 * 200, 8))
    image = image_of(tmp_path, table + packed("gzip", RAW))
    assert (image.payload, image.machine, image.containers) == (RAW, None, ("unknown container",))


def test_a_kernel_without_any_header_is_told_by_its_banner(tmp_path: Path) -> None:
    """What 32-bit arm boots is bare machine code, in a container that no other architecture has."""
    zimage = bytes(0x24) + b"\x18\x28\x6f\x01" + bytes(500) + packed("gzip", RAW)
    image = image_of(tmp_path, zimage)
    assert (image.payload, image.kind, image.machine) == (RAW, "flat Image", "arm")


def test_an_old_protocol_without_payload_fields_is_searched(tmp_path: Path) -> None:
    image = image_of(tmp_path, bzimage(packed("gzip"), version=0x207))
    assert image.payload == KERNEL
    assert image.sources["payload"].startswith("the search")


@pytest.mark.parametrize("head", [b"", b"KDUMP", b"ffffffff81000000 T _text\n", bytes(HEAD_BYTES), b"\x7fELF"])
def test_what_is_no_boot_image_is_told_by_its_start(head: bytes) -> None:
    assert not is_boot_image(head)


# -- what is wrong is said ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in PACKERS if name != "gzip"])
@pytest.mark.parametrize("size", [0, 1, len(KERNEL) - 1, len(KERNEL) + 1, 1 << 28, (1 << 32) - 1])
def test_an_unpacked_size_that_lies_is_said(tmp_path: Path, name: str, size: int) -> None:
    data = bzimage(PACKERS[name](KERNEL) + struct.pack("<I", size))
    assert re.search(r"says that it unpacks to|claims to unpack to", error_of(tmp_path, data))


def test_gzips_own_size_that_lies_is_said(tmp_path: Path) -> None:
    data = bzimage(PACKERS["gzip"](KERNEL)[:-4] + struct.pack("<I", len(KERNEL) + 1))
    assert re.search("incorrect length check", error_of(tmp_path, data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"\0", "no kernel found"),
        (b"\x1f\x8b\x08", "truncated: the gzip data ends too early"),
        (random.Random(1).randbytes(100_000), "no kernel found"),
        (b"\x28\xb5\x2f\xfd" * 1000, "zstd|no kernel"),
        (BZIMAGES["xz"][:4000], r"truncated: its bzImage header claims \d+ bytes, it has 4000"),
        (bzimage(b"not packed at all" * 9), "points to is packed in an unknown format"),
        (bzimage(b""), "points to no kernel"),
        (bzimage(packed("gzip", b"nothing here" * 99)), "no kernel in the bzImage"),
        (zboot(b"x" * 99, "gzip", 1), "says gzip, but the data is not gzip"),
        (zboot(PACKERS["xz"](IMAGE), "brotli", 1), "packed with 'brotli', which is not known"),
        (zboot(PACKERS["xz"](IMAGE), "xz", len(IMAGE) - 1), "says that it unpacks to"),
        (uimage(IMAGE)[:-1], "truncated: its uImage header claims"),
        (uimage(IMAGE)[:60], "ends within its uImage header"),
        (uimage(IMAGE)[:5] + b"\xff" + uimage(IMAGE)[6:], "checksum of its uImage header is wrong"),
        (uimage(IMAGE)[:-1] + b"\xff", "checksum of the data in its uImage is wrong"),
        (uimage(IMAGE, 77), "compression 77, which is not known"),
        (uimage(IMAGE, kind=3), "type 3, which is not a kernel"),
        (uimage(b"\xff" * 200, kind=4), "list of images is not terminated"),
        (uimage(PACKERS["gzip"](IMAGE), 2), "says bzip2, but the data is gzip"),
        (b"KDUMP   " + bytes(4096), "not a boot image but a kdump-compressed dump"),
        (fit(IMAGE, "rot13"), "packed with 'rot13', which is not known"),
        (fit(IMAGE)[:-1], "truncated: its device tree header claims"),
        (fit(IMAGE).replace(b"kernel\0", b"kerneL\0"), "no image of type kernel"),
        (android(IMAGE, page=2048)[:-9000], "truncated: its Android boot image header claims"),
        (android(IMAGE, page=2048)[:36] + b"\3" + android(IMAGE)[37:], "pages of 2051 bytes"),
        (unified(BZIMAGES["gzip"])[:-200], "truncated"),
    ],
)
def test_what_is_wrong_with_an_image_is_said_in_a_line(tmp_path: Path, data: bytes, message: str) -> None:
    assert re.search(message, error_of(tmp_path, data))


# -- kplug extract -----------------------------------------------------------------------------------------------------


def refused(answer: Answer, path: str, what: str = "") -> None:
    assert answer.crash is None
    assert (answer.status, answer.out) == (2, "")
    assert answer.seconds < SECONDS
    assert answer.err.count("\n") == 1
    assert path in answer.err
    assert re.search(what, answer.err), answer.err


@pytest.fixture
def vmlinuz(tmp_path: Path) -> str:
    path = tmp_path / "vmlinuz"
    path.write_bytes(BZIMAGES["gzip"])
    return str(path)


def test_extract_writes_the_kernel_to_a_file(kplug: BoundedKplug, vmlinuz: str, tmp_path: Path) -> None:
    output = tmp_path / "vmlinux"
    output.write_bytes(b"what was there before")
    for words in (("-o", str(output), vmlinuz), (vmlinuz, "--output", str(output))):
        answer = kplug.run("extract", *words)
        assert (answer.status, answer.out, answer.err) == (0, "", "")
        assert output.read_bytes() == KERNEL
    assert sorted(os.listdir(tmp_path)) == ["vmlinux", "vmlinuz"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(output.stat().st_mode) == 0o666 & ~mask


def test_extract_follows_a_link_and_leaves_what_is_no_file_alone(
    kplug: BoundedKplug, vmlinuz: str, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("target")
    assert kplug.run("extract", vmlinuz, "-o", str(tmp_path / "link")).status == 0
    assert (tmp_path / "target").read_bytes() == KERNEL
    assert (tmp_path / "link").is_symlink()
    assert kplug.run("extract", vmlinuz, "-o", "/dev/null").status == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_extract_never_writes_over_the_image(kplug: BoundedKplug, vmlinuz: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("vmlinuz")
    os.link(vmlinuz, tmp_path / "hard")
    for name in ("vmlinuz", "link", "hard"):
        refused(kplug.run("extract", vmlinuz, "-o", str(tmp_path / name)), name, "the image itself")
    assert Path(vmlinuz).read_bytes() == BZIMAGES["gzip"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("extract",), "required: VMLINUZ"),
        (("extract", "VMLINUZ", "-o", "FOLDER"), "a directory; -o names a file"),
        (("extract", "VMLINUZ", "-o", "FOLDER/nowhere/x"), "cannot be written: No such file"),
        (("extract", "FOLDER/absent"), "absent: No such file"),
        (("extract", "FOLDER"), "a directory, not a file"),
        (("extract", "VMLINUZ", "--symbols"), "no symbol table can be made|kallsyms"),
    ],
)
def test_extract_says_what_it_cannot_do(
    kplug: BoundedKplug, vmlinuz: str, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    places = {"VMLINUZ": vmlinuz, "FOLDER": str(tmp_path)}
    given = [re.sub("VMLINUZ|FOLDER", lambda match: places[match.group()], word) for word in words]
    if "--symbols" in words:  # the small kernel has a symbol table, which is enough; a flat one has not
        Path(vmlinuz).write_bytes(IMAGE)
    refused(kplug.run(*given), "", message)


def test_a_kernel_that_has_its_symbol_table_keeps_it(kplug: BoundedKplug, vmlinuz: str, tmp_path: Path) -> None:
    output = tmp_path / "vmlinux"
    assert kplug.run("extract", "--symbols", vmlinuz, "-o", str(output)).status == 0
    assert output.read_bytes() == KERNEL


def test_the_help_tells_of_it(kplug: BoundedKplug) -> None:
    assert re.search(r"^  extract +\w", kplug.run("--help").out, re.M)
    assert "--symbols" in kplug.run("extract", "--help").out


# -- hostile images, in a child with 1 GiB of address space ------------------------------------------------------------


@pytest.fixture
def extracted(kplug: BoundedKplug, tmp_path: Path) -> Callable[[bytes], Answer]:
    """Extracts what is in some bytes, and checks the answer: the kernel's file, or one line that names the image."""
    path, output = tmp_path / "vmlinuz", tmp_path / "vmlinux"

    def run(data: bytes) -> Answer:
        path.write_bytes(data)
        output.unlink(missing_ok=True)
        answer = kplug.run("extract", str(path), "-o", str(output))
        if answer.status == 0:
            assert (answer.crash, answer.err) == (None, "")
            assert output.stat().st_size > 0
            assert answer.seconds < SECONDS
        else:
            refused(answer, str(path))
            assert not output.exists()
        return answer

    return run


@pytest.mark.parametrize("which", CONTAINERS)
def test_images_cut_anywhere(extracted: Callable[[bytes], Answer], which: str) -> None:
    data, kernel, _, _ = CONTAINERS[which]
    lengths = [*range(1, 80, 7), *range(80, len(data), len(data) // 12 + 1)]
    for length in lengths:
        answer = extracted(data[:length])
        # A flat Image without headers for EFI does not say how long its file is, nor does an ELF file's start.
        if kernel is KERNEL and which.startswith("bzImage"):
            whole = data.rindex(b"\x90" * 64)
            assert answer.status == (0 if length >= whole else 2), length


@pytest.mark.parametrize("which", CONTAINERS)
def test_images_with_flipped_bits(extracted: Callable[[bytes], Answer], which: str) -> None:
    """Seeded; half of the flips in the headers."""
    data = CONTAINERS[which][0]
    for seed in range(24):
        chance = random.Random(f"{which} {seed}")
        changed = bytearray(data)
        for _ in range(chance.choice((1, 2, 8))):
            position = chance.randrange(min(len(data), 0x700) if seed % 2 else len(data))
            changed[position] ^= 1 << chance.randrange(8)
        extracted(bytes(changed))


BOMBS = {
    "zstd": bzimage(zstd_bomb(1 << 30) + struct.pack("<I", 1 << 30)),
    "zstd that says little": bzimage(zstd_bomb(1 << 30) + struct.pack("<I", 1 << 20)),
    "zstd file": zstd_bomb(1 << 30),
    "lz4": bzimage(lz4_bomb(100) + struct.pack("<I", 100 << 23)),
    "lz4 file": lz4_bomb(100),
    "many gzip": b"junk" + PACKERS["gzip"](bytes(1 << 24))[:-9] * 60,
    "many zstd": b"junk" + zstd_bomb(1 << 24) * 200,
    "uImage": uimage(PACKERS["gzip"](bytes(1 << 26)), 1),
    "gzip in gzip in gzip": functools.reduce(lambda data, _: PACKERS["gzip"](data), range(8), KERNEL),
}


@pytest.mark.parametrize("which", BOMBS)
def test_bombs_are_refused(extracted: Callable[[bytes], Answer], which: str) -> None:
    assert extracted(BOMBS[which]).status == 2


@pytest.mark.parametrize("tail", [0, 9], ids=["whole", "truncated"])
def test_what_is_searched_unpacks_to_no_more_than_one_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    """Candidate after candidate of nothing: what has been unpacked of one is not there for the next."""
    one = PACKERS["gzip"](bytes(1 << 23))
    allowed: list[int] = []

    def noted(name: str, data: bytes, limit: int, progress: Any = None) -> Unpacked:
        allowed.append(limit)
        return decompress(name, data, limit, progress)

    monkeypatch.setattr("kplug.image.boot.opener.decompress", noted)
    with pytest.raises(InputError, match="no kernel found in it"):
        image_of(tmp_path, b"junk" + one[: len(one) - tail] * 6)
    assert allowed[0] == 1 << 24
    assert all(before - after >= 1 << 22 for before, after in zip(allowed, allowed[1:]))
    assert len(allowed) <= 4


def test_a_file_that_claims_gigabytes_is_not_read(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(BZIMAGES["gzip"])
    os.truncate(path, 1 << 40)
    refused(kplug.run("extract", str(path), "-o", str(tmp_path / "out")), str(path), "no boot image is larger")


@pytest.mark.parametrize(("elf_type", "what"), [(1, "a module"), (4, "a dump is given with -c")])
def test_an_elf_file_that_is_no_kernel_is_not_taken_for_one(
    kplug: BoundedKplug, tmp_path: Path, elf_type: int, what: str
) -> None:
    path = tmp_path / "vmcore"
    path.write_bytes(KERNEL[:16] + elf_type.to_bytes(2, "little") + KERNEL[18:])
    refused(kplug.run("extract", str(path), "-o", str(tmp_path / "out")), str(path), what)
    refused(kplug.run("where", "--vmlinuz", str(path), "schedule"), str(path), what)


def test_a_vmlinux_with_debug_information_is_told_from_a_boot_image(kplug: BoundedKplug, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(KERNEL)
    os.truncate(path, 1 << 30)
    refused(kplug.run("where", "--vmlinuz", str(path), "schedule"), str(path), "a vmlinux is given with -s")


# -- on a terminal -----------------------------------------------------------------------------------------------------


def on_a_terminal(*words: str) -> tuple[int, str]:
    """The status of kplug, and what a terminal got, where nobody has to wait for a bar."""
    import pty

    patience = "progress.PATIENCE_SECONDS = progress._REDRAW_SECONDS = 0.0"
    code = f"import sys; from kplug import progress; from kplug.shell import cli; {patience}; "
    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-c", f"{code}sys.exit(cli.main({list(words)!r}))"])
    shown = b""
    with contextlib.suppress(OSError):  # EIO: it has left
        while data := os.read(terminal, 4096):
            shown += data
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def test_a_kernel_does_not_go_to_a_terminal(vmlinuz: str) -> None:
    status, shown = on_a_terminal("extract", vmlinuz)
    assert status == 2
    assert re.fullmatch(r"kplug extract: .* terminal: use -o FILE\r\n", shown)


def test_a_bar_shows_how_far_it_is_and_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(packed("gzip", bytes(small_vmlinux()) + random.Random(5).randbytes(1 << 23))))
    status, shown = on_a_terminal("extract", str(path), "-o", str(tmp_path / "out"))
    assert status == 0
    fractions = [int(number) for number in re.findall(r"unpacking vmlinuz \[[#.]{24}\] +(\d+)%", shown)]
    assert len(fractions) > 3
    assert fractions == sorted(fractions)
    assert shown.endswith("\r\x1b[K")
