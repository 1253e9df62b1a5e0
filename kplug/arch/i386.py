"""i386: 32-bit x86."""

from __future__ import annotations

from kplug.arch.types.record import Architecture, ElfMachine, Names

ARCHITECTURE = Architecture(
    name="i386",
    title="i386",
    names=Names(
        elf=(ElfMachine(3, 32),),
        kernel="x86",
        uname=("i486", "i586", "i686"),
        debian=("i386",),
        other=("x86", "ia32"),
        drgn="I386",
        gdb=("i386", "i386:intel"),
        qemu=("i386",),
        uimage=3,
        pe=0x14C,
        fit=("x86",),
    ),
    bits=32,
    telling_symbols=("startup_32_smp", "entry_INT80_32"),
    char_signed=True,
)
