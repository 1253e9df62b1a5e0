"""The virtual memory map of x86_64, with 4 and 5 levels of page tables.

The figures are those of Documentation/arch/x86/x86_64/mm.rst, pgtable_64_types.h, page_64_types.h and mm/kaslr.c; they
have been the same from 4.19 (with page-table isolation) to 7.3.
"""

from __future__ import annotations

from collections.abc import Iterator

from kplug.arch.types.memory_map import (
    CPU_ENTRY_AREA,
    DIRECT_MAP,
    FIXMAP,
    IMAGE_MAPPING,
    MODULES,
    NON_CANONICAL,
    SLOTS_END,
    TOP,
    USER,
    VMALLOC,
    VMEMMAP,
    AddressSpace,
    AddressSpaceFacts,
    Area,
    fixmap_parts,
    permanent_slots,
    whole,
)
from kplug.frozen import Frozen, replace

MACHINE = "x86_64"

_KIB, _MIB, _GIB, _TIB, _PIB = (1 << shift for shift in (10, 20, 30, 40, 50))
_PAGE = 4 * _KIB


class _Level(Frozen):
    """One depth of page tables. The three bases are as compiled; memory randomisation moves them, in this order."""

    name: str
    user_end: int
    guard_hole: int
    ldt: int
    page_offset: int
    direct_map_size: int
    vmalloc: int
    vmalloc_size: int
    vmemmap: int
    vmemmap_size: int
    vmemmap_size_exact: bool  # 4-level: always 1 TiB; 5-level: smaller if the direct map was made smaller
    kasan: int


_LEVEL_4 = _Level(
    name="4-level",
    user_end=1 << 47,
    guard_hole=0xFFFF800000000000,
    ldt=0xFFFF880000000000,
    page_offset=0xFFFF888000000000,
    direct_map_size=64 * _TIB,
    vmalloc=0xFFFFC90000000000,
    vmalloc_size=32 * _TIB,
    vmemmap=0xFFFFEA0000000000,
    vmemmap_size=_TIB,
    vmemmap_size_exact=True,
    kasan=0xFFFFEC0000000000,
)
_LEVEL_5 = _Level(
    name="5-level",
    user_end=1 << 56,
    guard_hole=0xFF00000000000000,
    ldt=0xFF10000000000000,
    page_offset=0xFF11000000000000,
    direct_map_size=32 * _PIB,
    vmalloc=0xFFA0000000000000,
    vmalloc_size=12800 * _TIB,
    vmemmap=0xFFD4000000000000,
    vmemmap_size=512 * _TIB,
    vmemmap_size_exact=False,
    kasan=0xFFDF000000000000,
)

_KASAN_END = 0xFFFFFC0000000000
_CPU_ENTRY_AREA = 0xFFFFFE0000000000  # the three randomised bases stay below it
_CPU_ENTRY_AREA_END = 0xFFFFFE8000000000
_IMAGE_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map
_IMAGE_SIZE_PLAIN = 512 * _MIB  # KERNEL_IMAGE_SIZE without CONFIG_RANDOMIZE_BASE
_IMAGE_SIZE_KASLR = _GIB  # and with it
_MODULES_END = 0xFFFFFFFFFF000000
_VSYSCALL = 0xFFFFFFFFFF600000
_FIXADDR_TOP = 0xFFFFFFFFFF7FF000  # slot 0
_LAST = 0xFFFFFFFFFFE00000

_BASE_VARIABLES = ("page_offset_base", "vmalloc_base", "vmemmap_base")

# Above the randomised part nothing depends on the level: name, start, end, note.
_FIXED = (
    ("espfix stacks", 0xFFFFFF0000000000, 0xFFFFFF8000000000, "mapped where CONFIG_X86_ESPFIX64 is set"),
    ("EFI runtime services", 0xFFFFFFEF00000000, 0xFFFFFFFF00000000, "mapped only in the page tables of EFI calls"),
)


