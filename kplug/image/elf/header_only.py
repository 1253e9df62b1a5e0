"""An ELF file that is no more than its header: what stands for a kernel of which there is no ELF file."""

from __future__ import annotations

import io
import struct

from elftools.elf.enums import ENUM_E_MACHINE

from kplug.image.elf.file import ElfFile
from kplug.image.elf.names import MACHINES

_ET_REL, _ET_EXEC = 1, 2
# An older pyelftools does not know the newest machines.
_NUMBERS = {name: int(ENUM_E_MACHINE.get(elf_name, 0)) for elf_name, name in MACHINES.items()}
# e_ident of each class; then e_type ... e_shstrndx (gABI, "ELF Header").
_HEADERS = {32: "16sHHIIIIIHHHHHH", 64: "16sHHIQQQIHHHHHH"}


def bare_header(machine: str, bits: int = 64, *, little_endian: bool = True, relocatable: bool = False) -> bytes:
    """The header of an ELF file without sections and segments. A machine that kplug has no name of becomes "NONE"."""
    form = ("<" if little_endian else ">") + _HEADERS[bits]
    size = struct.calcsize(form)
    identification = b"\x7fELF" + bytes((bits // 32, 1 if little_endian else 2, 1))
    kind = _ET_REL if relocatable else _ET_EXEC
    return struct.pack(form, identification, kind, _NUMBERS.get(machine, 0), 1, 0, 0, 0, 0, size, 0, 0, 0, 0, 0)


def bare_elf(path: str, machine: str, bits: int = 64, *, relocatable: bool = False) -> ElfFile:
    """That, opened, for what was read from the file at `path`."""
    return ElfFile(path, io.BytesIO(bare_header(machine, bits, relocatable=relocatable)))
