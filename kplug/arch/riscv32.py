"""riscv32: 32-bit RISC-V. Flat Images and their headers do not state the width: they are assumed to be riscv64's."""

from __future__ import annotations

from kplug.arch.riscv64 import ELF_WORDS, boundaries
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.record import Architecture, ElfMachine, Names


def _machine_code() -> MachineCode:
    from kplug.arch.riscv64.machine_code import MACHINE_CODE_32

    return MACHINE_CODE_32


ARCHITECTURE = Architecture(
    name="riscv32",
    title="riscv32",
    names=Names(
        elf=(ElfMachine(243, 32),),
        kernel="riscv",
        drgn="RISCV32",
        gdb=("riscv:rv32",),
        qemu=("riscv32",),
        pe=0x5032,
    ),
    bits=32,
    elf=ELF_WORDS,
    head_symbol="_start",
    boundaries=boundaries,
    upper_half=True,
    machine_code=_machine_code,
    char_signed=False,
)
