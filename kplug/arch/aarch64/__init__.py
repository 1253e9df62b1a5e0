"""aarch64, which the kernel's sources call arm64."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kplug.arch.types.boundaries import BoundaryRows
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.memory_map import AddressSpace, AddressSpaceFacts
from kplug.arch.types.page_tables import Paging, PagingSources, Translator
from kplug.arch.types.record import (
    BIG,
    LITTLE,
    Architecture,
    ElfMachine,
    ElfWords,
    InterruptStacks,
    KaslrWindow,
    Names,
    Resource,
    TypedVariables,
    VariableStack,
    VectorTable,
)
from kplug.arch.types.registers import Calls, FlagNames, Registers


def _memory_map(facts: AddressSpaceFacts) -> AddressSpace:
    from kplug.arch.aarch64.memory_map import address_space

    return address_space(facts)


def _boundaries() -> BoundaryRows:
    from kplug.arch.aarch64.boundaries import ROWS

    return ROWS


def _image_physical(address: int, facts: AddressSpaceFacts) -> int | None:
    return None if facts.kimage_voffset is None else address - facts.kimage_voffset


# By VA_BITS, with 48 and 52 as the default (arch/arm64/Kconfig).
_KASAN_SHADOW_OFFSETS = {
    36: 0xDFFFFFF800000000,
    39: 0xDFFFFFC000000000,
    42: 0xDFFFFE0000000000,
    47: 0xDFFFC00000000000,
}


def _kasan_shadow_offset(facts: AddressSpaceFacts) -> int:
    return _KASAN_SHADOW_OFFSETS.get(facts.va_bits or 0, 0xDFFF800000000000)


def _vmcoreinfo_derived(numbers: Mapping[str, int]) -> Mapping[str, object]:
    size = numbers.get("TCR_EL1_T1SZ")
    return {"vabits_actual": 64 - size} if size is not None else {}


def _image_start(stext: int, numbers: Mapping[str, int]) -> int | None:
    """The image is linked at the end of the modules' area; the text follows its header."""
    modules_end = numbers.get("MODULES_END")
    return modules_end if modules_end is not None and 0 <= stext - modules_end <= 1 << 16 else None


def _registers() -> Registers:
    from kplug.arch.aarch64.registers import REGISTERS

    return REGISTERS


def _flag_names() -> FlagNames:
    from kplug.arch.aarch64.registers import flag_names

    return flag_names


def _calls() -> Calls:
    from kplug.arch.aarch64.calls import CALLS

    return CALLS


def _paging(sources: PagingSources) -> Paging:
    from kplug.arch.aarch64.paging import paging

    return paging(sources)


def _cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Translator | None:
    from kplug.arch.aarch64.paging import cpu_tables

    return cpu_tables(register, kernel)


def _machine_code() -> MachineCode:
    from kplug.arch.aarch64.machine_code import MACHINE_CODE

    return MACHINE_CODE