def address_space(facts: AddressSpaceFacts) -> AddressSpace:
    """The map of an x86_64 kernel."""
    level = _level(facts)
    known = level is not None
    # Not known: nearly every kernel runs with 4 levels. What means something only with 5 levels says so.
    actual = level or _LEVEL_4
    source = f"x86_64 {actual.name} layout" + ("" if known else " (the level is not known)")
    claims = list(_claims(actual, facts, source))
    if not known:
        claims = [*_only_with_5_level(facts), *claims]
    description = f"x86_64, {actual.name} page tables" + ("" if known else " (assumed)")
    warnings = (*facts.refused, *_refused(actual, facts))
    return AddressSpace(MACHINE, whole(claims), description, facts, _FIXADDR_TOP, _PAGE, warnings)


def _level(facts: AddressSpaceFacts) -> _Level | None:
    if facts.pgtable_l5_enabled is not None:
        return _LEVEL_5 if facts.pgtable_l5_enabled else _LEVEL_4
    # The direct map starts below the other level's part of the address space or in it, even when randomised.
    base = facts.page_offset_base
    if base is not None and base % _PAGE == 0:
        for level, limit in ((_LEVEL_5, _LEVEL_4.guard_hole), (_LEVEL_4, _CPU_ENTRY_AREA)):
            if level.ldt <= base < limit:
                return level
    return None


def _claims(level: _Level, facts: AddressSpaceFacts, source: str) -> Iterator[Area]:
    yield Area("user", 0, level.user_end - _PAGE, source, kind=USER)
    yield Area("guard page above user", level.user_end - _PAGE, level.user_end, source, hole=True, kind=USER)
    yield Area(NON_CANONICAL, level.user_end, level.guard_hole, source, kind=NON_CANONICAL)
    for name, start, end, use in _FIXED:
        yield Area(name, start, end, source, details={"note": use})
    yield _cpu_entry_area(facts, source)
    yield Area(
        "last 2 MiB", _LAST, TOP, source, hole=True, details={"note": "never mapped, so that error pointers fault"}
    )
    yield from _image_and_modules(facts, source)
    yield from _fixmap(facts, source)
    yield from _memory(level, facts, source)
    yield Area("guard hole", level.guard_hole, level.ldt, source, hole=True, details={"note": "left to hypervisors"})
    yield Area("LDT remap", level.ldt, level.page_offset, source, details={"note": "used by page-table isolation"})


def _cpu_entry_area(facts: AddressSpaceFacts, source: str) -> Area:
    """The area with the entry stacks, GDT and TSS of each CPU, after a page with the IDT."""
    parts = []
    size = facts.cpu_entry_area_size
    if size is not None:
        parts.append(Area("IDT", _CPU_ENTRY_AREA, _CPU_ENTRY_AREA + _PAGE, "CPU_ENTRY_AREA_RO_IDT"))
        for cpu, start in sorted(facts.cpu_entry_areas, key=lambda pair: pair[1]):
            if not _fits_cpu_entry_area(start, size) or start < parts[-1].end:
                continue
            members = [
                Area(f"{name} of CPU {cpu}", start + offset, start + offset + length, "struct cpu_entry_area")
                for name, offset, length in facts.cpu_entry_area_members
            ]
            compiled = _CPU_ENTRY_AREA + _PAGE + cpu * size
            cpus = {"cpu": cpu, "compiled_start": f"{compiled:#x}"}
            parts.append(
                Area(f"CPU {cpu}", start, start + size, "get_cpu_entry_area()", details=cpus, parts=tuple(members))
            )
    note = {"note": "entry stacks, GDT and TSS of each CPU"}
    return Area(CPU_ENTRY_AREA, _CPU_ENTRY_AREA, _CPU_ENTRY_AREA_END, source, details=note, parts=tuple(parts))


def _fits_cpu_entry_area(start: int, size: int) -> bool:
    return start >= _CPU_ENTRY_AREA + _PAGE and start + size <= _CPU_ENTRY_AREA_END and start % _PAGE == 0


