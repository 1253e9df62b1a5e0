"""An ELF file that is only a header: the placeholder for a kernel without an ELF file."""

from __future__ import annotations

import io
import struct

from kplug.arch import registry
from kplug.arch.types.word import struct_order
from kplug.image.elf.file import EM_NONE, ElfFile

_ET_REL, _ET_EXEC = 1, 2
# e_ident of each class; then e_type ... e_shstrndx (gABI, "ELF Header").
_HEADERS = {32: "16sHHIIIIIHHHHHH", 64: "16sHHIQQQIHHHHHH"}


def bare_header(
    machine: str, bits: int | None = None, *, little_endian: bool | None = None, relocatable: bool = False
) -> bytes:
    """The header of an ELF file without sections and segments, with the machine's usual class and byte order. An
    undeclared machine becomes EM_NONE.
    """
    architecture = registry.named(machine)
    bits = bits or architecture.bits
    little_endian = architecture.little_endian if little_endian is None else little_endian
    number = next((each.number for each in architecture.names.elf), EM_NONE)
    form = struct_order(little_endian) + _HEADERS[bits]
    size = struct.calcsize(form)
    identification = b"\x7fELF" + bytes((bits // 32, 1 if little_endian else 2, 1))
    kind = _ET_REL if relocatable else _ET_EXEC
    return struct.pack(form, identification, kind, number, 1, 0, 0, 0, 0, size, 0, 0, 0, 0, 0)


def bare_elf(path: str, machine: str, bits: int | None = None, *, relocatable: bool = False) -> ElfFile:
    """Such a header as an open ELF file, for a kernel that was read from the file at `path`."""
    return ElfFile(path, io.BytesIO(bare_header(machine, bits, relocatable=relocatable)))
