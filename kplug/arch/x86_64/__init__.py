"""x86_64."""

from __future__ import annotations

from kplug.arch.types.boundaries import BoundaryRows
from kplug.arch.types.memory_map import AddressSpace, AddressSpaceFacts
from kplug.arch.types.record import Architecture, ElfMachine, ElfWords, Freed, Names, Resource
from kplug.arch.types.special_values import Poison

_START_KERNEL_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map (arch/x86/include/asm/page_64_types.h)


def _memory_map(facts: AddressSpaceFacts) -> AddressSpace:
    from kplug.arch.x86_64.memory_map import address_space

    return address_space(facts)


def _boundaries() -> BoundaryRows:
    from kplug.arch.x86_64.boundaries import ROWS

    return ROWS


def _image_physical(address: int, facts: AddressSpaceFacts) -> int | None:
    return None if facts.phys_base is None else address - _START_KERNEL_MAP + facts.phys_base


def _kasan_shadow_offset(_: AddressSpaceFacts) -> int:
    return 0xDFFFFC0000000000  # arch/x86/Kconfig


# The psABI of x86-64, "Program Property".
_LEVELS = ("x86-64-baseline", "x86-64-v2", "x86-64-v3", "x86-64-v4")
PROPERTIES = {
    0xC0000002: ("x86 feature", ("IBT", "SHSTK", "LAM_U48", "LAM_U57")),
    0xC0008002: ("x86 ISA needed", _LEVELS),
    0xC0010002: ("x86 ISA used", _LEVELS),
}
_FREED = "padding between {} and {}; x86 frees these pages after boot"

ARCHITECTURE = Architecture(
    name="x86_64",
    title="x86_64",
    names=Names(
        elf=(ElfMachine(62, 64),),
        kernel="x86",
        uname=("amd64",),
        debian=("amd64",),
        other=("x86-64",),
        drgn="X86_64",
        gdb=("i386:x86-64", "i386:x86-64:intel"),
        qemu=("x86_64",),
        uimage=24,
        pe=0x8664,
        fit=("x86_64",),
    ),
    elf=ElfWords(flag_letters={0x10000000: "l"}, properties=PROPERTIES),  # SHF_X86_64_LARGE
    telling_symbols=("startup_64", "entry_SYSCALL_64"),
    build_numbers=("phys_startup_64", "phys_startup_32"),
    # mark_rodata_ro() in arch/x86/mm/init_64.c
    freed_gaps=tuple(Freed(*pair, _FREED.format(*pair)) for pair in (("text", "rodata"), ("rodata", "data"))),
    percpu_at_zero=True,
    # setup_arch() in arch/x86/kernel/setup.c. Kernels that have no rodata there begin their data at _etext (4.19).
    iomem=(
        Resource("Kernel code", "_text", "_etext"),
        Resource("Kernel rodata", "__start_rodata", "__end_rodata", required=True),
        Resource("Kernel data", "_sdata", "_edata"),
        Resource("Kernel bss", "__bss_start", "__bss_stop"),
    ),
    boundaries=_boundaries,
    memory_map=_memory_map,
    image_physical=_image_physical,
    poison_delta=0xDEAD000000000000,
    fills=(Poison(0xCC, "int3", "padding between functions", "arch/x86/kernel/vmlinux.lds.S", guess=True),),
    kasan_shadow_offset=_kasan_shadow_offset,
    char_signed=True,
)
