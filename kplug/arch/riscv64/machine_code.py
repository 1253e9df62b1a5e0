"""Instructions. The kernel prints them by halfwords, as numbers (arch/riscv/kernel/traps.c, dump_instr())."""

from __future__ import annotations

from kplug.arch.types.machine_code import MachineCode
from kplug.frozen import replace

MACHINE_CODE = MachineCode(
    capstone=("CS_ARCH_RISCV",),
    modes=("CS_MODE_RISCV64", "CS_MODE_RISCVC"),
    telling=frozenset(("badaddr",)),
    shortest=2,
    longest=4,
    operand=r"(?P<displacement>-?(?:0x[0-9a-f]+|\d+))?\((?P<base>\w+)\)$",
    zero=frozenset(("zero",)),
    stores=r"(?:c\.)?f?s",
    both="amo",
    passive="prefetch",
)
MACHINE_CODE_32 = replace(MACHINE_CODE, modes=("CS_MODE_RISCV32", "CS_MODE_RISCVC"))