ARCHITECTURE = Architecture(
    name="aarch64",
    title="arm64",
    names=Names(
        elf=(ElfMachine(183, 64),),
        kernel="arm64",
        uname=("aarch64_be",),
        debian=("arm64",),
        drgn="AARCH64",
        gdb=("aarch64",),
        qemu=("aarch64",),
        flat_image=b"ARM\x64",
        uimage=22,
        pe=0xAA64,
        fit=("arm64",),
    ),
    byte_orders=(LITTLE, BIG),
    elf=ElfWords(
        segment_types={0x70000002: "AARCH64_MEMTAG_MTE"},
        mapping_symbols=True,
        properties={0xC0000000: ("AArch64 feature", ("BTI", "PAC", "GCS"))},  # ELF for the Arm 64-bit Architecture
    ),
    flat_image_page_sizes={1: 1 << 12, 2: 1 << 14, 3: 1 << 16},  # Documentation/arch/arm64/booting.rst
    relative_relocation=0x403,  # R_AARCH64_RELATIVE
    telling_symbols=("__primary_switched", "primary_entry", "el1_sync", "el1t_64_sync_handler"),
    build_numbers=("text_size", "_kernel_flags_le_lo32", "PECOFF_FILE_ALIGNMENT"),
    vmcoreinfo_numbers=("kimage_voffset",),  # 4.17, arch_crash_save_vmcoreinfo()
    # arch/arm64/kernel/setup.c: its code begins at _stext or at _text.
    iomem=(
        Resource("Kernel code", None, "__init_begin"),
        Resource("Kernel data", "_sdata", "_end"),
    ),
    boundaries=_boundaries,
    memory_map=_memory_map,
    registers=_registers,
    flag_names=_flag_names,
    calls=_calls,
    interrupt_stacks=InterruptStacks(("irq_stack_ptr",)),
    saved_stack_pointer="thread.cpu_context.sp",
    variable_stacks=(
        # The stack that a CPU switches to after a stack overflow (CONFIG_VMAP_STACK).
        VariableStack("overflow_stack", "overflow", "overflow"),
        # For firmware events, which only some machines have (CONFIG_ARM_SDE_INTERFACE; SDEI_STACK_SIZE).
        VariableStack("sdei_stack_normal_ptr", "sdei", "SDEI", is_pointer=True),
        VariableStack("sdei_stack_critical_ptr", "sdei", "SDEI critical", is_pointer=True),
    ),
    paging=_paging,
    cpu_tables=_cpu_tables,
    upper_half=True,
    image_physical=_image_physical,
    # The offset is a multiple of 2 MiB within a quarter of the address space; firmware may load the image at any
    # multiple of 64 KiB, which then also shows in the virtual address (Documentation/arch/arm64/booting.rst; kaslr.c).
    kaslr_window=KaslrWindow(None, None, (2 << 20, 64 << 10)),
    vector_table=VectorTable(
        "VBAR_EL1", symbols=("vectors",), handler=lambda base, _: base or None, registers=("VBAR_EL1", "VBAR")
    ),
    symbol_facts=(("early_init_stack", "has_early_init_stack", True, False),),
    variables=(
        ("vabits_actual", "vabits_actual", 8),  # up to 6.8
        ("kimage_voffset", "kimage_voffset", 8),
        ("memstart_addr", "phys_offset", -8),
        ("max_pfn", "max_pfn", 8),
    ),
    vmcoreinfo_facts=(
        ("VA_BITS", "va_bits"),
        ("MODULES_VADDR", "modules_vaddr"),  # this and the next five: 5.19 and later
        ("MODULES_END", "modules_end"),
        ("VMALLOC_START", "vmalloc_start"),
        ("VMALLOC_END", "vmalloc_end"),
        ("VMEMMAP_START", "vmemmap_start"),
        ("VMEMMAP_END", "vmemmap_end"),
        ("KERNELPACMASK", "kernel_pac_mask"),
        ("kimage_voffset", "kimage_voffset"),
        ("PHYS_OFFSET", "phys_offset"),
    ),
    vmcoreinfo_derived=_vmcoreinfo_derived,
    image_start=_image_start,
    typed_variables=(
        TypedVariables("u64", "arch/arm64/mm/mmu.c", "kimage_voffset"),
        TypedVariables("s64", "arch/arm64/mm/init.c", "memstart_addr"),
        TypedVariables("pgd_t []", "arch/arm64/include/asm/pgtable.h", "swapper_pg_dir idmap_pg_dir tramp_pg_dir"),
    ),
    poison_deltas=(0xDEAD000000000000,),
    read_only=("rodata", "init"),  # mark_rodata_ro(), arch/arm64/mm/mmu.c
    kasan_shadow_offset=_kasan_shadow_offset,
    top_byte_tags=True,
    signed_pointers=True,
    machine_code=_machine_code,
    char_signed=False,
)
