"""Instructions. The kernel prints them as numbers, whatever the byte order (arch/powerpc/kernel/process.c)."""

from __future__ import annotations

from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.word import BIG
from kplug.frozen import replace

MACHINE_CODE = MachineCode(
    capstone=("CS_ARCH_PPC",),
    modes=("CS_MODE_64", "CS_MODE_BIG_ENDIAN"),
    telling=frozenset(("NIP",)),
    shortest=4,
    longest=4,
    order=BIG,
    operand=r"(?P<displacement>-?(?:0x[0-9a-f]+|\d+))\((?P<base>\w+)\)$",
    zero=frozenset(("0",)),
    stores="st",
)
MACHINE_CODE_32 = replace(MACHINE_CODE, modes=("CS_MODE_32", "CS_MODE_BIG_ENDIAN"))
