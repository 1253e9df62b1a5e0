"""mips: 32-bit MIPS."""

from __future__ import annotations

from kplug.arch.types.record import BIG, LITTLE, Architecture, ElfMachine, ElfWords, Names

ARCHITECTURE = Architecture(
    name="mips",
    title="mips",
    names=Names(
        elf=(ElfMachine(8, 32),),
        kernel="mips",
        debian=("mips", "mipsel"),
        gdb=("mips",),
        qemu=("mips", "mipsel"),
        uimage=5,
        fit=("mips",),
    ),
    bits=32,
    byte_orders=(LITTLE, BIG),
    elf=ElfWords(segment_types={0x70000000: "REGINFO"}),
    char_signed=True,
)
