"""arm: 32-bit ARM."""

from __future__ import annotations

from kplug.arch.types.record import BIG, LITTLE, Architecture, ElfMachine, ElfWords, Names

ARCHITECTURE = Architecture(
    name="arm",
    title="arm",
    names=Names(
        elf=(ElfMachine(40, 32),),
        kernel="arm",
        uname=("armv*",),
        debian=("armhf", "armel"),
        drgn="ARM",
        gdb=("arm", "armv5t", "armv5te", "armv6", "armv7", "armv8-a"),
        qemu=("arm",),
        uimage=2,
        pe=0x1C2,
        fit=("arm",),
    ),
    bits=32,
    byte_orders=(LITTLE, BIG),
    elf=ElfWords(mapping_symbols=True),
    telling_symbols=("__vectors_start", "vector_swi"),
    char_signed=False,
)
