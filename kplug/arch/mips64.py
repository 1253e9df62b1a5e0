"""mips64: 64-bit MIPS."""

from __future__ import annotations

from kplug.arch.types.record import BIG, LITTLE, Architecture, ElfMachine, ElfWords, Names

ARCHITECTURE = Architecture(
    name="mips64",
    title="mips64",
    names=Names(
        elf=(ElfMachine(8, 64),),
        kernel="mips",
        debian=("mips64el", "mips64"),
        gdb=("mips:isa64", "mips:isa64r2", "mips:octeon"),
        qemu=("mips64", "mips64el"),
        uimage=6,
        fit=("mips64",),
    ),
    byte_orders=(LITTLE, BIG),
    elf=ElfWords(segment_types={0x70000000: "REGINFO"}),
    telling_symbols=("handle_sys64",),
    upper_half=True,
    char_signed=True,
)
