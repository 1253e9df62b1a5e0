"""s390x: IBM Z, 64-bit."""

from __future__ import annotations

from kplug.arch.types.record import BIG, Architecture, ElfMachine, ElfWords, Names

ARCHITECTURE = Architecture(
    name="s390x",
    title="s390x",
    names=Names(
        elf=(ElfMachine(22, 64),),
        kernel="s390",
        debian=("s390x",),
        other=("s390",),
        drgn="S390X",
        gdb=("s390:64-bit",),
        qemu=("s390x",),
        uimage=8,
        fit=("s390",),
    ),
    byte_orders=(BIG,),
    elf=ElfWords(segment_types={0x70000000: "S390_PGSTE"}),
    telling_symbols=("startup_continue", "pgm_check_handler"),
    poison_delta=0xDEAD000000000000,  # 7.x; 0 before
    char_signed=False,
)
