"""parisc: HP PA-RISC, of 32 bits."""

from __future__ import annotations

from kplug.arch.types.record import BIG, Architecture, ElfMachine, Names

ARCHITECTURE = Architecture(
    name="parisc",
    title="parisc",
    names=Names(
        elf=(ElfMachine(15, 32),),
        kernel="parisc",
        debian=("hppa",),
        other=("hppa",),
        gdb=("hppa1.1",),
        qemu=("hppa",),
    ),
    bits=32,
    byte_orders=(BIG,),
    char_signed=True,
)
