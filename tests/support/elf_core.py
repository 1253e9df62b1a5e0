"""A small ELF core file of a program, as gcore writes them."""

from __future__ import annotations

import struct
from pathlib import Path


def program_core(path: Path, task_note: bool = False) -> Path:
    """One segment of one page, and a note of the program's status; netdump's has one with a task_struct too."""
    note = struct.pack("<III", 5, 8, 1) + b"CORE\0\0\0\0" + bytes(8)
    if task_note:
        note += struct.pack("<III", 5, 8, 4) + b"CORE\0\0\0\0" + bytes(8)
    start = 64 + 2 * 56
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    notes = struct.pack("<II6Q", 4, 4, start, 0, 0, len(note), len(note), 4)
    memory = struct.pack("<II6Q", 1, 6, start + len(note), 0x400000, 0, 4096, 4096, 4096)
    path.write_bytes(header + notes + memory + note + bytes(4096))
    return path
