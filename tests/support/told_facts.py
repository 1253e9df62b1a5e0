"""`kplug info` and `kplug notes` as tests ask them, beside what readelf prints.

Where kplug deliberately says something else than readelf 2.40: NAMED_OTHERWISE.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import struct
import subprocess
from typing import Any, Literal, NamedTuple

from kplug.shell import cli
from support.oracle import binutils

# What readelf calls a note -> whose it is, its number, and what its owner calls it. readelf takes the number for one of
# its general notes (NT_VERSION, NT_ARCH, and of the annobin plugin OPEN and func), or of Go's, whoever the owner is.
NAMED_OTHERWISE = {
    ("Xen", "NT_VERSION (version)"): (1, "ENTRY"),
    ("Xen", "NT_ARCH (architecture)"): (2, "HYPERCALL_PAGE"),
    ("Xen", "GO BUILDID"): (4, "PADDR_OFFSET"),
    ("PowerPC", "NT_VERSION (version)"): (1, "CAPABILITIES"),
    ("Linux", "OPEN"): (0x100, "BUILD_SALT"),
    ("Linux", "func"): (0x101, "LTO_INFO"),
    # The kernel's names without NT_, which are what it calls them, too.
    ("GNU", "NT_GNU_BUILD_ID"): (3, "BUILD_ID"),
    ("GNU", "NT_GNU_PROPERTY_TYPE_0"): (5, "PROPERTY_TYPE_0"),
    ("CORE", "NT_PRSTATUS"): (1, "PRSTATUS"),
    ("CORE", "NT_FPREGSET"): (2, "PRFPREG"),
    ("LINUX", "NT_ARM_SVE"): (0x405, "ARM_SVE"),
}


class Told(NamedTuple):
    """What a command line printed, and its exit status."""

    status: int
    out: str
    err: str

    def rows(self, schema: str) -> list[dict[str, Any]]:
        objects = [json.loads(line) for line in self.out.splitlines()]
        return [each for each in objects if each["schema"] == f"kplug.{schema}/1"]

    @property
    def facts(self) -> dict[str, Any]:
        [facts] = self.rows("info")
        return facts


@functools.cache
def told(*words: str) -> Told:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(words)
    return Told(status, out.getvalue(), err.getvalue())


def info(path: str) -> Told:
    found = told("info", "--json", path)
    assert (found.status, found.err) == (0, "")
    return found


# readelf's labels, and the keys of kplug.info/1.
HEADER = {
    "Class": "class",
    "OS/ABI": "os_abi",
    "ABI Version": "abi_version",
    "Type": "type",
    "Entry point address": "entry",
    "Flags": "flags",
    "Start of program headers": "program_headers_offset",
    "Start of section headers": "section_headers_offset",
    "Size of this header": "header_size",
    "Size of program headers": "program_header_size",
    "Number of program headers": "program_headers",
    "Size of section headers": "section_header_size",
    "Number of section headers": "section_headers",
    "Section header string table index": "section_names",
}
BYTE_ORDERS = {"2's complement, little endian": "little endian", "2's complement, big endian": "big endian"}


def same_header(path: str, facts: dict[str, Any]) -> None:
    lines = dict(line.split(":", 1) for line in binutils.run("readelf", "-hW", path).splitlines() if ":" in line)
    listed = {label.strip(): words.strip() for label, words in lines.items()}
    assert facts["byte_order"] == BYTE_ORDERS[listed["Data"]]
    for label, key in HEADER.items():
        value = facts[key]
        if isinstance(value, int) or re.fullmatch(r"0x[0-9a-f]+", str(value)):
            assert int(re.split("[ ,]", listed[label])[0], 0) == int(str(value), 0), label
        else:
            assert listed[label] == value, label


def same_tables(path: str, of_info: Told) -> None:
    sections = of_info.rows("sections")
    assert len(sections) == len(binutils.sections(path))
    for row, expected in zip(sections, binutils.sections(path)):
        numbers = (int(row["link_start"], 16), int(row["offset"], 16), row["size"], row["entry_size"])
        assert (row["index"], row["name"], row["type"]) == (expected.number, expected.name, expected.type)
        assert numbers == (expected.address, expected.offset, expected.size, expected.entry_size)
        assert (row["flags"], row["link"], row["info"], row["alignment"]) == expected[7:]
    segments = of_info.rows("segments")
    assert len(segments) == len(binutils.segments(path))
    for row, held, segment in zip(segments, binutils.mapping(path), binutils.segments(path)):
        places = (row["offset"], row["link_start"], row["physical"])
        assert tuple(int(place, 16) for place in places) == (segment.offset, segment.address, segment.physical_address)
        assert (row["file_size"], row["size"]) == (segment.file_size, segment.memory_size)
        assert (row["type"], row["flags"], row["alignment"]) == (segment.type, segment.flags, segment.alignment)
        assert row["sections"] == held


class ListedNote(NamedTuple):
    owner: str
    size: int
    words: str
    data: bytes | None


def readelf_notes(path: str) -> list[ListedNote]:
    found = []
    # It exits with 1 for a section of notes that is empty, as modules of 7.x have (.note.GNU-stack).
    untranslated = {**os.environ, "LC_ALL": "C"}
    listed = subprocess.run(["readelf", "-nW", path], capture_output=True, text=True, env=untranslated, check=False)
    for line in listed.stdout.splitlines():
        match = re.match(r"^  (\S+) +0x([0-9a-f]{8})\t(.*)$", line)
        if match is None:
            continue
        words, _, rest = match[3].partition("\t")
        data = re.search(r"description data: ((?:[0-9a-f]{2} )*)", rest)
        found.append(ListedNote(match[1], int(match[2], 16), words.strip(), bytes.fromhex(data[1]) if data else None))
    return found


def same_notes(path: str, notes: list[dict[str, Any]]) -> None:
    listed = readelf_notes(path)
    assert [(row["owner"], row["size"]) for row in notes] == [(each.owner, each.size) for each in listed]
    for row, expected in zip(notes, listed):
        number = int(row["type"], 16)
        if expected.data is not None:
            assert row["data"] == expected.data.hex()
        unknown = re.fullmatch(r"Unknown note type: \(0x([0-9a-f]{8})\)", expected.words)
        if unknown is not None:
            assert number == int(unknown[1], 16)
            continue
        words = expected.words
        key = (row["owner"], words if (row["owner"], words) in NAMED_OTHERWISE else words.split(" ")[0])
        assert (number, row["name"]) == NAMED_OTHERWISE[key]


def put_together(notes: list[dict[str, Any]], order: Literal["<", ">"] = "<") -> bytes:
    """The bytes of the section that has these notes."""
    packed = b""
    for row in notes:
        owner, data = row["owner"].encode() + b"\0", bytes.fromhex(row["data"])
        packed += struct.pack(order + "III", len(owner), len(data), int(row["type"], 16))
        packed += owner + bytes(-len(owner) % 4) + data + bytes(-len(data) % 4)
    return packed
