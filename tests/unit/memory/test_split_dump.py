"""A dump in several files, by their headers: kplug/memory/split_dump.py. Real ones: tests/runtime/opening."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.elf_notes import note

from kplug.errors import InputError
from kplug.memory.split_dump import missing, missing_words, part_of, parts_of

PAGE = 4096
PAGES = 1000
NOTES = note(b"VMCOREINFO", 0, b"OSRELEASE=6.1.0\nCRASHTIME=1796037712\n")


def dump(
    path: Path, start: int, end: int, *, split: int = 1, version: int = 6, notes: bytes = NOTES, pages: int = PAGES
) -> str:
    """The header of a compressed dump, its sub header, and its notes."""
    data = bytearray(2 * PAGE)
    data[:8] = b"KDUMP   "
    struct.pack_into("<i", data, 8, version)
    struct.pack_into("<IiiII", data, 424, 1, PAGE, 1, 2, pages)
    # Frames beyond 32 bits were cut off before version 6.
    struct.pack_into("<QiiQQ", data, PAGE, 0, 31, split, start, end)
    struct.pack_into("<QQ", data, PAGE + 48, 2 * PAGE, len(notes))
    if version >= 6:
        struct.pack_into("<QQ", data, PAGE + 16, 0, 0)
        struct.pack_into("<QQQ", data, PAGE + 80, start, end, pages)
    path.write_bytes(bytes(data) + notes)
    return str(path)


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    (tmp_path / "a").mkdir()
    bounds = (0, 300, 301, PAGES)
    return [dump(tmp_path / "a" / name, *place) for name, place in zip("zyx", zip(bounds, bounds[1:]))]


@pytest.mark.parametrize("version", [4, 5, 6])
def test_a_part_has_its_range(tmp_path: Path, version: int) -> None:
    part = part_of(dump(tmp_path / "part", 300, 301, version=version))
    assert part is not None
    assert (part.start, part.end, part.size) == (300 * PAGE, 301 * PAGE, PAGES * PAGE)
    assert part.notes == NOTES


def test_what_is_not_split_is_no_part(tmp_path: Path) -> None:
    assert part_of(dump(tmp_path / "whole", 0, 0, split=0)) is None
    for name, data in (("elf", b"\x7fELF" + bytes(100)), ("empty", b""), ("short", b"KDUMP   " + bytes(100))):
        (tmp_path / name).write_bytes(data)
        assert part_of(str(tmp_path / name)) is None


@pytest.mark.parametrize(("start", "end"), [(5, 4), (0, PAGES + 1), (1 << 63, 1 << 63)])
def test_a_range_that_cannot_be_is_an_error(tmp_path: Path, start: int, end: int) -> None:
    with pytest.raises(InputError, match="its range of a split dump is broken"):
        part_of(dump(tmp_path / "part", start, end))


def test_the_others_are_found_beside_one(three: list[str]) -> None:
    for path in three:
        parts = parts_of(path, ())
        assert [part.path for part in parts] == three
        assert missing(parts) == []
        assert missing_words(parts) is None


def test_the_others_of_another_folder_are_given(three: list[str], tmp_path: Path) -> None:
    first = str(tmp_path / "first")
    Path(three[0]).rename(first)
    assert [part.path for part in parts_of(three[2], [first])] == [first, *three[1:]]
    assert [part.path for part in parts_of(first, three[1:])] == [first, *three[1:]]


def test_what_is_missing_is_said(three: list[str]) -> None:
    Path(three[0]).unlink()
    parts = parts_of(three[1], ())
    assert missing(parts) == [range(300 * PAGE)]
    words = missing_words(parts)
    assert words is not None
    assert words.startswith("only 2 parts of a split dump")
    assert "those with physical memory 0x0-0x12c000 of 0x0-0x3e8000 are missing" in words
    Path(three[2]).unlink()
    assert missing(parts_of(three[1], ())) == [range(300 * PAGE), range(301 * PAGE, PAGES * PAGE)]


def test_another_dumps_parts_are_not_taken(three: list[str], tmp_path: Path) -> None:
    other = dump(tmp_path / "a" / "other", 0, 300, notes=NOTES.replace(b"1796", b"1797"))
    smaller = dump(tmp_path / "a" / "smaller", 0, 300, pages=500)
    Path(three[0]).unlink()
    assert [part.path for part in parts_of(three[1], ())] == three[1:]
    for wrong in (other, smaller, dump(tmp_path / "whole", 0, 0, split=0)):
        with pytest.raises(InputError, match=f"^{wrong}: not a part of the dump that {three[1]} is a part of$"):
            parts_of(three[1], [wrong])
    with pytest.raises(InputError, match="several -c are for the parts of a split dump"):
        parts_of(str(tmp_path / "whole"), [three[1]])


def test_a_part_that_is_there_twice_counts_once(three: list[str]) -> None:
    copy = Path(three[0]).with_name("copy")
    copy.write_bytes(Path(three[0]).read_bytes())
    assert len(parts_of(three[0], ())) == 3
    assert parts_of(three[0], ())[0].path == three[0]
