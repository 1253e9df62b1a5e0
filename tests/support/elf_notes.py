"""Notes of ELF files, as the gABI has them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from support.elf_builder import small_vmlinux


def note(owner: bytes, number: int, data: bytes, little: bool = True, alignment: int = 4) -> bytes:
    """A note's bytes, as the gABI has them."""

    def padded(what: bytes, after: int = 0) -> bytes:
        return what + bytes(-(len(what) + after) % alignment)

    name = owner + b"\0"
    return struct.pack("<III" if little else ">III", len(name), len(data), number) + padded(name, 12) + padded(data)


def prstatus(pid: int, registers: Sequence[int]) -> bytes:
    """struct elf_prstatus of 64-bit machines: pr_pid at 32, pr_reg at 112, pr_fpvalid."""
    return bytes(32) + struct.pack("<i", pid) + bytes(76) + struct.pack(f"<{len(registers)}Qii", *registers, 0, 0)


def vmlinux_with_notes(folder: Path, notes: bytes, align: int = 4, **changes: object) -> str:
    elf = small_vmlinux(**changes)  # type: ignore[arg-type]
    [section] = [section for section in elf.sections if section.name == ".notes"]
    section.data, section.align = notes, align
    path = folder / "vmlinux"
    path.write_bytes(bytes(elf))
    return str(path)
