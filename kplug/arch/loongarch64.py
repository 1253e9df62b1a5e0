"""loongarch64: 64-bit LoongArch."""

from __future__ import annotations

from kplug.arch.types.boundaries import BoundaryRows, row
from kplug.arch.types.record import Architecture, ElfMachine, Names
from kplug.model import TEXT

_SCRIPT = "arch/loongarch/kernel/vmlinux.lds.S"


def _boundaries() -> BoundaryRows:
    return {
        "text": (row("head.text", "_text _stext", cls=TEXT, freed=False, ro=True, where=_SCRIPT),),
    }


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
    relative_relocation=3,  # R_LARCH_RELATIVE
    telling_symbols=("kernel_entry_end", "handle_sys"),
    boundaries=_boundaries,
    upper_half=True,
    char_signed=True,
)