def _image_and_modules(facts: AddressSpaceFacts, source: str) -> Iterator[Area]:
    """The mapping of the kernel image and the modules above it, which begin KERNEL_IMAGE_SIZE after its start."""
    modules_end = _modules_end(facts)
    size, size_source = _image_size(facts)
    image_end = _IMAGE_MAP + (_IMAGE_SIZE_PLAIN if size is None else size)
    modules = _IMAGE_MAP + (_IMAGE_SIZE_KASLR if size is None else size)
    yield Area(IMAGE_MAPPING, _IMAGE_MAP, image_end, f"{source}; {size_source}")
    if size is None:
        yield Area("kernel image mapping or modules (KERNEL_IMAGE_SIZE not known)", image_end, modules, source)
    note = {"note": "also BPF programs, ftrace trampolines and kprobe slots"}
    yield Area(MODULES, modules, modules_end, f"{source}; {size_source}", details=note)


def _modules_end(facts: AddressSpaceFacts) -> int:
    end = facts.modules_end
    return end if end is not None and _IMAGE_MAP + _IMAGE_SIZE_KASLR < end < _MODULES_END else _MODULES_END


def _image_size(facts: AddressSpaceFacts) -> tuple[int | None, str]:
    """KERNEL_IMAGE_SIZE, and how it is known."""
    if facts.kernel_image_size in (_IMAGE_SIZE_PLAIN, _IMAGE_SIZE_KASLR):
        return facts.kernel_image_size, "KERNEL_IMAGE_SIZE"
    if facts.has_randomize_base is not None:
        size = _IMAGE_SIZE_KASLR if facts.has_randomize_base else _IMAGE_SIZE_PLAIN
        return size, "KERNEL_IMAGE_SIZE from CONFIG_RANDOMIZE_BASE"
    if facts.has_randomize_memory:
        return _IMAGE_SIZE_KASLR, "KERNEL_IMAGE_SIZE from CONFIG_RANDOMIZE_MEMORY, which needs CONFIG_RANDOMIZE_BASE"
    if facts.runtime_image_start is not None and facts.image_start not in (None, facts.runtime_image_start):
        return _IMAGE_SIZE_KASLR, "KERNEL_IMAGE_SIZE from the image's KASLR offset"
    return None, "KERNEL_IMAGE_SIZE not known"


def _fixmap(facts: AddressSpaceFacts, source: str) -> Iterator[Area]:
    """The fixmap; and vsyscall, whose slot is the first in use of a kernel that has it."""
    parts, start, end = fixmap_parts(facts, _FIXADDR_TOP, _PAGE), _fixmap_start(facts), _fixmap_end(facts)
    absent = end > _VSYSCALL
    note = "not in this kernel" if absent else "legacy calls of user programs; may be execute-only or off"
    hole, details = absent and start is not None, {"note": note}
    vsyscall = Area("vsyscall", _VSYSCALL, _VSYSCALL + _PAGE, source, hole=hole, details=details, parts=parts)
    if start is None:
        details = {"note": "FIXADDR_START depends on the configuration and is not known"}
        yield vsyscall
        yield Area("fixmap or the hole below it", _modules_end(facts), end, source, details=details)
        return
    yield Area(FIXMAP, start, end, "FIXADDR_START", parts=parts)
    # Below it lie the slots for early boot; their mapping stays.
    slots = dict(facts.fixed_addresses).get(SLOTS_END, 0)
    lowest, early_end = _FIXADDR_TOP - (slots - 1) * _PAGE, min(start, _VSYSCALL)
    if _modules_end(facts) <= lowest < early_end:
        details = {"note": "slots that are used early in boot: early_ioremap()"}
        yield Area(f"early {FIXMAP}", lowest, early_end, "enum fixed_addresses", details=details, parts=parts)
    yield vsyscall


def _fixmap_end(facts: AddressSpaceFacts) -> int:
    slots = dict(facts.fixed_addresses)
    has_vsyscall = "VSYSCALL_PAGE" in slots if slots else facts.has_vsyscall is not False
    return _VSYSCALL if has_vsyscall else _FIXADDR_TOP + _PAGE


def _fixmap_start(facts: AddressSpaceFacts) -> int | None:
    """FIXADDR_START, if it is known and possible."""
    start, slots = facts.fixmap_start, permanent_slots(facts)
    if start is None and slots is not None:
        start = _FIXADDR_TOP - slots * _PAGE
    good = start is not None and _modules_end(facts) <= start < _fixmap_end(facts) and start % _PAGE == 0
    return start if good else None


