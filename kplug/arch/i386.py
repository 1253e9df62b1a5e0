"""i386: 32-bit x86."""

from __future__ import annotations

from kplug.arch.types.boundaries import BoundaryRows
from kplug.arch.types.record import Architecture, ElfMachine, ElfWords, Names
from kplug.arch.x86_64 import PROPERTIES


def _boundaries() -> BoundaryRows:
    from kplug.arch.x86_64.boundaries import X86

    return X86


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
    elf=ElfWords(properties=PROPERTIES),
    telling_symbols=("startup_32_smp", "entry_INT80_32"),
    boundaries=_boundaries,
    char_signed=True,
)
