"""Small symbol tables, made by elf_builder."""

from __future__ import annotations

from pathlib import Path

from kplug.image.elf.file import ElfFile
from kplug.image.symbols.table import SymbolTable
from support.elf_builder import SHT_NOBITS, A, Elf, Sec, W, X


def table_of(folder: Path, elf: Elf) -> SymbolTable:
    path = folder / "elf"
    path.write_bytes(bytes(elf))
    file = ElfFile(str(path))
    return SymbolTable(file, file.sections)


def sections() -> list[Sec]:
    """.text 0x1000-0x2000, .data 0x2000-0x3000 next to it, .bss 0x4000-0x5000 after a hole, and one not in memory."""
    return [
        Sec(".text", SHT_NOBITS, A | X, 0x1000, size=0x1000),
        Sec(".data", SHT_NOBITS, A | W, 0x2000, size=0x1000),
        Sec(".bss", SHT_NOBITS, A | W, 0x4000, size=0x1000),
        Sec(".comment", data=b"x"),
    ]
