"""`kplug extract` on real kernels, byte for byte against scripts/extract-vmlinux of the kernel's own sources.

Each format by packing a real payload with the real tool; each container with a real kernel in it, U-Boot's made by its
own mkimage.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import vmimages
from support import real_images
from support.boot_image_builder import android, unified, with_size, zboot

from kplug.image.boot.boot_image import BootImage, open_boot_image

if TYPE_CHECKING:
    from support.sampling import Sampling

pytestmark = pytest.mark.kernel


def extracted(image: Path, output: Path, *words: str) -> bytes:
    command = [sys.executable, "-m", "kplug", "extract", str(image), "-o", str(output), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return output.read_bytes()


@pytest.mark.parametrize("name", real_images.NAMES)
def test_extraction_is_byte_for_byte_the_scripts(name: str, sampling: Sampling, tmp_path: Path) -> None:
    """Up to 6.17 the script does not know a flat Image; since then it gives the file as it is."""
    image = real_images.vmlinuz(name)
    expected = real_images.by_the_script(name, image, tmp_path, sampling.whole)
    if not expected and name.startswith("arm64"):
        expected = image.read_bytes()
    assert len(expected) > 1 << 24
    assert extracted(image, tmp_path / "vmlinux") == expected


@pytest.fixture(scope="module")
def bzimage() -> tuple[bytes, BootImage, str]:
    files = vmimages.fetch("amd64-6.1")
    return files.vmlinuz.read_bytes(), open_boot_image(str(files.vmlinuz)), files.version


@pytest.mark.parametrize("name", real_images.PACKERS)
def test_each_compression_in_a_real_bzimage(
    name: str, bzimage: tuple[bytes, BootImage, str], sampling: Sampling, tmp_path: Path
) -> None:
    data, opened, version = bzimage
    packed = real_images.packed(name, opened.payload, f"vmlinux-{version}", sampling.whole)
    image = tmp_path / "vmlinuz"
    image.write_bytes(real_images.bzimage_with(data, with_size(name, packed, len(opened.payload))))
    assert open_boot_image(str(image)).compression == name
    assert extracted(image, tmp_path / "vmlinux") == opened.payload


def test_standard_output_and_a_size_that_lies(bzimage: tuple[bytes, BootImage, str], tmp_path: Path) -> None:
    data, opened, _ = bzimage
    command = [sys.executable, "-m", "kplug", "extract", str(real_images.vmlinuz("amd64-6.1"))]
    assert subprocess.run(command, capture_output=True, check=True).stdout == opened.payload
    end = opened.offset + opened.length
    image = tmp_path / "vmlinuz"
    image.write_bytes(data[: end - 4] + struct.pack("<I", len(opened.payload) + 1) + data[end:])
    done = subprocess.run([*command[:-1], str(image)], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == (
        f"kplug: {image}: says that it unpacks to {len(opened.payload) + 1} bytes, "
        f"but its lz4 data unpacks to {len(opened.payload)}\n"
    )


# -- containers around the Image of arm64 ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image() -> bytes:
    return real_images.vmlinuz("arm64-6.12").read_bytes()


@pytest.fixture(scope="module")
def image_packed(image: bytes, sampling: Sampling) -> dict[str, bytes]:
    version = vmimages.fetch("arm64-6.12").version
    whole = sampling.whole
    return {name: real_images.packed(name, image, f"Image-{version}", whole) for name in ("gzip", "lzo", "lz4")}


@pytest.mark.parametrize("container", ["Image.gz", "Image.lz4", "zboot", "Android", "unified", "uImage", "FIT"])
def test_an_image_comes_out_of_each_container(
    container: str, image: bytes, image_packed: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "image"
    if container in ("uImage", "FIT"):
        made_by_mkimage(container, image_packed["gzip"], path)
    else:
        path.write_bytes(
            {
                "Image.gz": image_packed["gzip"],
                "Image.lz4": image_packed["lz4"],
                "zboot": zboot(image_packed["gzip"], "gzip", len(image)),
                "Android": android(image_packed["lz4"], 4),
                "unified": unified(image),
            }[container]
        )
    opened = open_boot_image(str(path))
    assert (opened.kind, opened.machine) == ("flat Image", "aarch64")
    assert extracted(path, tmp_path / "out") == image


def made_by_mkimage(container: str, packed: bytes, output: Path) -> None:
    """By U-Boot's own tool (and, for a FIT, the device tree compiler)."""
    for tool in ("mkimage", "dtc") if container == "FIT" else ("mkimage",):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    source = output.with_name("Image.gz")
    source.write_bytes(packed)
    words = [
        "-A",
        "arm64",
        "-O",
        "linux",
        "-T",
        "kernel",
        "-C",
        "gzip",
        "-a",
        "0x80000",
        "-e",
        "0x80000",
        "-n",
        "Linux",
    ]
    automatic = ["-f", "auto"] if container == "FIT" else []
    subprocess.run(["mkimage", *automatic, *words, "-d", str(source), str(output)], check=True, capture_output=True)


@pytest.mark.parametrize("name", [name for name in real_images.NAMES if name.startswith("arm64")])
def test_an_image_that_lacks_its_end_is_said_to(name: str, tmp_path: Path) -> None:
    data = real_images.vmlinuz(name).read_bytes()
    path = tmp_path / "vmlinuz"
    path.write_bytes(data[: len(data) // 2])
    command = [sys.executable, "-m", "kplug", "extract", str(path), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{path}: truncated: its header claims" in done.stderr


def test_a_module_packed_with_zstd_is_answered_as_the_module(tmp_path: Path) -> None:
    (module,) = vmimages.fetch("amd64-6.1").modules.rglob("loop.ko*")
    packed = tmp_path / "loop.ko.zst"
    packed.write_bytes(subprocess.run(["zstd", "-q", "-c", str(module)], capture_output=True, check=True).stdout)
    answers = []
    for path in (module, packed):
        command = [sys.executable, "-m", "kplug", "where", "--brief", "--module", f"{path}@0xffffffffc0400000"]
        done = subprocess.run([*command, "__loop_update_dio"], capture_output=True, text=True, check=False)
        answers.append((done.returncode, done.stdout))
    assert answers[0] == answers[1]
    assert "__loop_update_dio" in answers[0][1]
