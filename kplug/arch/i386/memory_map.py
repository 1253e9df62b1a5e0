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
    LOWER_PAGE_OFFSET,
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
    slots = _slots(facts)
    placed = _top_down(facts, top - slots[1] * _PAGE, source) if slots is not None else []
    if placed and placed[-1].start > split:
        end, others = placed[-1].start - 2 * _PAGE, []
    else:
        placed, others = [], [*(["pkmap"] if facts.has_highmem is not False else []), "LDT remap", CPU_ENTRY_AREA]
        end, others = (top - slots[1] * _PAGE, others) if slots is not None else (top, [*others, FIXMAP])
    claims = [
        Area("user", 0, split, source, details={} if page_offset else LOWER_PAGE_OFFSET, kind=USER),
        *_fixmap(facts, top, slots),
        *placed,
        *_lowmem_and_vmalloc(facts, split, end, others, source),
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


def _slots(facts: AddressSpaceFacts) -> tuple[int, int] | None:
    """The number of slots of the fixmap, of those that stay and of all; None if they are not known or impossible."""
    permanent, slots = permanent_slots(facts), dict(facts.fixed_addresses).get(SLOTS_END)
    if permanent is None or slots is None or not 0 < permanent <= slots < 1 << 14:
        return None
    return permanent, slots


def _fixmap(facts: AddressSpaceFacts, top: int, slots: tuple[int, int] | None) -> Iterator[Area]:
    """The fixmap, and below it the slots for early boot."""
    if slots is None:
        return
    parts, start, early = fixmap_parts(facts, top, _PAGE), *(top - number * _PAGE for number in slots)
    yield Area(FIXMAP, start, top, "FIXADDR_START", parts=parts)
    details = {"note": "slots that are used early in boot: early_ioremap()"}
    yield Area(f"early {FIXMAP}", early, start, "enum fixed_addresses", details=details, parts=parts)


def _top_down(facts: AddressSpaceFacts, limit: int, source: str) -> list[Area]:
    """What is below the fixmap, which begins at `limit`, from the top down; nothing where a size of it is not known."""
    size, cpus = facts.cpu_entry_area_size, facts.most_cpus
    if not size or not cpus or facts.pae is None or facts.has_highmem is None:
        return []
    pmd = 2 << 20 if facts.pae else 4 << 20
    length = (cpus * -(-size // _PAGE) + 1) * _PAGE
    entry_area = (limit - length) // pmd * pmd
    ldt = (entry_area - _PAGE) // pmd * pmd
    note = "the LDT of a program, under page-table isolation"
    found = [
        _cpu_entry_area(facts, entry_area, entry_area + length, size),
        Area("LDT remap", ldt, ldt + pmd, source, details={"note": note}),
    ]
    if facts.has_highmem:
        start = (ldt - _PAGE) // pmd * pmd
        found.append(Area("pkmap", start, start + pmd, source, details={"note": "kmap() of pages above lowmem"}))
    return found


def _lowmem_and_vmalloc(
    facts: AddressSpaceFacts, split: int, end: int, others: list[str], source: str
) -> Iterator[Area]:
    """Memory, and vmalloc above it up to `end`. Where the `others` may begin is not known."""
    lowmem, note = {"also_called": LOWMEM}, {"note": "also modules"}
    high = _high_memory(facts, split)
    if high is not None:
        known_by = "high_memory" if facts.high_memory is not None else "VMALLOC_START"
        yield Area(DIRECT_MAP, split, high, known_by, details=lowmem)
        yield Area(_one_of(VMALLOC, *others), high + _VMALLOC_OFFSET, end, known_by, details=note)
        return
    image_end = facts.runtime_image[1] if facts.runtime_image is not None else split
    if split < image_end < end:
        yield Area(DIRECT_MAP, split, image_end, f"{source}; the image is in it", details=lowmem)
    yield Area(_one_of(VMALLOC, DIRECT_MAP, *others), max(split, image_end), end, source, details=note)


def _one_of(*names: str) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]} (bounds not known)" if len(names) > 1 else names[0]


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
