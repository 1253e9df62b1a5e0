"""The virtual memory map of i386: arch/x86/include/asm/pgtable_32_areas.h and fixmap.h, the same since 4.20.

From the top down: the fixmap, the CPUs' entry areas, a page table for LDTs, pkmap, vmalloc. The first two are as large
as the configuration makes them, which only debug information tells. Memory (lowmem) is mapped from PAGE_OFFSET on, up
to `high_memory`.
"""

from __future__ import annotations

from collections.abc import Iterator

from kplug.arch.types.memory_map import (
    CPU_ENTRY_AREA,
    DIRECT_MAP,
    FIXMAP,
    LOWMEM,
    SLOTS_END,
    USER,
    VMALLOC,
    AddressSpace,
    AddressSpaceFacts,
    Area,
    fixmap_parts,
    permanent_slots,
    whole,
)

_BITS, _PAGE = 32, 4096
_PAGE_OFFSETS = (0x40000000, 0x78000000, 0x80000000, 0xB0000000, 0xC0000000)  # CONFIG_VMSPLIT_...
_USUAL_PAGE_OFFSET = _PAGE_OFFSETS[-1]
_VMALLOC_OFFSET = 8 << 20
_FIXADDR_TOP = 0xFFFFF000  # as compiled; a hypervisor may reserve what is above (reserve_top_address())
_IDT = _PAGE


def address_space(facts: AddressSpaceFacts) -> AddressSpace:
    """The map of an i386 kernel."""
    page_offset = page_offset_of(facts)
    split = page_offset or _USUAL_PAGE_OFFSET
    source = f"i386 layout, PAGE_OFFSET {split:#x}"
    source += " from the link address of _text" if page_offset else " (assumed)"
    top = facts.fixaddr_top
    if top is None or not _is_fixaddr_top(top):
        top = _FIXADDR_TOP
    claims = [
        Area("user", 0, split, source, kind=USER),
        *_fixmap(facts, top),
        *_below_the_fixmap(facts, split, top, source),
    ]
    warnings = [*facts.refused, *_refused(facts, split)]
    description = f"i386, PAGE_OFFSET {split:#x}{'' if page_offset else ' (assumed)'}"
    return AddressSpace("i386", whole(claims, _BITS), description, facts, top, _PAGE, tuple(warnings))


def page_offset_of(facts: AddressSpaceFacts) -> int | None:
    """PAGE_OFFSET: the image is linked at less than 256 MiB above it (CONFIG_PHYSICAL_START)."""
    start = facts.image_start
    below = [offset for offset in _PAGE_OFFSETS if start is not None and offset <= start < offset + (256 << 20)]
    return below[-1] if below else None


def _is_fixaddr_top(top: int) -> bool:
    return top % _PAGE == 0 and 0xF0000000 <= top <= _FIXADDR_TOP


def _refused(facts: AddressSpaceFacts, split: int) -> Iterator[str]:
    if facts.fixaddr_top is not None and not _is_fixaddr_top(facts.fixaddr_top):
        yield f"__FIXADDR_TOP is {facts.fixaddr_top:#x}, which is impossible: it is not used"
    if facts.high_memory is not None and _high_memory(facts, split) is None:
        yield f"high_memory is {facts.high_memory:#x}, which is impossible with PAGE_OFFSET {split:#x}: it is not used"


def _high_memory(facts: AddressSpaceFacts, split: int) -> int | None:
    high = facts.high_memory
    if high is None and facts.vmalloc_start is not None:
        high = facts.vmalloc_start - _VMALLOC_OFFSET
    return high if high is not None and split < high < 0xFF000000 and high % _PAGE == 0 else None


def _fixmap(facts: AddressSpaceFacts, top: int) -> Iterator[Area]:
    """The fixmap, and below it the slots for early boot; nothing where the number of slots is not known."""
    permanent, slots = permanent_slots(facts), dict(facts.fixed_addresses).get(SLOTS_END)
    if permanent is None or slots is None or not 0 < permanent <= slots < 1 << 14:
        return
    parts, start = fixmap_parts(facts, top, _PAGE), top - permanent * _PAGE
    yield Area(FIXMAP, start, top, "FIXADDR_START", parts=parts)
    if slots > permanent:
        details = {"note": "slots that are used early in boot: early_ioremap()"}
        yield Area(f"early {FIXMAP}", top - slots * _PAGE, start, "enum fixed_addresses", details=details, parts=parts)


