"""ppc64: 64-bit POWER, of both byte orders."""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.types.boundaries import BoundaryRows, row
from kplug.arch.types.machine_code import MachineCode
from kplug.arch.types.memory_map import AddressSpace, AddressSpaceFacts
from kplug.arch.types.page_tables import Paging, PagingSources
from kplug.arch.types.record import BIG, LITTLE, Architecture, ElfMachine, Names, SecondSource, VectorTable
from kplug.model import RODATA

_SCRIPT = "arch/powerpc/kernel/vmlinux.lds.S"
_FIXUPS = "barrier_nospec rfi_flush entry_flush uaccess_flush scv_entry_flush stf_entry_barrier stf_exit_barrier"


def boundaries() -> BoundaryRows:
    return {
        "text": (row("head.text", "_stext __head_end", where=_SCRIPT),),
        "rodata": (
            *(
                row(
                    f"{name}",
                    f"__start___{name} __stop___{name}",
                    cls=RODATA,
                    freed=False,
                    ro=True,
                    where=_SCRIPT,
                )
                for name in ("soft_mask_table", "restart_table", *(f"{fixup}_fixup" for fixup in _FIXUPS.split()))
            ),
            row(
                "btb_flush_fixup",
                "__start__btb_flush_fixup __stop__btb_flush_fixup",
                cls=RODATA,
                freed=False,
                ro=True,
                where=_SCRIPT,
            ),
        ),
        "init": (
            *(
                row(name, f"__start___{name} __stop___{name}", where=_SCRIPT)
                for name in ("ftr_fixup", "mmu_ftr_fixup", "lwsync_fixup", "fw_ftr_fixup")
            ),
            row("machine.desc", "__machine_desc_start __machine_desc_end", where=_SCRIPT),
        ),
    }


_PAGE_OFFSET = 0xC000000000000000  # CONFIG_PAGE_OFFSET
_DATA_ACCESS = 0x4300  # of the vectors for translation on (arch/powerpc/kernel/exceptions-64s.S)


def _data_access(base: int, read: Callable[[int, int], bytes | None]) -> int | None:
    """The vector of data storage interrupts, which is its own handler's code."""
    return None if read(base + _DATA_ACCESS, 4) is None else base + _DATA_ACCESS


def _memory_map(facts: AddressSpaceFacts) -> AddressSpace:
    from kplug.arch.ppc64.memory_map import address_space

    return address_space(facts)


def _paging(sources: PagingSources) -> Paging:
    from kplug.arch.ppc64.page_tables import paging

    return paging(sources)


def _machine_code() -> MachineCode:
    from kplug.arch.ppc64.machine_code import MACHINE_CODE

    return MACHINE_CODE


ARCHITECTURE = Architecture(
    name="ppc64",
    title="ppc64",
    names=Names(
        elf=(ElfMachine(21, 64),),
        kernel="powerpc",
        uname=("ppc64le",),
        debian=("ppc64el", "ppc64"),
        other=("powerpc64", "powerpc64le"),
        drgn="PPC64",
        gdb=("powerpc:common64",),
        qemu=("ppc64",),
    ),
    byte_orders=(LITTLE, BIG),
    telling_symbols=("start_here_multiplatform", "system_call_common"),
    boundaries=boundaries,
    memory_map=_memory_map,
    paging=_paging,
    vector_table=VectorTable(
        "vectors", symbols=("exc_virt_0x4300_data_access",), handler=_data_access, fixed=_PAGE_OFFSET
    ),
    symbol_facts=(("__vmalloc_start", "is_server", True, False),),
    variables=(("__vmalloc_start", "vmalloc_start", 8), ("max_pfn", "max_pfn", 8)),
    vmcoreinfo_derived=lambda numbers: {"radix": bool(numbers["RADIX_MMU"])} if "RADIX_MMU" in numbers else {},  # 6.7
    second_sources=(SecondSource("vmalloc_start", number="VMALLOC_START"),),  # 6.9 and later
    poison_deltas=(0x5DEADBEEF0000000,),
    linear_map=_PAGE_OFFSET,
    upper_half=True,
    machine_code=_machine_code,
    char_signed=False,
)
