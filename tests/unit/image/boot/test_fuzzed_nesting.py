"""Containers in containers to any depth, some of them broken: bounded in time and memory, and one line if refused.

Seeded, in a child with 1 GiB of address space; `--whole` asks some thousands.
"""

from __future__ import annotations

import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support.boot_image_builder import (
    PACKERS,
    android,
    bzimage,
    chromeos,
    fit,
    flat_image,
    lz4_frame,
    mediatek,
    uimage,
    uncompressed_img,
    unified,
    zboot,
    zimage,
)
from support.bounded_kplug import BoundedKplug
from support.elf_builder import Elf, Sec, Seg, small_vmlinux

SECONDS = 10.0
KERNELS = (
    bytes(small_vmlinux()),
    flat_image(random.Random(1).randbytes(3000) + b"Linux version 6.1.0 (a@b) (c) #1\n\0"),
    random.Random(2).randbytes(2000) + b"Linux version 6.1.0 (a@b) (c) #1\n\0" + bytes(100),
    b"no kernel at all",
)


def wrapper(data: bytes) -> bytes:
    return bytes(Elf(sections=[Sec(".data", address=0x1000, data=data)], segments=[Seg(covers=(".data",))]))


def twice(data: bytes) -> bytes:
    """Two of them, after a header that nobody knows."""
    return b"\xaa" * 77 + data + b"\xbb" * 99 + data


def lzma_quickly(data: bytes) -> bytes:
    """A dictionary of 16 MiB, the smallest that the magic allows."""
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 24, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
    return lzma.compress(data, format=lzma.FORMAT_ALONE, filters=filters)


WRAPPERS: tuple[Callable[[bytes], bytes], ...] = (
    *(lzma_quickly if name == "lzma" else pack for name, pack in PACKERS.items()),
    lz4_frame,
    lambda data: PACKERS["gzip"](data) + data[:500],
    lambda data: fit(data, "none"),
    lambda data: fit(lzma_quickly(data), "lzma"),
    lambda data: uimage(data),
    lambda data: uimage(PACKERS["bzip2"](data), 2),
    lambda data: zboot(PACKERS["zstd"](data), "zstd", len(data)),
    lambda data: bzimage(PACKERS["gzip"](data)),
    android,
    mediatek,
    uncompressed_img,
    chromeos,
    unified,
    zimage,
    wrapper,
    twice,
)


def fuzzed(seed: int) -> bytes:
    chance = random.Random(seed)
    data = chance.choice(KERNELS)
    for _ in range(chance.choice((1, 2, 3, 4, 6, 9, 40))):
        data = chance.choice(WRAPPERS)(data)
        if len(data) > 1 << 20:
            break
    changed = bytearray(data)
    for _ in range(chance.choice((0, 0, 1, 4, 30))):
        changed[chance.randrange(min(len(changed), chance.choice((64, 4096, 1 << 30))))] = chance.randrange(256)
    return bytes(changed[: chance.choice((len(changed), len(changed), chance.randrange(len(changed)) + 1))])


def test_whatever_is_nested_gives_a_kernel_or_a_line(
    kplug: BoundedKplug, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path, output = tmp_path / "image", tmp_path / "kernel"
    for seed in range(4000 if request.config.getoption("--whole") else 40):
        path.write_bytes(fuzzed(seed))
        words = ("extract", str(path), "-o", str(output)) if seed % 3 else ("where", "-s", str(path), "schedule")
        answer = kplug.run(*words)
        assert answer.crash is None, seed
        assert answer.seconds < SECONDS, seed
        assert answer.status in ((0, 2) if seed % 3 else (0, 1, 2)), seed
        assert answer.err.count("\n") <= 2, seed  # with a warning of what else is in it
        assert answer.status == 0 or answer.err.startswith("kplug: "), seed


@pytest.mark.parametrize("number", range(len(WRAPPERS)))
def test_one_container_in_itself_again_and_again(kplug: BoundedKplug, tmp_path: Path, number: int) -> None:
    data = KERNELS[0]
    for _ in range(12):
        data = WRAPPERS[number](data)
        if len(data) > 1 << 22:
            break
    path = tmp_path / "image"
    path.write_bytes(data)
    answer = kplug.run("extract", str(path), "-o", str(tmp_path / "kernel"))
    # An uncompressed kernel is seen through what is searched, however deep.
    assert (answer.crash, answer.status, answer.err.count("\n")) in ((None, 2, 1), (None, 0, 0))
    assert answer.seconds < SECONDS


def test_the_innermost_is_not_searched_again_by_each_that_holds_it(kplug: BoundedKplug, tmp_path: Path) -> None:
    """Many magics of containers that contain each other: the work is bounded for all of the file together."""
    places = b"".join(fit(b"\xd0\x0d\xfe\xed" * 40, "none") + zimage(b"BZh9" * 40) for _ in range(2000))
    path = tmp_path / "image"
    path.write_bytes(b"\x11" * 100 + places)
    answer = kplug.run("extract", str(path), "-o", str(tmp_path / "kernel"))
    assert (answer.crash, answer.status, answer.err.count("\n")) == (None, 2, 1)
    assert answer.seconds < SECONDS
