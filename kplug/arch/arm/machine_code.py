"""Instructions. The kernel prints them as numbers, those of Thumb by halfwords (arch/arm/kernel/traps.c)."""

from __future__ import annotations

from kplug.arch.types.machine_code import MachineCode

MACHINE_CODE = MachineCode(
    capstone=("CS_ARCH_ARM",),
    modes=("CS_MODE_ARM",),
    halfword_modes=("CS_MODE_THUMB",),
    telling=frozenset(("psr",)),
    shortest=2,
    longest=4,
    program_counter="pc",
    stores="st",
    both="swp",
    passive="pl[di]",
)
