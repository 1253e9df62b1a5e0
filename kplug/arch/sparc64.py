"""sparc64: 64-bit SPARC."""

from __future__ import annotations

from kplug.arch.types.record import BIG, Architecture, ElfMachine, Names

ARCHITECTURE = Architecture(
    name="sparc64",
    title="sparc64",
    names=Names(
        elf=(ElfMachine(43, 64),),
        kernel="sparc",
        debian=("sparc64",),
        gdb=("sparc:v9",),
        qemu=("sparc64",),
        uimage=11,
        fit=("sparc64",),
    ),
    byte_orders=(BIG,),
    char_signed=True,
)
