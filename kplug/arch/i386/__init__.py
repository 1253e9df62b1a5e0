"""i386: 32-bit x86."""

from __future__ import annotations

import struct
from collections.abc import Callable

from kplug.arch.types.boundaries import BoundaryRows
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.memory_map import AddressSpace, AddressSpaceFacts
from kplug.arch.types.page_tables import Paging, PagingSources, Tables
from kplug.arch.types.record import Architecture, ElfMachine, ElfWords, KaslrWindow, Names, VectorTable
from kplug.arch.x86_64 import PROPERTIES


def _boundaries() -> BoundaryRows:
    from kplug.arch.x86_64.boundaries import X86

    return X86


def _first_handler(base: int, read: Callable[[int, int], bytes | None]) -> int | None:
    """The handler in gate 0 of the interrupt descriptor table."""
    gate = read(base, 8)
    if gate is None:
        return None
    low, high = struct.unpack("<H4xH", gate)  # Intel SDM vol. 3, "IDT Descriptors"
    return int(high << 16 | low)


def _memory_map(facts: AddressSpaceFacts) -> AddressSpace:
    from kplug.arch.i386.memory_map import address_space

    return address_space(facts)


def _paging(sources: PagingSources) -> Paging:
    from kplug.arch.i386.page_tables import paging

    return paging(sources)


def _cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    from kplug.arch.i386.page_tables import cpu_tables

    return cpu_tables(register, kernel)


_PAGE_OFFSET = 0xC0000000  # CONFIG_PAGE_OFFSET; rarely something else (CONFIG_VMSPLIT_...)


def _machine_code() -> MachineCode:
    from kplug.arch.x86_64.machine_code import MACHINE_CODE_32

    return MACHINE_CODE_32


ARCHITECTURE = Architecture(
    name="i386",
    title="i386",
    names=Names(
        elf=(ElfMachine(3, 32),),
        kernel="x86",
        uname=("i486", "i586", "i686"),
        debian=("i386",),
        other=("x86", "ia32"),
        drgn="I386",
        gdb=("i386", "i386:intel"),
        qemu=("i386",),
        uimage=3,
        pe=0x14C,
        fit=("x86",),
    ),
    bits=32,
    elf=ElfWords(properties=PROPERTIES),
    telling_symbols=("startup_32_smp", "entry_INT80_32"),
    boundaries=_boundaries,
    memory_map=_memory_map,
    # KASLR moves within KERNEL_IMAGE_SIZE (512 MiB, arch/x86/include/asm/page_32_types.h), physically and virtually.
    kaslr_window=KaslrWindow(_PAGE_OFFSET, _PAGE_OFFSET + (512 << 20), (2 << 20,)),
    paging=_paging,
    cpu_entry_areas=0,
    shared_top_table=True,
    cpu_tables=_cpu_tables,
    vector_table=VectorTable(
        "IDT",
        symbols=("asm_exc_divide_error", "divide_error"),  # the shorter name up to 5.7
        handler=_first_handler,
        monitor=r"^IDT=\s+([0-9a-f]+) [0-9a-f]+",
    ),
    symbol_facts=(("pkmap_page_table", "has_highmem", True, False), ("initial_pg_pmd", "pae", True, False)),
    variables=(("high_memory", "high_memory", 4), ("__FIXADDR_TOP", "fixaddr_top", 4)),
    vmcoreinfo_facts=(("VMALLOC_START", "vmalloc_start"),),  # 6.9 and later
    poison_deltas=(0,),
    linear_map=_PAGE_OFFSET,
    machine_code=_machine_code,
    char_signed=True,
)
