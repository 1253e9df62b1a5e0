"""Instructions. The kernel prints them as numbers (arch/arm64/kernel/traps.c, dump_kernel_instr())."""

from __future__ import annotations

from kplug.arch.types.machine_code import MachineCode

MACHINE_CODE = MachineCode(
    capstone=("CS_ARCH_AARCH64", "CS_ARCH_ARM64"),
    modes=("CS_MODE_LITTLE_ENDIAN",),  # of instructions, on big-endian machines too
    telling=frozenset(("pstate", "x0", "x29")),
    shortest=4,
    longest=4,
    stores="st",
    both="(?:ld|st)(?:add|clr|eor|set|[su](?:max|min))|swp|cas",
    passive="prf",
    relative="adr",
    page_relative="adrp",
)
