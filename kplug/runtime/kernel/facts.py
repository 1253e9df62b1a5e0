"""What a kernel's memory, its VMCOREINFO and its debug information tell of its address space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import drgn
from drgn.helpers.linux.percpu import per_cpu

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_MOVED, remembered
from kplug.memory.kernel_note import with_vmcoreinfo
from kplug.memory.variables import memory_facts
from kplug.runtime.kernel.cpus import possible_cpus
from kplug.runtime.kernel.kernel import Kernel, reading
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space

_MAX_ENUMERATORS = 4096
_MAX_SLOT = 1 << 16
_CPU_ENTRY_AREA_PER_CPU = 0xFFFFFE0000001000  # behind the page with the IDT


@remembered(UNTIL_MOVED)
def facts_of(kernel: Kernel) -> AddressSpaceFacts:
    """All that is known of the kernel's address space. Reads memory: some tens of small reads.

    What cannot be read, and what two sources tell differently, is named in the facts' `refused`.
    """
    facts = AddressSpaceFacts()
    refused: list[str] = []
    if kernel.image is not None:
        try:
            facts = memory_facts(kernel.image, kernel.read)
        except TargetError as error:
            refused.append(str(error))
    facts = with_vmcoreinfo(facts, kernel.vmcoreinfo, kernel.machine)
    if kernel.machine == "x86_64" and facts.page_offset_base is None:
        facts = replace(facts, page_offset_base=_mapped_page_offset(kernel, facts))
    if kernel.has_types:
        known: dict[str, Any] = {"fixed_addresses": tuple(fixed_addresses(kernel.prog))}
        if kernel.machine == "x86_64":
            try:
                known.update(_cpu_entry_areas(kernel))
            except TargetError as error:
                refused.append(str(error))
        facts = replace(facts, **known)
    return replace(facts, refused=(*facts.refused, *refused))


@remembered(UNTIL_MOVED)
def space_of(kernel: Kernel) -> AddressSpace | None:
    """The kernel's address space; None where kplug has no table of the architecture."""
    return address_space(kernel.machine, facts_of(kernel))


# Entries of x86's page tables.
_PRESENT, _LARGE, _FRAME = 1, 1 << 7, 0x000FFFFFFFFFF000
_START_KERNEL_MAP = 0xFFFFFFFF80000000


def _mapped_page_offset(kernel: Kernel, facts: AddressSpaceFacts) -> int | None:
    """page_offset_base, from what the kernel's page tables map: the direct map is the lowest of the kernel's areas that
    they do, and what it maps is as far from its physical address everywhere. None where they cannot be read.
    """
    root = kernel.vmcoreinfo.symbols.get("swapper_pg_dir")
    if root is None or facts.phys_base is None or facts.pgtable_l5_enabled is None:
        return None
    encrypted = kernel.vmcoreinfo.numbers.get("sme_mask", 0)
    levels = 5 if facts.pgtable_l5_enabled else 4
    shift = 12 + 9 * (levels - 1)
    table, address = root - _START_KERNEL_MAP + facts.phys_base, ((1 << 64) - 1) << (shift + 9) & (1 << 64) - 1
    first = 256 + 17  # behind the guard hole and the LDT remap, with 4 and with 5 levels
    while True:
        try:
            entries = memoryview(kernel.read_physical(table, 4096)).cast("Q")
        except TargetError:
            return None
        index = next((index for index in range(first, 512) if entries[index] & _PRESENT), None)
        if index is None:
            return None
        address |= index << shift
        frame = entries[index] & _FRAME & ~encrypted
        if shift == 12 or (shift < 39 and entries[index] & _LARGE):
            base = address - (frame >> shift << shift)
            return base if base % (1 << 30) == 0 else None
        table, shift, first = frame, shift - 9, 0


def fixed_addresses(prog: drgn.Program) -> Iterator[tuple[str, int]]:
    """The names of the fixmap's slots, and their numbers; none without that type."""
    try:
        enumerators: Sequence[drgn.TypeEnumerator] = prog.type("enum fixed_addresses").enumerators or ()
    except LookupError:
        return
    for enumerator in enumerators[:_MAX_ENUMERATORS]:
        if 0 <= enumerator.value < _MAX_SLOT:
            yield enumerator.name, enumerator.value


def _cpu_entry_areas(kernel: Kernel) -> dict[str, Any]:
    """Where each possible CPU has its struct cpu_entry_area. TargetError if that cannot be read."""
    prog = kernel.prog
    try:
        area = prog.type("struct cpu_entry_area")
    except LookupError:
        return {}
    if not area.size:
        return {}
    with reading("the CPUs' entry areas"):
        offset = None
        if "_cea_offset" in prog:  # 6.2 (97e3d26b5e5f), and its backports: in random order, by multiples of the size
            offset = prog["_cea_offset"]
        areas = []
        for cpu in possible_cpus(kernel):
            index = cpu if offset is None else per_cpu(offset, cpu).value_()
            areas.append((cpu, _CPU_ENTRY_AREA_PER_CPU + index * area.size))
        members = tuple(
            (member.name, member.offset, size)
            for member in area.members or ()
            if member.name and (size := drgn.sizeof(member.type))
        )
    return {
        "cpu_entry_areas": tuple(areas),
        "cpu_entry_area_size": area.size,
        "cpu_entry_area_members": members,
    }
