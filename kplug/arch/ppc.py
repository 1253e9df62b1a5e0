"""ppc: 32-bit PowerPC."""

from __future__ import annotations

from kplug.arch.ppc64 import boundaries
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.record import BIG, Architecture, ElfMachine, Names


def _machine_code() -> MachineCode:
    from kplug.arch.ppc64.machine_code import MACHINE_CODE_32

    return MACHINE_CODE_32


ARCHITECTURE = Architecture(
    name="ppc",
    title="ppc",
    names=Names(
        elf=(ElfMachine(20, 32),),
        kernel="powerpc",
        debian=("powerpc",),
        gdb=("powerpc:common",),
        qemu=("ppc",),
        uimage=7,
        fit=("ppc",),
    ),
    bits=32,
    byte_orders=(BIG,),
    boundaries=boundaries,
    machine_code=_machine_code,
    char_signed=False,
)
