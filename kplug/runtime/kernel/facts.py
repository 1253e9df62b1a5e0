"""Facts about a kernel's address space, from its memory, its VMCOREINFO and its debug information."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import drgn

from kplug.arch.registry import named
from kplug.errors import TargetError
from kplug.frozen import replace
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.kernel_note import with_vmcoreinfo
from kplug.memory.variables import memory_facts
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.cpus import possible_cpus
from kplug.runtime.kernel.kernel import Kernel
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space

_MAX_ENUMERATORS = 4096
_MAX_SLOT = 1 << 16


@remembered(UNTIL_RESUMED)
def facts_of(kernel: Kernel) -> AddressSpaceFacts:
    """All that is known about the kernel's address space. Takes some tens of small reads of memory.

    Facts that cannot be read, or on which two sources differ, are named in `refused`.
    """
    facts = AddressSpaceFacts()
    refused: list[str] = []
    if kernel.image is not None:
        try:
            facts = memory_facts(kernel.image, kernel.read)
        except TargetError as error:
            refused.append(str(error))
    facts = with_vmcoreinfo(facts, kernel.vmcoreinfo, kernel.machine)
    architecture, top = named(kernel.machine), kernel.vmcoreinfo.symbols.get("swapper_pg_dir")
    if architecture.mapped_page_offset is not None and facts.page_offset_base is None and top is not None:
        encryption = kernel.vmcoreinfo.numbers.get("sme_mask", 0)
        base = architecture.mapped_page_offset(top, facts, encryption, kernel.read_physical)
        facts = replace(facts, page_offset_base=base)
    if kernel.has_types:
        known: dict[str, Any] = {"fixed_addresses": tuple(fixed_addresses(kernel.prog))}
        if architecture.cpu_entry_areas is not None:
            try:
                known.update(_cpu_entry_areas(kernel, architecture.cpu_entry_areas))
            except TargetError as error:
                refused.append(str(error))
        facts = replace(facts, **known)
    return replace(facts, refused=(*facts.refused, *refused))


@remembered(UNTIL_RESUMED)
def space_of(kernel: Kernel) -> AddressSpace | None:
    """The kernel's address space; None if kplug has no table of the architecture."""
    return address_space(kernel.machine, facts_of(kernel))


def fixed_addresses(prog: drgn.Program) -> Iterator[tuple[str, int]]:
    """The names of the fixmap's slots, and their numbers; empty without that type."""
    try:
        enumerators: Sequence[drgn.TypeEnumerator] = prog.type("enum fixed_addresses").enumerators or ()
    except LookupError:
        return
    for enumerator in enumerators[:_MAX_ENUMERATORS]:
        if 0 <= enumerator.value < _MAX_SLOT:
            yield enumerator.name, enumerator.value


def _cpu_entry_areas(kernel: Kernel, first: int) -> dict[str, Any]:
    """The address of each possible CPU's struct cpu_entry_area. TargetError if that cannot be read."""
    prog = kernel.prog
    try:
        area = prog.type("struct cpu_entry_area")
    except LookupError:
        return {}
    if not area.size:
        return {}
    with kernel.reading("the CPUs' entry areas"):
        offset = None
        if "_cea_offset" in prog:  # 6.2 (97e3d26b5e5f), and its backports: in random order, by multiples of the size
            offset = prog["_cea_offset"]
        areas = []
        most_cpus = prog["__per_cpu_offset"].type_.length if "__per_cpu_offset" in prog else 1
        for cpu in possible_cpus(kernel):
            index = cpu if offset is None else helpers.per_cpu(offset, cpu).value_()
            areas.append((cpu, first + index * area.size))
        members = tuple(
            (member.name, member.offset, size)
            for member in area.members or ()
            if member.name and (size := drgn.sizeof(member.type))
        )
    return {
        "cpu_entry_areas": tuple(areas),
        "cpu_entry_area_size": area.size,
        "cpu_entry_area_members": members,
        "most_cpus": most_cpus,
    }
