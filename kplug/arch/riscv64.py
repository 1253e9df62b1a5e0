"""riscv64: 64-bit RISC-V."""

from __future__ import annotations

from kplug.arch.types.record import Architecture, ElfMachine, ElfWords, Names

ARCHITECTURE = Architecture(
    name="riscv64",
    title="riscv64",
    names=Names(
        elf=(ElfMachine(243, 64),),
        kernel="riscv",
        debian=("riscv64",),
        other=("riscv",),
        drgn="RISCV64",
        gdb=("riscv:rv64", "riscv"),
        qemu=("riscv64",),
        flat_image=b"RSC\x05",
        uimage=26,
        pe=0x5064,
        fit=("riscv",),
    ),
    elf=ElfWords(mapping_symbols=True),
    telling_symbols=("relocate_enable_mmu", "handle_exception"),
    poison_delta=0xDEAD000000000000,  # 5.10.y, 6.1 and later
    char_signed=False,
)