def _below_the_fixmap(facts: AddressSpaceFacts, split: int, top: int, source: str) -> Iterator[Area]:
    """All from PAGE_OFFSET to the fixmap."""
    slots, size, cpus = dict(facts.fixed_addresses).get(SLOTS_END), facts.cpu_entry_area_size, facts.most_cpus
    has_highmem = facts.has_highmem
    above = [*(("pkmap",) if has_highmem is not False else ()), "LDT remap", CPU_ENTRY_AREA]
    vmalloc_end = None
    if slots and size and cpus and facts.pae is not None:
        pmd = 2 << 20 if facts.pae else 4 << 20
        pages = cpus * -(-size // _PAGE)
        area = (top - slots * _PAGE - _PAGE * (pages + 1)) // pmd * pmd
        ldt = (area - _PAGE) // pmd * pmd
        yield _cpu_entry_area(facts, area, area + (pages + 1) * _PAGE, size)
        note = "the LDT of a program, under page-table isolation"
        yield Area("LDT remap", ldt, ldt + pmd, source, details={"note": note})
        lowest = ldt
        if has_highmem:
            lowest = (ldt - _PAGE) // pmd * pmd
            yield Area("pkmap", lowest, lowest + pmd, source, details={"note": "kmap() of pages above lowmem"})
        if has_highmem is not None:
            vmalloc_end = lowest - 2 * _PAGE
    slots_start = top - slots * _PAGE if slots else top
    yield from _lowmem_and_vmalloc(facts, split, vmalloc_end, slots_start, above if slots else [*above, FIXMAP], source)


def _lowmem_and_vmalloc(
    facts: AddressSpaceFacts, split: int, vmalloc_end: int | None, upper: int, above: list[str], source: str
) -> Iterator[Area]:
    """Memory, and vmalloc above it. What is not known to be the one or the other has both names."""
    high, unsure = _high_memory(facts, split), "" if vmalloc_end else f", {', '.join(above[:-1])} or {above[-1]}"
    end, bounds = (vmalloc_end, "") if vmalloc_end else (upper, " (bounds not known)")
    note = {"note": "also modules"}
    if high is not None:
        told = "high_memory" if facts.high_memory is not None else "VMALLOC_START"
        yield Area(DIRECT_MAP, split, high, told, details={"also_called": LOWMEM})
        yield Area(f"{VMALLOC}{unsure}{bounds}", high + _VMALLOC_OFFSET, end, told, details=note)
        return
    image_end = facts.runtime_image[1] if facts.runtime_image is not None else split
    if split < image_end < end:
        lowmem = {"also_called": LOWMEM}
        yield Area(DIRECT_MAP, split, image_end, f"{source}; the image is in it", details=lowmem)
    joined = f"{VMALLOC}, {DIRECT_MAP}{unsure}" if unsure else f"{VMALLOC} or {DIRECT_MAP}"
    yield Area(f"{joined} (bounds not known)", max(split, image_end), end, source, details=note)


def _cpu_entry_area(facts: AddressSpaceFacts, start: int, end: int, size: int) -> Area:
    """The CPUs' entry areas: the IDT, and then one struct cpu_entry_area after the other."""
    parts = [Area("IDT", start, start + _IDT, "CPU_ENTRY_AREA_RO_IDT")]
    for cpu, offset in sorted(facts.cpu_entry_areas):
        first = start + _IDT + offset
        members = tuple(
            Area(f"{name} of CPU {cpu}", first + at, first + at + length, "struct cpu_entry_area")
            for name, at, length in facts.cpu_entry_area_members
        )
        if parts[-1].end <= first and first + size <= end:
            parts.append(
                Area(f"CPU {cpu}", first, first + size, "get_cpu_entry_area()", details={"cpu": cpu}, parts=members)
            )
    note = {"note": "entry stacks, GDT and TSS of each CPU"}
    return Area(CPU_ENTRY_AREA, start, end, "enum fixed_addresses, NR_CPUS", details=note, parts=tuple(parts))
