"""Registers in the notes of a core dump: a CPU's PRSTATUS, and QEMU's additional note.

PRSTATUS: struct elf_prstatus (include/linux/elfcore.h). QEMU's note: struct QEMUCPUState in its
target/i386/arch_dump.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kplug.arch.types.word import struct_order

# In struct elf_prstatus of 64-bit machines: pr_pid, and pr_reg, a struct user_regs_struct (arm64: user_pt_regs).
_PR_PID, _PR_REG = 32, 112

# version and size; rax rbx rcx rdx rsi rdi rsp rbp r8-r15 rip rflags; ten segments of 24 bytes; cr0-cr4; and
# kernel_gs_base, which QEMU has since 3.0 (recognised by the size).
_QEMU_CONTROL = 8 + 18 * 8 + 10 * 24
_QEMU_KERNEL_GS = _QEMU_CONTROL + 5 * 8


def prstatus_registers(data: bytes, names: Sequence[str], little_endian: bool) -> dict[str, int]:
    """The registers in a PRSTATUS note; `names` are its machine's `Registers.user_regs`. struct.error if it is too
    short."""
    values = struct.unpack_from(f"{struct_order(little_endian)}{len(names)}Q", data, _PR_REG)
    return {name: value for name, value in zip(names, values) if name}


def prstatus_pid(data: bytes, little_endian: bool) -> int | None:
    """The pid in a PRSTATUS note of a 64-bit machine: the kernel's task, or QEMU's CPU number counted from 1. None if
    it is too short.
    """
    form = struct_order(little_endian) + "i"
    return int(struct.unpack_from(form, data, _PR_PID)[0]) if len(data) >= _PR_REG else None


def qemu_note_size(data: bytes) -> int:
    """The bytes that a struct QEMUCPUState claims to have."""
    return int.from_bytes(data[4:8], "little")


def qemu_registers(data: bytes) -> dict[str, int]:
    """The registers of struct QEMUCPUState that PRSTATUS does not have; empty for another version of the structure."""
    if len(data) < _QEMU_KERNEL_GS or struct.unpack_from("<I", data)[0] != 1:
        return {}
    cr0, _, cr2, cr3, cr4 = struct.unpack_from("<5Q", data, _QEMU_CONTROL)
    found = {"cr0": cr0, "cr2": cr2, "cr3": cr3, "cr4": cr4}
    if qemu_note_size(data) >= _QEMU_KERNEL_GS + 8 <= len(data):
        found["k_gs_base"] = struct.unpack_from("<Q", data, _QEMU_KERNEL_GS)[0]
    return found