def _memory(level: _Level, facts: AddressSpaceFacts, source: str) -> Iterator[Area]:
    """Direct map, vmalloc and vmemmap, if their places are known; and the KASAN shadow."""
    if facts.kasan_shadow:
        yield Area("KASAN shadow", level.kasan, _KASAN_END, source)
    bases = _bases(level, facts)
    compiled = (level.page_offset, level.vmalloc, level.vmemmap)
    fixed = facts.kasan_shadow or facts.has_randomize_memory is False or facts.kaslr_disabled or bases == compiled
    known = [base is not None for base in bases]
    nominal = False
    if fixed or not (any(known) or facts.has_randomize_memory):
        nominal = not fixed
        bases = (bases[0] or compiled[0], bases[1] or compiled[1], bases[2] or compiled[2])
    names = (DIRECT_MAP, VMALLOC, VMEMMAP)
    cursor = level.page_offset
    lost: list[str] = []
    for index, base in enumerate(bases):
        if base is None:
            lost.append(names[index])
            continue
        if lost:
            yield _window(lost, cursor, base)
            lost = []
        later = next((other for other in bases[index + 1 :] if other is not None), _CPU_ENTRY_AREA)
        randomised = known[index] and not fixed
        end, details = _extent(level, facts, index, base, randomised, later)
        if facts.has_randomize_memory is not False:
            details["compiled_start"] = f"{compiled[index]:#x}"
        where = _BASE_VARIABLES[index] if known[index] else source
        if index == 1 and facts.kmsan:
            quarter = base + (end - base) // 4
            yield Area(names[index], base, quarter, where, nominal, details=details)
            yield Area("KMSAN metadata", quarter, end, where, nominal)
        else:
            yield Area(names[index], base, end, where, nominal, details=details)
        cursor = end
    if lost:
        yield _window(lost, cursor, _CPU_ENTRY_AREA)


def _window(names: list[str], start: int, end: int) -> Area:
    """A window that holds some randomised areas, if no more is known."""
    listed = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    bases = "bases" if len(names) > 1 else "base"
    return Area(f"{listed} (randomised, {bases} not known)", start, end, "mm/kaslr.c: between its known neighbours")


def _bases(level: _Level, facts: AddressSpaceFacts) -> tuple[int | None, int | None, int | None]:
    """The three bases as read, without impossible ones.

    mm/kaslr.c keeps them in order, gives vmalloc its whole size, and moves each by multiples of 1 GiB. If some
    contradict each other, and it is not known which is wrong, none of them counts.
    """
    values = (facts.page_offset_base, facts.vmalloc_base, facts.vmemmap_base)
    last = _CPU_ENTRY_AREA - _TIB  # there is no smaller vmemmap
    limits = (last - level.vmalloc_size, last - level.vmalloc_size, last)
    good = [
        index
        for index, (base, limit) in enumerate(zip(values, limits))
        if base is not None and level.ldt <= base <= limit and base % _GIB == 0
    ]
    subsets = [[index for index in good if mask >> index & 1] for mask in range(8)]
    fitting = [subset for subset in subsets if _in_order([(index, values[index] or 0) for index in subset], level)]
    most = max(map(len, fitting))
    sure = set.intersection(*(set(subset) for subset in fitting if len(subset) == most))
    page_offset, vmalloc, vmemmap = (base if index in sure else None for index, base in enumerate(values))
    return page_offset, vmalloc, vmemmap


def _in_order(bases: list[tuple[int, int]], level: _Level) -> bool:
    """Whether some of the bases, each with its index, are possible together in one kernel."""
    return all(
        low + (level.vmalloc_size if index == 1 else _TIB) <= high
        for (index, low), (_, high) in zip(bases, bases[1:])
    )  # fmt: skip


