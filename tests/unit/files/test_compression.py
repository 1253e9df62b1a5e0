"""Unpacking: each format by Python's own packers or by hand, each way of the formats that have several.

Expected values are what was packed.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import struct
import subprocess
import sys

import pytest
from support.boot_image_builder import LZO_MAGIC, PACKERS, lz4_bomb, zstd_bomb

from kplug.files import compression, lz4_frame
from kplug.files.bounded_output import TooLargeError, UnpackError
from kplug.files.compression import FORMATS, decompress, decompress_all, decompressed_start

DATA = random.Random(4).randbytes(70_000) + bytes(300_000) + b"the end"
ROOM = 1 << 24
# The command-line tools, as the kernel's own build calls them (scripts/Makefile.lib).
TOOLS = {
    "zstd": ("zstd", "-q", "-22", "--ultra", "-c"),
    "lz4": ("lz4", "-q", "-l", "-9", "-c", "-"),
    "lzo": ("lzop", "-q", "-9", "-c"),
}
_DEBIANS_MODULES = "/usr/lib/python3/dist-packages"  # the one package of lzo that is built: python3-lzo
WAYS = [(name, way) for name in TOOLS for way in FORMATS[name].unpackers]
# The lz4 tool's own format: blocks that need the ones before them or not, of several sizes, with and without checksums.
LZ4_FRAMES = (("-1",), ("-9", "-BD", "-B4"), ("-1", "-B5", "--content-size", "-BX"), ("-1", "--no-frame-crc"))


def by_tool(name: str, data: bytes) -> bytes:
    command = TOOLS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("tail", [b"", b"\x12\x34\x56\x78", bytes(4), b"more" * 1000])
@pytest.mark.parametrize("name", PACKERS)
def test_what_was_packed_comes_out_and_the_end_is_told(name: str, tail: bytes) -> None:
    packed = PACKERS[name](DATA)
    assert packed.startswith(FORMATS[name].magic)
    assert decompress(name, packed + tail, ROOM) == (DATA, len(packed))
    assert compression.recognise(packed[:16]) == name


@pytest.mark.parametrize(("name", "way"), WAYS, ids=[way.__name__ for _, way in WAYS])
def test_each_way_unpacks_what_the_tool_packed(
    name: str, way: compression.Unpacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = by_tool(name, DATA)
    monkeypatch.setattr(sys, "path", [*sys.path, _DEBIANS_MODULES])
    monkeypatch.setitem(FORMATS, name, FORMATS[name]._replace(unpackers=(way,)))
    try:
        unpacked = decompress(name, packed + struct.pack("<I", len(DATA)), ROOM)
    except UnpackError as error:
        if "cannot unpack" in str(error):
            pytest.skip("Debian builds python3-lzo for its own Python alone, and this is another")
        raise
    assert unpacked == (DATA, len(packed))
    assert decompressed_start(name, packed, 100) == DATA[:100]
    for length in (*range(4, 40), len(packed) // 2, len(packed) - 5):
        with pytest.raises(UnpackError, match=r"truncated|broken"):
            decompress(name, packed[:length], ROOM)
    with pytest.raises(TooLargeError, match="more than 1000 bytes"):
        decompress(name, packed, 1000)


@pytest.mark.parametrize("words", LZ4_FRAMES, ids=" ".join)
@pytest.mark.parametrize("way", lz4_frame.UNPACKERS, ids=lambda way: way.__name__)
def test_lz4_has_a_second_format(
    words: tuple[str, ...], way: compression.Unpacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("lz4") is None:
        pytest.skip("no lz4")
    packed = subprocess.run(["lz4", "-q", *words, "-c", "-"], input=DATA, capture_output=True, check=True).stdout
    monkeypatch.setitem(FORMATS, "lz4", FORMATS["lz4"]._replace(variants={lz4_frame.MAGIC: (way,)}))
    assert compression.recognise(packed[:16]) == "lz4"
    try:
        assert decompress("lz4", packed + b"more", ROOM) == (DATA, len(packed))
    except UnpackError as error:
        if "cannot unpack" in str(error):
            pytest.skip("not installed here")
        raise
    assert decompressed_start("lz4", packed, 100) == DATA[:100]
    for length in (5, 7, 12, len(packed) // 2, len(packed) - 5):
        with pytest.raises(UnpackError, match=r"truncated|broken"):
            decompress("lz4", packed[:length], ROOM)
    with pytest.raises(TooLargeError, match="more than 1000 bytes"):
        decompress("lz4", packed, 1000)


def test_the_start_is_enough_where_the_rest_is_missing() -> None:
    packed = PACKERS["gzip"](DATA)
    assert decompressed_start("gzip", packed[:50_000], 100) == DATA[:100]


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2", "zstd"])
def test_streams_laid_end_to_end_are_one_file(name: str) -> None:
    """As gzip, xz, bzip2 and zstd themselves unpack them; xz pads with NULs between."""
    packed = PACKERS[name](DATA[:1000]) + bytes(8) + PACKERS[name](DATA[1000:])
    assert decompress_all(name, packed, ROOM) == DATA
    with pytest.raises(UnpackError):
        decompress_all(name, packed + b"junk", ROOM)


@pytest.mark.parametrize("name", PACKERS)
def test_truncated_anywhere_is_said(name: str) -> None:
    packed = PACKERS[name](DATA)
    for length in (*range(4, 60), *range(60, len(packed) - 4, 9001), len(packed) - 5):
        with pytest.raises(UnpackError):
            decompress(name, packed[:length], ROOM)


@pytest.mark.parametrize("name", [name for name in PACKERS if name != "lzma"])
def test_flipped_bits_are_noticed_or_harmless(name: str) -> None:
    """Seeded. lzma has no checksum: whatever comes out of it."""
    packed = PACKERS[name](DATA)
    for seed in range(60):
        chance = random.Random(seed)
        changed = bytearray(packed)
        changed[chance.randrange(4, len(packed))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(UnpackError):
            unpacked = decompress(name, bytes(changed), ROOM)
            # lz4 and the raw zstd frame have no checksum of their own.
            assert name in ("lz4", "zstd") or unpacked.data == DATA


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2"])
def test_bombs_are_stopped_at_the_limit(name: str) -> None:
    packed = PACKERS[name](bytes(1 << 25))
    with pytest.raises(TooLargeError, match="more than 1 MiB"):
        decompress(name, packed, 1 << 20)


@pytest.mark.parametrize(("name", "bomb"), [("zstd", zstd_bomb(1 << 30)), ("lz4", lz4_bomb(128))])
def test_a_gibibyte_in_a_little_is_stopped_at_the_limit(name: str, bomb: bytes) -> None:
    with pytest.raises(TooLargeError):
        decompress(name, bomb, 1 << 24)


@pytest.mark.parametrize(
    "change",
    [
        (len(LZO_MAGIC), b"\xff"),  # version: the header's checksum
        (len(LZO_MAGIC) + 38 - 4, b"\xff"),  # the first block's unpacked size
        (len(LZO_MAGIC) + 38 + 4, b"\xff"),  # its checksum
    ],
)
def test_lzop_files_that_lie_are_refused(change: tuple[int, bytes]) -> None:
    packed = bytearray(PACKERS["lzo"](DATA))
    packed[change[0] : change[0] + 1] = change[1]
    with pytest.raises(UnpackError, match=r"broken|truncated"):
        decompress("lzo", bytes(packed), ROOM)


@pytest.mark.parametrize("name", TOOLS)
def test_where_nothing_unpacks_it_is_said_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORMATS, name, FORMATS[name]._replace(unpackers=()))
    with pytest.raises(UnpackError, match=f"cannot unpack {name}: install lib"):
        decompress(name, FORMATS[name].magic, ROOM)
