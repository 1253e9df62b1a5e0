"""The two architectures of the fake kernels: where each has its memory, and how it writes a page table's entries.

x86_64: Documentation/arch/x86/x86_64/mm.rst, Intel SDM vol. 3, 4.5. aarch64: arch/arm64/include/asm/memory.h of 6.12,
Arm Architecture Reference Manual, D8.3. Both with 4 KiB pages and 48 bits of virtual address, so four levels of tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import drgn

from support.elf_builder import EM_AARCH64, EM_X86_64

PAGE = 4096
PRESENT, WRITE, LARGE, NO_EXECUTE = 1, 2, 1 << 7, 1 << 63  # x86_64
VALID, TABLE, READ_ONLY, NO_EXECUTES = 1, 2, 1 << 7, 3 << 53  # aarch64

# (physical address, rights such as "r-x", whether the entry is above the lowest level) to an entry that maps memory.
PageEntry = Callable[[int, str, bool], int]


@dataclass(frozen=True)
class Machine:
    """One architecture. `linked` is where the image is linked, `kaslr_offset` how far it was moved, `vmalloc` a place
    in vmalloc's area, `modules` one in the modules' area."""

    name: str
    architecture: drgn.Architecture
    elf: int
    ram: int  # physical
    direct_map: int
    vmemmap: int  # of the first page of RAM
    linked: int
    kaslr_offset: int
    vmalloc: int
    vmalloc_start: int
    modules: int
    page_entry: PageEntry
    table_entry: Callable[[int], int]
    notes: tuple[str, ...]

    @property
    def image(self) -> int:
        """Where the image is."""
        return self.linked + self.kaslr_offset

    def top_entry(self, address: int) -> int:
        """The number of the top table's entry for an address."""
        return address >> 39 & 0x1FF


def _x86_page(physical: int, rights: str, large: bool) -> int:
    entry = physical | PRESENT | (WRITE if "w" in rights else 0) | (0 if "x" in rights else NO_EXECUTE)
    return entry | (LARGE if large else 0)


def _arm_page(physical: int, rights: str, large: bool) -> int:
    entry = physical | VALID | (0 if "w" in rights else READ_ONLY) | (0 if "x" in rights else NO_EXECUTES)
    return entry | (0 if large else TABLE)


X86_64 = Machine(
    name="x86_64",
    architecture=drgn.Architecture.X86_64,
    elf=EM_X86_64,
    ram=0,
    direct_map=0xFFFF888000000000,
    vmemmap=0xFFFFEA0000000000,
    linked=0xFFFFFFFF81000000,
    kaslr_offset=0x2000000,
    vmalloc=0xFFFFC90000100000,
    vmalloc_start=0xFFFFC90000000000,
    modules=0xFFFFFFFFC0100000,
    page_entry=_x86_page,
    table_entry=lambda physical: physical | PRESENT | WRITE,
    notes=("NUMBER(pgtable_l5_enabled)=0", "NUMBER(KERNEL_IMAGE_SIZE)=1073741824"),
)
AARCH64 = Machine(
    name="aarch64",
    architecture=drgn.Architecture.AARCH64,
    elf=EM_AARCH64,
    ram=0x40000000,
    direct_map=0xFFFF000000000000,
    vmemmap=0xFFFFFDFFC0000000,
    linked=0xFFFF800080000000,
    kaslr_offset=0x600000,
    vmalloc=0xFFFF800100100000,
    vmalloc_start=0xFFFF800080000000,
    modules=0xFFFF800010000000,
    page_entry=_arm_page,
    table_entry=lambda physical: physical | VALID | TABLE,
    notes=(
        "NUMBER(VA_BITS)=48",
        "NUMBER(TCR_EL1_T1SZ)=0x10",
        "NUMBER(PHYS_OFFSET)=0x40000000",
        "NUMBER(MODULES_VADDR)=0xffff800000000000",
        "NUMBER(MODULES_END)=0xffff800080000000",
        "NUMBER(VMALLOC_START)=0xffff800080000000",
        "NUMBER(VMALLOC_END)=0xfffffdffbf800000",
        "NUMBER(VMEMMAP_START)=0xfffffdffc0000000",
        "NUMBER(VMEMMAP_END)=0xffffffffc0000000",
    ),
)
MACHINES = (X86_64, AARCH64)
