"""loongarch64: 64-bit LoongArch."""

from __future__ import annotations

from kplug.arch.types.record import Architecture, ElfMachine, Names

ARCHITECTURE = Architecture(
    name="loongarch64",
    title="loongarch64",
    names=Names(
        elf=(ElfMachine(258, 64),),
        kernel="loongarch",
        debian=("loong64",),
        other=("loongarch",),
        drgn="LOONGARCH64",
        gdb=("Loongarch64",),
        qemu=("loongarch64",),
        pe=0x6264,
    ),
    telling_symbols=("kernel_entry_end", "handle_sys"),
    char_signed=True,
)
