"""Images of memory without notes: kplug/memory/raw_image.py. A real kernel's: tests/runtime/opening/test_raw.py."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kplug.errors import InputError, UsageError
from kplug.memory.raw_image import Extent, raw_extents


def lime(first: int, last: int, version: int = 1) -> bytes:
    return b"EMiL" + struct.pack("<IQQQ", version, first, last, 0)


def image(folder: Path, data: bytes) -> str:
    path = folder / "image"
    path.write_bytes(data)
    return str(path)


def test_lime_has_its_ranges(tmp_path: Path) -> None:
    data = lime(0x1000, 0x1FFF) + bytes(4096) + lime(0x100000, 0x1027FF) + bytes(0x2800)
    assert raw_extents(image(tmp_path, data), None) == [
        Extent(0x1000, 0x1000, 32),
        Extent(0x100000, 0x2800, 64 + 4096),
    ]


def test_lime_that_is_cut_lacks_its_end(tmp_path: Path) -> None:
    data = lime(0x1000, 0x1FFF) + bytes(4096) + lime(0x100000, 0x100FFF) + bytes(100)
    assert raw_extents(image(tmp_path, data), None)[1] == Extent(0x100000, 100, 64 + 4096, 0x1000 - 100)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lime(0x1000, 0x1FFF) + bytes(4096 + 32), "no LiME header at 0x1020, where range 2 should be"),
        (lime(0x1000, 0x1FFF) + bytes(4096) + b"EMiL", "no LiME header at 0x1020"),
        (lime(0x2000, 0x1FFF), "a LiME header says 0x2000-0x1fff"),
        (lime(0, (1 << 64) - 1), "a LiME header says 0x0-0xffffffffffffffff"),
    ],
)
def test_broken_lime_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        raw_extents(image(tmp_path, data), None)


def test_what_is_no_image_has_no_extents(tmp_path: Path) -> None:
    for data in (b"", b"EMiL", lime(0, 1, version=2), b"\x7fELF" + bytes(100)):
        assert raw_extents(image(tmp_path, data), None) == []


@pytest.mark.parametrize(
    ("text", "extents"),
    [
        ("0", [Extent(0, 0x3000, 0)]),
        ("0x80000000", [Extent(0x80000000, 0x3000, 0)]),
        ("0-fff,100000", [Extent(0, 0x1000, 0), Extent(0x100000, 0x2000, 0x1000)]),
        ("00001000-00001fff, 00100000-00101FFF", [Extent(0x1000, 0x1000, 0), Extent(0x100000, 0x2000, 0x1000)]),
        ("0-3fff", [Extent(0, 0x3000, 0, 0x1000)]),
    ],
)
def test_a_raw_one_has_the_ranges_that_are_given(tmp_path: Path, text: str, extents: list[Extent]) -> None:
    assert raw_extents(image(tmp_path, bytes(0x3000)), text) == extents


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing: not START or START-LAST in hexadecimal"),
        ("all", "all: not START or START-LAST"),
        ("0-fff,", "nothing: not START or START-LAST"),
        ("-1", "-1: not START or START-LAST"),
        ("2000-1fff", "2000-1fff: ends before it begins"),
        ("0-fff", "these are 0x1000 bytes, and .* has 0x3000"),
        ("0,100000", "100000: .* ends before it, at 0x3000"),
        ("1000-1fff,0-fff,1800-27ff", "1800-27ff: overlaps a range before it"),
        ("1000-2fff,800-17ff", "800-17ff: overlaps a range before it"),
    ],
)
def test_ranges_that_cannot_be_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        raw_extents(image(tmp_path, bytes(0x3000)), text)


def test_lime_takes_no_ranges(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a LiME image: its ranges are in it"):
        raw_extents(image(tmp_path, lime(0, 0xFFF) + bytes(4096)), "0")
