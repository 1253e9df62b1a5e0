"""The ELF file header as facts, with readelf's names."""

from __future__ import annotations

from kplug.image.elf.file import ElfFile
from kplug.named_tuples import NamedTuple

# gABI, "ELF Header", and what readelf 2.40 prints.
_TYPES = {
    0: "NONE (None)",
    1: "REL (Relocatable file)",
    2: "EXEC (Executable file)",
    3: "DYN (Shared object file)",
    4: "CORE (Core file)",
}
_OS_ABIS = {
    0: "UNIX - System V",
    1: "UNIX - HP-UX",
    2: "UNIX - NetBSD",
    3: "UNIX - GNU",
    6: "UNIX - Solaris",
    9: "UNIX - FreeBSD",
    12: "UNIX - OpenBSD",
    97: "ARM",
    255: "Standalone App",
}


class FileHeader(NamedTuple):
    """The fields of the header. Offsets and sizes in bytes; `type` and `os_abi` as readelf prints them."""

    bits: int
    little_endian: bool
    os_abi: str
    abi_version: int
    type: str
    machine: str
    machine_number: int
    entry: int
    flags: int
    program_headers_offset: int
    program_headers: int
    program_header_size: int
    section_headers_offset: int
    section_headers: int
    section_header_size: int
    section_names: int
    header_size: int


def file_header(elf: ElfFile) -> FileHeader:
    """The header of an open file; the numbers are as stored, like in readelf -h."""
    header = elf.header
    identification = elf.read(0, 16, "the ELF header")
    return FileHeader(
        elf.bits,
        elf.little_endian,
        _OS_ABIS.get(identification[7], f"<unknown: {identification[7]:x}>"),
        identification[8],
        _TYPES.get(header.type, f"<unknown>: {header.type:x}"),
        elf.machine or "none",
        header.machine,
        header.entry,
        header.flags,
        header.phoff,
        header.phnum,
        header.phentsize,
        header.shoff,
        header.shnum,
        header.shentsize,
        header.shstrndx,
        header.ehsize,
    )
