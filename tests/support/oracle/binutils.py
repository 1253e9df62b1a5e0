"""What GNU readelf and nm print of a file, as rows. Nothing is interpreted here.

Section and segment tables and the symbol table come from readelf, the symbols' letters from nm. Both are GNU binutils
as installed: readelf knows every machine, and the letters that nm prints do not depend on the machine.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import Literal, NamedTuple


class SectionRow(NamedTuple):
    """One line of `readelf -S`; numbers as numbers, words as printed."""

    number: int
    name: str
    type: str
    address: int
    offset: int
    size: int
    entry_size: int
    flags: str
    link: int
    info: int
    alignment: int


class SegmentRow(NamedTuple):
    """One line of the program headers in `readelf -l`."""

    number: int
    type: str
    offset: int
    address: int
    physical_address: int
    file_size: int
    memory_size: int
    flags: str
    alignment: int


class SymbolRow(NamedTuple):
    """One line of `readelf -s`, with the letter of the same entry in `nm`."""

    number: int
    value: int
    size: int
    type: str
    binding: str
    section: str  # a number, ABS, UND or COM
    name: str
    letter: str


def run(*command: str) -> str:
    """The standard output of a binutils command, untranslated."""
    environment = {**os.environ, "LC_ALL": "C"}
    result = subprocess.run(command, env=environment, capture_output=True, check=True)
    return result.stdout.decode("utf-8", "backslashreplace")


# The columns are separated by blanks, and the flags may be none at all; the name may not contain blanks.
_SECTION = re.compile(
    r"^\s*\[\s*(?P<index>\d+)\] (?P<name>\S*)\s+(?P<type>\S+(?: <unknown>)?)\s+"
    r"(?P<address>[0-9a-f]{8,16}) (?P<offset>[0-9a-f]{6,}) (?P<size>[0-9a-f]{6,}) (?P<entry_size>[0-9a-f]{2,})"
    r" (?P<flags>[ A-Za-z]{3,}?) +(?P<link>\d+) +(?P<info>\d+) +(?P<alignment>\d+)\s*$"
)
_SEGMENT = re.compile(
    r"^  (?P<type>\S.*?)\s+0x(?P<offset>[0-9a-f]+) 0x(?P<address>[0-9a-f]+) 0x(?P<physical>[0-9a-f]+)"
    r" 0x(?P<file_size>[0-9a-f]+) 0x(?P<memory_size>[0-9a-f]+) (?P<flags>[R ][W ][E ])(?: \S*)?"
    r" (?P<alignment>0x[0-9a-f]+|0)$"
)
_MAPPING = re.compile(r"^   (\d\d+) (.*)$")


def sections(path: str) -> list[SectionRow]:
    """`readelf -SW`."""
    rows = []
    for line in run("readelf", "-SW", path).splitlines():
        match = _SECTION.match(line)
        if not match:
            assert not re.match(r"\s*\[\s*\d+\]", line), f"a section line that is not understood: {line!r}"
            continue
        field = match.groupdict()
        rows.append(
            SectionRow(
                int(field["index"]),
                field["name"],
                field["type"],
                int(field["address"], 16),
                int(field["offset"], 16),
                int(field["size"], 16),
                int(field["entry_size"], 16),
                field["flags"].strip(),
                int(field["link"]),
                int(field["info"]),
                int(field["alignment"]),
            )
        )
    assert [row.number for row in rows] == list(range(len(rows)))
    return rows


def segments(path: str) -> list[SegmentRow]:
    """`readelf -lW`: the program headers."""
    return _segments(run("readelf", "-lW", path))


def _segments(text: str) -> list[SegmentRow]:
    rows: list[SegmentRow] = []
    for line in text.splitlines():
        match = _SEGMENT.match(line)
        if not match:
            assert not re.match(r"^  [A-Z<]\S+.* 0x[0-9a-f]+ 0x", line), (
                f"a segment line that is not understood: {line!r}"
            )
            continue
        field = match.groupdict()
        rows.append(
            SegmentRow(
                len(rows),
                field["type"],
                int(field["offset"], 16),
                int(field["address"], 16),
                int(field["physical"], 16),
                int(field["file_size"], 16),
                int(field["memory_size"], 16),
                field["flags"].rstrip(),
                int(field["alignment"], 0),
            )
        )
    return rows


def mapping(path: str) -> list[list[str]]:
    """`readelf -lW`: "Section to Segment mapping", the section names of each segment."""
    text = run("readelf", "-lW", path).partition("Section to Segment mapping:")[2]
    return [match.group(2).split() for match in map(_MAPPING.match, text.splitlines()) if match]


def symbols(path: str) -> list[SymbolRow]:
    """`readelf -sW` with the letters of `nm -ap`; the null entry, which nm leaves out, has the letter "".

    Both print the entries in the order of the table; that they speak of the same entry is checked by its value.
    """
    printed = run("readelf", "-sW", path)
    # A file with a dynamic symbol table has two lists; the full one is .symtab.
    table = re.split(r"^Symbol table '\.symtab' contains \d+ entr\w+:$", printed, flags=re.MULTILINE)
    if len(table) != 2:
        return []
    rows: list[SymbolRow] = []
    letters = [("", 0, 0, ""), *_nm(path)]
    starts = {str(row.number): row.address for row in sections(path)}
    for line in table[1].splitlines():
        # "[VARIANT_PCS]" and the like describe st_other; they stand between the visibility and the section.
        plain = re.sub(r"\[[^\]]*\] +(?=\S+( |$))", "", line, count=1) if "[" in line else line
        part = plain.split(None, 7)
        if len(part) < 7 or not part[0].endswith(":") or part[0] == "Num:":
            continue
        number, value, size, section = int(part[0][:-1]), int(part[1], 16), int(part[2], 0), part[6]
        letter, nm_value, nm_size, nm_name = letters[number]
        name = part[7] if len(part) > 7 else ""
        if number and letter not in "UwvC":
            # In a relocatable file nm adds the section's address, which the linker leaves odd in some modules.
            where = f"{path}: entry {number}: {line!r}"
            assert value == nm_value or value + starts.get(section, 0) == nm_value, where
            assert size == nm_size or part[3] == "SECTION", where
            # readelf shows a control character as ^B, nm as it is.
            shown = re.sub(r"[\x01-\x1f]", lambda found: "^" + chr(ord(found[0]) + 64), nm_name)
            assert name == shown or part[3] == "SECTION", where
            name = nm_name
        rows.append(SymbolRow(number, value, size, part[3], part[4], section, name, letter))
    assert len(rows) == len(letters), f"{path}: readelf lists {len(rows)} symbols, nm {len(letters)}"
    return rows


def _nm(path: str) -> list[tuple[str, int, int, str]]:
    """`nm -apS --special-syms`: letter, value, size (0 where nm prints none) and name, in table order."""
    rows: list[tuple[str, int, int, str]] = []
    for line in run("nm", "-apS", "--special-syms", path).splitlines():
        part = line.split(" ", 2) if line[0] != " " else ["0", *line.split(None, 1)]
        value, size = int(part[0], 16), 0
        if len(part[1]) >= 8:  # a size stands between the value and the letter
            size = int(part[1], 16)
            letter, _, name = part[2].partition(" ")
        else:
            letter, name = part[1], part[2] if len(part) > 2 else ""
        rows.append((letter, value, size, name))
    return rows


def byte_order(path: str) -> Literal["little", "big"]:
    """As `readelf -h` has it."""
    return "big" if re.search(r"^  Data: .*big endian$", run("readelf", "-h", path), re.MULTILINE) else "little"


def data(path: str, address: int, size: int) -> bytes:
    """Bytes of a file by their address, as objdump prints them: not those of debug information, which counts from 0."""
    stop = address + size
    [home] = [
        row.name for row in sections(path) if "A" in row.flags and row.address <= address < row.address + row.size
    ]
    text = run("objdump", "-s", "-j", home, f"--start-address={address:#x}", f"--stop-address={stop:#x}", path)
    lines = re.findall(r"^ [0-9a-f]+ ((?:[0-9a-f]+ ){1,4})", text, re.MULTILINE)
    return bytes.fromhex("".join(lines))
