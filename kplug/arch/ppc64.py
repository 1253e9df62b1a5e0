"""ppc64: 64-bit POWER, of both byte orders."""

from __future__ import annotations

from kplug.arch.types.record import BIG, LITTLE, Architecture, ElfMachine, Names

ARCHITECTURE = Architecture(
    name="ppc64",
    title="ppc64",
    names=Names(
        elf=(ElfMachine(21, 64),),
        kernel="powerpc",
        uname=("ppc64le",),
        debian=("ppc64el", "ppc64"),
        other=("powerpc64", "powerpc64le"),
        drgn="PPC64",
        gdb=("powerpc:common64",),
        qemu=("ppc64",),
    ),
    byte_orders=(LITTLE, BIG),
    telling_symbols=("start_here_multiplatform", "system_call_common"),
    poison_delta=0x5DEADBEEF0000000,
    char_signed=False,
)
