"""Files that are no dumps that can be opened: what they are is said in one line, with the remedy.

The magic numbers are written here as each format's own description has them.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kplug.errors import InputError
from kplug.memory.dump_header import read_header

# The bytes that a file starts with, and words of the answer: what it is, and what to do.
KNOWN = {
    "QEMU's savevm": (b"QEVM\0\0\0\3", "a QEMU migration stream", "virsh dump --memory-only"),
    "virsh save": (b"LibvirtQemudSave\2\0\0\0", "as virsh save left it", "virsh restore"),
    "unfinished": (b"LibvirtQemudPart\2\0\0\0", "as virsh save left it", "virsh restore"),
    "Xen 3.0, PV": (b"\xed\xeb\x0f\xf0", "Xen's dump-core", "crash reads it"),
    "Xen 3.0, HVM": (b"\xee\xeb\x0f\xf0", "Xen's dump-core", "crash reads it"),
    "vmss": (b"\xd2\xbe\xd2\xbe", "a VMware snapshot", "vmss2core"),
    "vmsn, partial": (b"\xd3\xbe\xd3\xbe", "a VMware snapshot", "vmss2core"),
    "vmss, restored": (b"\xd1\xba\xd1\xba", "a VMware snapshot", "vmss2core"),
    "LKCD": (bytes.fromhex("ed238f61730119a8"), "an LKCD dump", "crash reads it"),
    "LKCD, big-endian": (bytes.fromhex("a8190173618f23ed"), "an LKCD dump", "crash reads it"),
    "LKCD, live": (bytes.fromhex("cd238f61730119a8"), "an LKCD dump", "crash reads it"),
    "s390": (bytes.fromhex("a8190173618f23fd"), "a standalone dump of s390", "zgetdump -f elf"),
    "AVML": (b"AVML\2\0\0\0", "a compressed memory image of AVML", "avml-convert"),
    "gzip": (b"\x1f\x8b\x08\0", "compressed with gzip", "unpack it first (gunzip)"),
    "xz": (b"\xfd7zXZ\0", "compressed with xz", "unpack it first (unxz)"),
    "zstd": (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it first (zstd -d)"),
    "bzip2": (b"BZh9", "compressed with bzip2", "unpack it first (bunzip2)"),
    "lz4": (b"\x04\x22\x4d\x18", "compressed with lz4", "unpack it first (lz4 -d)"),
}


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_header(str(path))
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


@pytest.mark.parametrize(("head", "what", "remedy"), KNOWN.values(), ids=KNOWN.keys())
def test_a_format_that_cannot_be_opened_is_named_with_its_remedy(
    tmp_path: Path, head: bytes, what: str, remedy: str
) -> None:
    path = tmp_path / "dump"
    path.write_bytes(head + bytes(8192))
    said = refused(path)
    assert what in said
    assert remedy in said


def elf_core(sections: list[bytes], segments: bytes = b"", count: int = 0) -> bytes:
    """An ELF core file with sections of those names, and program headers."""
    names = b"\0" + b"\0".join([*sections, b".shstrtab"]) + b"\0"
    headers = bytes(64)
    for name in (*sections, b".shstrtab"):
        headers += struct.pack("<IIQQQQIIQQ", names.index(name), 1, 0, 0, 64 + len(segments), len(names), 0, 0, 1, 0)
    place = 64 + len(segments) + len(names)
    number = len(sections) + 2
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, 62, 1, 0, 64 if count else 0, place, 0, 64, 56, count, 64, number,
        number - 1,
    )  # fmt: skip
    return head + segments + names + headers


def test_xens_core_of_today_is_an_elf_file_of_sections(tmp_path: Path) -> None:
    path = tmp_path / "core"
    path.write_bytes(elf_core([b".note.Xen", b".xen_prstatus", b".xen_pages"]))
    assert refused(path).startswith("Xen's dump-core of a guest (xl dump-core): ")
    path.write_bytes(elf_core([b".text"]))
    assert "its ELF header is broken: 0 program headers" in refused(path)


@pytest.mark.parametrize("cut", [64, 100, 200])
def test_a_broken_section_table_is_no_matter(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "core"
    path.write_bytes(elf_core([b".note.Xen"])[:cut])
    assert "its ELF header is broken: 0 program headers" in refused(path)


def test_headers_without_their_memory_are_said_to_be_that(tmp_path: Path) -> None:
    path = tmp_path / "core"
    segments = struct.pack("<II6Q", 1, 6, 0x1000, 0, 0x100000, 0x5000, 0x5000, 0)
    path.write_bytes(elf_core([], segments, 1))
    size = path.stat().st_size
    assert size < 0x1000
    said = refused(path)
    assert said == f"truncated: its memory is missing, {0x6000 - size} bytes: only its headers are there"
    path.write_bytes(path.read_bytes().ljust(0x1800, b"\0"))
    assert read_header(str(path)).missing == 0x6000 - 0x1800
