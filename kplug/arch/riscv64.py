"""riscv64: 64-bit RISC-V."""

from __future__ import annotations

from kplug.arch.types.boundaries import BoundaryRows, row
from kplug.arch.types.record import Architecture, ElfMachine, ElfWords, Names
from kplug.model import TEXT

# RISC-V ELF psABI, "Program Property".
ELF_WORDS = ElfWords(
    mapping_symbols=True,
    properties={0xC0000000: ("RISC-V feature", ("CFI_LP_UNLABELED", "CFI_SS", "CFI_LP_FUNC_SIG"))},
)

_SCRIPT = "arch/riscv/kernel/vmlinux.lds.S"


def boundaries() -> BoundaryRows:
    return {
        "text": (
            row("head.text", "_start _text", cls=TEXT, freed=False, where=_SCRIPT, outside=True),
            row("xiprom", "_xiprom _exiprom", where=_SCRIPT, outside=True),
        ),
        "init": (
            row("alternative", "__alt_start __alt_end", where=_SCRIPT, kernels="5.15-"),
            *(
                row(name, f"__{name}_start __{name}_end", where=_SCRIPT, kernels="5.10-")
                for name in ("soc_early_init_table", "soc_builtin_dtb_table")
            ),
        ),
        "data": (
            # riscv's [_sdata, _edata) holds rodata too; what is written to starts here.
            row("data.rw", "_data _edata", where=_SCRIPT, kernels="5.10-"),
        ),
    }


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
    elf=ELF_WORDS,
    telling_symbols=("relocate_enable_mmu", "handle_exception"),
    boundaries=boundaries,
    poison_delta=0xDEAD000000000000,  # 5.10.y, 6.1 and later
    char_signed=False,
)
