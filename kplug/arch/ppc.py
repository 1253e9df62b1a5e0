"""ppc: 32-bit PowerPC."""

from __future__ import annotations

from kplug.arch.ppc64 import boundaries
from kplug.arch.types.record import BIG, Architecture, ElfMachine, Names

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
    char_signed=False,
)
