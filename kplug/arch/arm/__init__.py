"""arm: 32-bit ARM."""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.types.boundaries import BoundaryRows, row
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.memory_map import AddressSpace, AddressSpaceFacts
from kplug.arch.types.page_tables import Paging, PagingSources, Tables
from kplug.arch.types.record import BIG, LITTLE, Architecture, ElfMachine, ElfWords, Names, VectorTable
from kplug.model import DATA, RODATA, TEXT

_SCRIPT = "arch/arm/kernel/vmlinux.lds.S"


def _boundaries() -> BoundaryRows:
    return {
        "text": (
            # STRICT_KERNEL_RWX leaves what is below _stext writable, and makes it no code (arch/arm/mm/init.c).
            row("head.text", "_text _stext", cls=TEXT, freed=False, ro=False, where=_SCRIPT),
            row("proc.info", "__proc_info_begin __proc_info_end", where="arch/arm/include/asm/vmlinux.lds.h"),
            row("text_itcm", "__sitcm_text __eitcm_text", cls=TEXT, where=_SCRIPT, outside=True),
            row("data_dtcm", "__sdtcm_data __edtcm_data", cls=DATA, where=_SCRIPT, outside=True),
            row("xiprom", "_xiprom _exiprom", where=_SCRIPT, outside=True),
        ),
        "rodata": (
            *(
                row(
                    f"ARM.unwind_{part}",
                    f"__start_unwind_{part} __stop_unwind_{part}",
                    cls=RODATA,
                    freed=False,
                    ro=True,
                    where="arch/arm/include/asm/vmlinux.lds.h",
                )
                for part in ("idx", "tab")
            ),
        ),
        "init": (
            *(
                row(name, f"__{stem}_begin __{stem}_end", where=_SCRIPT)
                for name, stem in (
                    ("arch.info.init", "arch_info"),
                    ("taglist.init", "tagtable"),
                    ("alt.smp.init", "smpalt"),
                    ("pv_table", "pv_table"),
                )
            ),
            row("vectors", "__vectors_start __vectors_end", where=_SCRIPT),
            row("stubs", "__stubs_start __stubs_end", where=_SCRIPT),
        ),
    }


# The vector for system calls jumps to the address in the first word of the page after the vectors (__vectors_start and
# __stubs_start in arch/arm/kernel/entry-armv.S).
_STUBS = 0x1000


def _system_call(base: int, read: Callable[[int, int], bytes | None]) -> int | None:
    """The handler of system calls."""
    word = read(base + _STUBS, 4)
    return None if word is None else int.from_bytes(word, LITTLE)


def _memory_map(facts: AddressSpaceFacts) -> AddressSpace:
    from kplug.arch.arm.memory_map import address_space

    return address_space(facts)


def _paging(sources: PagingSources) -> Paging:
    from kplug.arch.arm.page_tables import paging

    return paging(sources)


def _cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    from kplug.arch.arm.page_tables import cpu_tables

    return cpu_tables(register, kernel)


def _machine_code() -> MachineCode:
    from kplug.arch.arm.machine_code import MACHINE_CODE

    return MACHINE_CODE


ARCHITECTURE = Architecture(
    name="arm",
    title="arm",
    names=Names(
        elf=(ElfMachine(40, 32),),
        kernel="arm",
        uname=("armv*",),
        debian=("armhf", "armel"),
        drgn="ARM",
        gdb=("arm", "armv5t", "armv5te", "armv6", "armv7", "armv8-a"),
        qemu=("arm",),
        zimage=0x016F2818,
        uimage=2,
        pe=0x1C2,
        fit=("arm",),
    ),
    bits=32,
    byte_orders=(LITTLE, BIG),
    elf=ElfWords(mapping_symbols=True),
    telling_symbols=("__vectors_start", "vector_swi"),
    boundaries=_boundaries,
    memory_map=_memory_map,
    paging=_paging,
    vmaps_in_direct_map=True,  # dma_contiguous_remap(): the memory of CMA
    shared_top_table=True,
    cpu_methods=True,
    cpu_tables=_cpu_tables,
    vector_table=VectorTable(
        "vectors",
        symbols=("vector_swi",),
        handler=_system_call,
        fixed=0xFFFF0000,  # CONFIG_VECTORS_BASE of all that have an MMU
    ),
    symbol_facts=(("pkmap_page_table", "has_highmem", True, False),),
    variables=(("high_memory", "high_memory", 4),),
    vmcoreinfo_facts=(("VMALLOC_START", "vmalloc_start"),),  # 6.9 and later
    poison_deltas=(0,),
    linear_map=0xC0000000,  # CONFIG_PAGE_OFFSET; rarely something else (CONFIG_VMSPLIT_...)
    machine_code=_machine_code,
    char_signed=False,
)
