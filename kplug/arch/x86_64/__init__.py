"""x86_64."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from kplug.arch.types.boundaries import BoundaryRows
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.memory_map import AddressSpace, AddressSpaceFacts
from kplug.arch.types.page_tables import Paging, PagingSources, Tables
from kplug.arch.types.record import (
    Architecture,
    ElfMachine,
    ElfWords,
    Freed,
    InterruptStacks,
    KaslrWindow,
    LeastVmcoreinfo,
    Names,
    Resource,
    SecondSource,
    TypedVariables,
    VectorTable,
)
from kplug.arch.types.registers import Calls, FlagNames, Registers
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


# struct setup_header in struct boot_params, Documentation/arch/x86/boot.rst: the magic, and loadflags.
_SETUP_HEADER, _MAGIC, _LOADFLAGS = 0x202, b"HdrS", 0x211 - 0x202
_KASLR_FLAG = 1 << 1


def _boot_kaslr(address_of: Callable[[str], int | None], read: Callable[[int, int], bytes | None]) -> bool | None:
    """As the kernel's own kaslr_enabled(): the decompressor records in loadflags whether it moved the kernel."""
    address = address_of("boot_params")
    header = read(address + _SETUP_HEADER, _LOADFLAGS + 1) if address is not None else None
    return bool(header[_LOADFLAGS] & _KASLR_FLAG) if header is not None and header.startswith(_MAGIC) else None


def _first_handler(base: int, read: Callable[[int, int], bytes | None]) -> int | None:
    """The handler in gate 0 of the interrupt descriptor table."""
    gate = read(base, 16)
    if gate is None:
        return None
    # Intel SDM vol. 3, "64-Bit Mode IDT": offset bits 0-15, 16-31 and 32-63 at bytes 0, 6 and 8.
    low, middle, high = struct.unpack("<H4xHI4x", gate)
    return int(high << 32 | middle << 16 | low)


def _vmcoreinfo_derived(numbers: Mapping[str, int]) -> Mapping[str, object]:
    level = numbers.get("pgtable_l5_enabled")
    return {"pgtable_l5_enabled": bool(level)} if level in (0, 1) else {}


# The psABI of x86-64, "Program Property".
_LEVELS = ("x86-64-baseline", "x86-64-v2", "x86-64-v3", "x86-64-v4")
PROPERTIES = {
    0xC0000002: ("x86 feature", ("IBT", "SHSTK", "LAM_U48", "LAM_U57")),
    0xC0008002: ("x86 ISA needed", _LEVELS),
    0xC0010002: ("x86 ISA used", _LEVELS),
}
_FREED = "padding between {} and {}; x86 frees these pages after boot"


def _registers() -> Registers:
    from kplug.arch.x86_64.registers import REGISTERS

    return REGISTERS


def _flag_names() -> FlagNames:
    from kplug.arch.x86_64.registers import flag_names

    return flag_names


def _calls() -> Calls:
    from kplug.arch.x86_64.calls import CALLS

    return CALLS


def _paging(sources: PagingSources) -> Paging:
    from kplug.arch.x86_64.paging import paging

    return paging(sources)


def _mapped_page_offset(
    root: int, facts: AddressSpaceFacts, encrypted: int, read: Callable[[int, int], bytes]
) -> int | None:
    from kplug.arch.x86_64.direct_map import mapped_page_offset

    return mapped_page_offset(root, facts, encrypted, read)


def _user_root(root: int, address: int, bits: int, page_size: int, entry_at: Callable[[int], int]) -> int:
    from kplug.arch.x86_64.paging import user_root

    return user_root(root, address, bits, page_size, entry_at)


def _cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    from kplug.arch.x86_64.paging import cpu_tables

    return cpu_tables(register, kernel)