def _refused(level: _Level, facts: AddressSpaceFacts) -> Iterator[str]:
    """Which facts were not used, and why."""
    bases = zip(_BASE_VARIABLES, (facts.page_offset_base, facts.vmalloc_base, facts.vmemmap_base), _bases(level, facts))
    for name, reported, used in bases:
        if reported is not None and used is None:
            yield f"{name} is {reported:#x}, which is impossible with {level.name} page tables: it is not used"
    end = facts.direct_map_physmem_end
    if end is not None and not _possible_physmem_end(facts):
        yield f"direct_map_physmem_end is {end:#x}, which is below RAM or not the end of a page: it is not used"
    if facts.max_pfn is not None and not 0 < facts.max_pfn * _PAGE <= level.direct_map_size:
        yield f"max_pfn is {facts.max_pfn:#x}, more than any direct map holds: it is not used"
    if facts.kernel_image_size not in (None, _IMAGE_SIZE_PLAIN, _IMAGE_SIZE_KASLR):
        yield f"KERNEL_IMAGE_SIZE is {facts.kernel_image_size:#x}, which is impossible: it is not used"
    if _fixmap_start(facts) is None and (facts.fixmap_start is not None or permanent_slots(facts) is not None):
        yield "the reported FIXADDR_START is outside the fixmap: it is not used"
    size = facts.cpu_entry_area_size or _TIB
    wrong = [(cpu, start) for cpu, start in facts.cpu_entry_areas if not _fits_cpu_entry_area(start, size)]
    if wrong:
        more = f", as are those of {len(wrong) - 1} others" if len(wrong) > 1 else ""
        yield (
            f"the cpu_entry_area of CPU {wrong[0][0]} is reported at {wrong[0][1]:#x}, where there is none{more}: "
            "it is not used"
        )


def _extent(
    level: _Level, facts: AddressSpaceFacts, index: int, base: int, randomised: bool, later: int
) -> tuple[int, dict[str, object]]:
    """The end of the area, and a note about it."""
    details: dict[str, object] = {}
    if index == 0:
        physmem_end = facts.direct_map_physmem_end
        size = level.direct_map_size
        if physmem_end is not None and physmem_end < size and _possible_physmem_end(facts):
            size = physmem_end + 1
        elif randomised:
            details["end_note"] = "at most: how far the direct map may grow is not known"
        if facts.max_pfn is not None and 0 < facts.max_pfn * _PAGE <= size:
            details["ram_end"] = f"{base + facts.max_pfn * _PAGE:#x}"
    elif index == 1:
        size = level.vmalloc_size
    else:
        size = level.vmemmap_size
        if randomised and not level.vmemmap_size_exact:
            exact = _vmemmap_size(facts)
            size = min(size, exact) if exact else size
            if not exact:
                details["end_note"] = "at most: the size follows the direct map's"
    return min(base + size, later), details


def _possible_physmem_end(facts: AddressSpaceFacts) -> bool:
    end = facts.direct_map_physmem_end
    if end is None or end <= 0 or (end + 1) % _PAGE:
        return False
    return not facts.max_pfn or facts.max_pfn * _PAGE > _LEVEL_5.direct_map_size or facts.max_pfn * _PAGE <= end + 1


def _vmemmap_size(facts: AddressSpaceFacts) -> int | None:
    """The size of vmemmap in mm/kaslr.c: a struct page for each page of the direct map, in whole TiB."""
    end = facts.direct_map_physmem_end
    if end is None or facts.struct_page_size is None or not 32 <= facts.struct_page_size <= 128:
        return None
    if not _possible_physmem_end(facts):
        return None
    return -(-((end + 1) // _PAGE * facts.struct_page_size) // _TIB) * _TIB


def _only_with_5_level(facts: AddressSpaceFacts) -> Iterator[Area]:
    """Addresses that are non-canonical with 4 levels of page tables and mean something with 5."""
    low, high = _LEVEL_4.user_end, _LEVEL_4.guard_hole
    source = "x86_64 layouts (the level is not known)"
    facts = replace(facts, vmalloc_base=None, vmemmap_base=None)
    for area in whole(list(_claims(_LEVEL_5, facts, source))):
        start, end = max(area.start, low), min(area.end, high)
        if start < end:
            details = {} if area.kind == NON_CANONICAL else {"if": "page tables have 5 levels", "then": area.name}
            yield replace(
                area, name=NON_CANONICAL, start=start, end=end, source=source, nominal=False, hole=False,
                details=details, kind=NON_CANONICAL,
            )  # fmt: skip
