"""s390x: IBM Z, 64-bit."""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.types.boundaries import BoundaryRows, row
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.memory_map import AddressSpace, AddressSpaceFacts
from kplug.arch.types.page_tables import Paging, PagingSources, Tables
from kplug.arch.types.record import (
    BIG,
    Architecture,
    ElfMachine,
    ElfWords,
    KaslrWindow,
    Names,
    SecondSource,
    VectorTable,
)

_SCRIPT = "arch/s390/kernel/vmlinux.lds.S"


def _boundaries() -> BoundaryRows:
    return {
        "text": (
            row(
                "ftrace_hotpatch_trampolines",
                "__ftrace_hotpatch_trampolines_start __ftrace_hotpatch_trampolines_end",
                where=_SCRIPT,
                kernels="5.15-",
            ),
            row("amode31", "_samode31 _eamode31", where=_SCRIPT, kernels="5.15-"),
            row("amode31.text", "_stext_amode31 _etext_amode31", where=_SCRIPT, kernels="5.15-"),
            row(
                "amode31.ex_table",
                "_start_amode31_ex_table _stop_amode31_ex_table",
                where=_SCRIPT,
                kernels="5.15-",
            ),
            row("amode31.refs", "_start_amode31_refs _end_amode31_refs", where=_SCRIPT, kernels="5.15-"),
        ),
        "rodata": (
            row("got", "__got_start __got_end", where=_SCRIPT, kernels="5.10-"),
            row("skey_region", "__skey_region_start __skey_region_end", where=_SCRIPT, kernels="6.18-"),
        ),
        "init": (
            *(
                row(name, f"__{stem}_start __{stem}_end", where=_SCRIPT)
                for name, stem in (
                    ("nospec_call_table", "nospec_call"),
                    ("nospec_return_table", "nospec_return"),
                    ("dynsym", "dynsym"),
                    ("stack_prot", "stack_prot"),
                    ("boot.data", "boot_data"),
                    ("boot.preserved.data", "boot_data_preserved"),
                )
            ),
            row("s390dbf_info", "__s390dbf_info __s390dbf_info_end", where=_SCRIPT, kernels="7.2-"),
        ),
    }


# Where the lowcore has the PSW for program checks; its second half is the address (struct lowcore, program_new_psw).
_PROGRAM_NEW_PSW = 0x1D0


def _program_check(base: int, read: Callable[[int, int], bytes | None]) -> int | None:
    """The handler of program checks."""
    word = read(base + _PROGRAM_NEW_PSW + 8, 8)
    return None if word is None else int.from_bytes(word, BIG)


def _memory_map(facts: AddressSpaceFacts) -> AddressSpace | None:
    from kplug.arch.s390x.memory_map import address_space

    return address_space(facts)


def _paging(sources: PagingSources) -> Paging:
    from kplug.arch.s390x.page_tables import paging

    return paging(sources)


def _absolute(register: Callable[[str], int | None], real: int, room: int) -> tuple[int, int]:
    from kplug.arch.s390x.page_tables import absolute

    return absolute(register("prefix") or 0, real, room)


def _cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    from kplug.arch.s390x.page_tables import cpu_tables

    return cpu_tables(register, kernel)


def _machine_code() -> MachineCode:
    from kplug.arch.s390x.machine_code import MACHINE_CODE

    return MACHINE_CODE


ARCHITECTURE = Architecture(
    name="s390x",
    title="s390x",
    names=Names(
        elf=(ElfMachine(22, 64),),
        kernel="s390",
        uname=("S390X",),  # as QEMU writes it into compressed dumps
        debian=("s390x",),
        other=("s390",),
        drgn="S390X",
        gdb=("s390:64-bit",),
        qemu=("s390x",),
        entry_string=(0x10008, b"S390EP"),  # EP_OFFSET, EP_STRING
        uimage=8,
        fit=("s390",),
    ),
    byte_orders=(BIG,),
    elf=ElfWords(segment_types={0x70000000: "S390_PGSTE"}),
    relative_relocation=12,  # R_390_RELATIVE
    link_alignment=1 << 20,  # TEXT_OFFSET
    telling_symbols=("startup_continue", "pgm_check_handler"),
    boundaries=_boundaries,
    memory_map=_memory_map,
    separate_programs=True,
    paging=_paging,
    cpu_tables=_cpu_tables,
    absolute=_absolute,
    # KASLR moves by multiples of THREAD_SIZE (arch/s390/boot/startup.c), anywhere.
    kaslr_window=KaslrWindow(None, None, (1 << 20, 16 << 10)),
    # The kernel maps each CPU's lowcore at 0.
    vector_table=VectorTable("lowcore", symbols=("pgm_check_handler",), handler=_program_check, fixed=0),
    symbol_facts=(("vm_layout", "image_is_apart", True, False),),
    variables=(
        # struct vm_layout (6.10 and later): kaslr_offset, kaslr_offset_phys, identity_base, identity_size
        ("vm_layout", "page_offset_base", 8, 16),
        ("vm_layout", "identity_size", 8, 24),
        ("vmemmap", "vmemmap_start", 8),
        ("vmemmap_size", "vmemmap_size", 8),
        ("VMALLOC_START", "vmalloc_start", 8),
        ("VMALLOC_END", "vmalloc_end", 8),
        ("MODULES_VADDR", "modules_vaddr", 8),
        ("MODULES_END", "modules_end", 8),
        ("__abs_lowcore", "abs_lowcore", 8),
        ("__memcpy_real_area", "memcpy_real_area", 8),
        ("max_pfn", "max_pfn", 8),
    ),
    second_sources=(  # 6.9 and later
        SecondSource("vmalloc_start", number="VMALLOC_START"),
        SecondSource("vmemmap_start", symbol="vmemmap"),
    ),
    poison_deltas=(0xDEAD000000000000, 0),  # 7.x; all before
    machine_code=_machine_code,
    char_signed=False,
)
