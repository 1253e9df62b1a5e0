"""Instructions. The kernel disassembles them itself (arch/s390/kernel/dis.c, show_code())."""

from __future__ import annotations

from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.word import BIG

MACHINE_CODE = MachineCode(
    capstone=("CS_ARCH_SYSTEMZ", "CS_ARCH_SYSZ"),
    modes=("CS_MODE_BIG_ENDIAN",),
    telling=frozenset(("pswa",)),
    shortest=2,
    longest=6,
    order=BIG,
    operand=r"(?P<displacement>-?(?:0x[0-9a-f]+|\d+))\((?:%(?P<index>r\d+), ?)?%(?P<base>r\d+)\)$",
    zero=frozenset(("r0",)),
    stores="st|mvi|mvg?hi|mvhhi",
    both="[nox]iy?$|al?g?si|cs|la[aonx]",
    passive="lay?$|larl|pfd",
    relative="larl|exrl|[cl]g?h?f?rl|stg?rl|br|jg?|bras",
    fault_page=4096,  # the translation-exception identification has no more
)