def _machine_code() -> MachineCode:
    from kplug.arch.x86_64.machine_code import MACHINE_CODE

    return MACHINE_CODE


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
    registers=_registers,
    flag_names=_flag_names,
    calls=_calls,
    calls_push=True,
    cpu_tables=_cpu_tables,
    qemu_note=True,
    interrupt_stacks=InterruptStacks(
        # The latter from d7b6d709a76a (6.2) to c6a0918072ea (6.15). irq_init_percpu_irqstack(): to the last word.
        ("hardirq_stack_ptr", "pcpu_hot.hardirq_stack_ptr"),
        at_top=True,
        type="struct irq_stack",
    ),
    saved_stack_pointer="thread.sp",
    entry_area_stacks={
        "DF": "double fault",
        "NMI": "NMI",
        "DB": "debug exception",
        "DB1": "nested debug exception",
        "DB2": "doubly nested debug exception",
        "MCE": "machine check",
        "VC": "#VC",
        "VC2": "#VC fall-back",
    },
    paging=_paging,
    mapped_page_offset=_mapped_page_offset,
    user_root=_user_root,
    cpu_entry_areas=0xFFFFFE0000001000,  # after the page with the IDT
    least_vmcoreinfo=LeastVmcoreinfo(("init_top_pgt", "swapper_pg_dir"), 4096),
    upper_half=True,
    shared_top_table=True,
    image_physical=_image_physical,
    # CONFIG_PHYSICAL_ALIGN is 2 MiB at least, and KASLR moves within KERNEL_IMAGE_SIZE (1 GiB) from __START_KERNEL_map
    # (arch/x86/boot/compressed/kaslr.c, find_random_virt_addr).
    kaslr_window=KaslrWindow(_START_KERNEL_MAP, _START_KERNEL_MAP + (1 << 30), (2 << 20,)),
    vector_table=VectorTable(
        "IDT",
        symbols=("asm_exc_divide_error", "divide_error"),  # the shorter name up to 5.7
        handler=_first_handler,
        # arch/x86/include/asm/cpu_entry_area.h: CPU_ENTRY_AREA_RO_IDT. Page-table isolation maps it for user mode too.
        fixed=0xFFFFFE0000000000,
        monitor=r"^IDT=\s+([0-9a-f]+) [0-9a-f]+",
    ),
    symbol_facts=(
        ("kernel_randomize_memory", "has_randomize_memory", True, False),
        # RANDOMIZE_MEMORY depends on RANDOMIZE_BASE, and both are on or off together in practice.
        ("kernel_randomize_memory", "has_randomize_base", True, None),
        ("map_vsyscall", "has_vsyscall", True, False),
        # A kernel without the variable was built for 4 levels only.
        ("__pgtable_l5_enabled", "pgtable_l5_enabled", None, False),
    ),
    variables=(
        ("page_offset_base", "page_offset_base", 8),
        ("vmalloc_base", "vmalloc_base", 8),
        ("vmemmap_base", "vmemmap_base", 8),
        ("direct_map_physmem_end", "direct_map_physmem_end", 8),  # 6.13 and later
        ("physmem_end", "direct_map_physmem_end", 8),  # its name up to 6.12
        ("max_pfn", "max_pfn", 8),
        ("phys_base", "phys_base", -8),
    ),
    boot_kaslr=_boot_kaslr,
    vmcoreinfo_numbers=("phys_base",),  # arch_crash_save_vmcoreinfo() in machine_kexec_64.c
    vmcoreinfo_facts=(("KERNEL_IMAGE_SIZE", "kernel_image_size"), ("phys_base", "phys_base")),
    vmcoreinfo_derived=_vmcoreinfo_derived,
    second_sources=(  # 6.9 and later
        SecondSource("vmalloc_base", number="VMALLOC_START"),
        SecondSource("vmemmap_base", symbol="vmemmap"),
    ),
    image_start=lambda stext, numbers: stext,  # _stext is _text there
    typed_variables=(
        TypedVariables("unsigned long", "arch/x86/kernel/head64.c", "page_offset_base vmalloc_base vmemmap_base"),
        TypedVariables("unsigned int", "arch/x86/kernel/fpu/init.c, up to 5.15", "fpu_kernel_xstate_size"),
        TypedVariables("int", "arch/x86/kernel/reboot.c", "crashing_cpu"),
        TypedVariables("int", "kernel/fork.c", "arch_task_struct_size"),
        TypedVariables("gate_desc []", "arch/x86/kernel/idt.c", "idt_table"),
        TypedVariables("pteval_t", "arch/x86/mm/init_64.c", "__supported_pte_mask"),
        TypedVariables("pgd_t [512]", "arch/x86/include/asm/pgtable_64.h", "init_top_pgt"),
        TypedVariables("struct irq_stack *", "arch/x86/kernel/irq_64.c, per CPU", "hardirq_stack_ptr"),
        TypedVariables(
            "struct cea_exception_stacks *", "arch/x86/mm/cpu_entry_area.c, per CPU", "cea_exception_stacks"
        ),
    ),
    poison_deltas=(0xDEAD000000000000,),
    fills=(Poison(0xCC, "int3", "padding between functions", "arch/x86/kernel/vmlinux.lds.S", guess=True),),
    kasan_shadow_offset=_kasan_shadow_offset,
    machine_code=_machine_code,
    char_signed=True,
)
