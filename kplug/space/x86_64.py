"""The virtual memory map of x86_64, with 4 and 5 levels of page tables.

The figures are those of Documentation/arch/x86/x86_64/mm.rst, pgtable_64_types.h, page_64_types.h and mm/kaslr.c; they
have been the same from 4.19 (with page-table isolation) to 7.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from kplug.space.area import (
    DIRECT_MAP,
    FIXMAP,
    IMAGE_MAPPING,
    MODULES,
    NON_CANONICAL,
    TOP,
    USER,
    VMALLOC,
    VMEMMAP,
    AddressSpace,
    Area,
    Facts,
    whole,
)

MACHINE = "x86_64"

_KIB, _MIB, _GIB, _TIB, _PIB = (1 << shift for shift in (10, 20, 30, 40, 50))
_PAGE = 4 * _KIB


class _Level(NamedTuple):
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
    vmemmap_size_exact: bool  # 4-level: always 1 TiB; 5-level: smaller where the direct map was made smaller
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
_IMAGE_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map
_IMAGE_SIZE_PLAIN = 512 * _MIB  # KERNEL_IMAGE_SIZE without CONFIG_RANDOMIZE_BASE
_IMAGE_SIZE_KASLR = _GIB  # and with it
_MODULES_END = 0xFFFFFFFFFF000000
_VSYSCALL = 0xFFFFFFFFFF600000
_FIXADDR_TOP = 0xFFFFFFFFFF7FF000  # slot 0; the slots down to vsyscall are not used
_LAST = 0xFFFFFFFFFFE00000

# Above the randomised part nothing depends on the level: name, start, end, what is to be known about it.
_FIXED = (
    ("cpu_entry_area", _CPU_ENTRY_AREA, 0xFFFFFE8000000000, "entry stacks, GDT and TSS of each CPU, in random order"),
    ("espfix stacks", 0xFFFFFF0000000000, 0xFFFFFF8000000000, "mapped where CONFIG_X86_ESPFIX64 is set"),
    ("EFI runtime services", 0xFFFFFFEF00000000, 0xFFFFFFFF00000000, "mapped only in the page tables of EFI calls"),
    ("vsyscall", _VSYSCALL, _VSYSCALL + _PAGE, "legacy calls of user programs; may be execute-only or off"),
)


def address_space(facts: Facts) -> AddressSpace:
    """The map of an x86_64 kernel."""
    level = _level(facts)
    known = level is not None
    # Not known: 4-level is what nearly every kernel runs; what only 5-level gives a meaning to, says so.
    actual = level or _LEVEL_4
    source = f"x86_64 {actual.name} layout" + ("" if known else " (the level is not known)")
    claims = list(_claims(actual, facts, source))
    if not known:
        claims = [*_only_with_5_level(facts), *claims]
    description = f"x86_64, {actual.name} page tables" + ("" if known else " (assumed)")
    return AddressSpace(MACHINE, whole(claims), description, facts, _FIXADDR_TOP, _PAGE)


def _level(facts: Facts) -> _Level | None:
    if facts.pgtable_l5_enabled is not None:
        return _LEVEL_5 if facts.pgtable_l5_enabled else _LEVEL_4
    # The direct map starts below the other level's part of the address space or in it, even when randomised.
    base = facts.page_offset_base
    if base is not None and base % _PAGE == 0:
        for level, limit in ((_LEVEL_5, _LEVEL_4.guard_hole), (_LEVEL_4, _CPU_ENTRY_AREA)):
            if level.ldt <= base < limit:
                return level
    return None


def _claims(level: _Level, facts: Facts, source: str) -> Iterator[Area]:
    yield Area("user", 0, level.user_end - _PAGE, source, kind=USER)
    yield Area("guard page above user", level.user_end - _PAGE, level.user_end, source, hole=True, kind=USER)
    yield Area(NON_CANONICAL, level.user_end, level.guard_hole, source, kind=NON_CANONICAL)
    for name, start, end, use in _FIXED:
        yield Area(name, start, end, source, details={"note": use})
    yield Area(
        "last 2 MiB", _LAST, TOP, source, hole=True, details={"note": "never mapped, so that error pointers fault"}
    )
    yield from _image_and_modules(facts, source)
    yield from _fixmap(facts, source)
    yield from _memory(level, facts, source)
    note = {"note": "left to hypervisors"}
    yield Area("guard hole", level.guard_hole, level.ldt, source, hole=True, details=note)
    yield Area("LDT remap", level.ldt, level.page_offset, source, details={"note": "used by page-table isolation"})


def _image_and_modules(facts: Facts, source: str) -> Iterator[Area]:
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


def _modules_end(facts: Facts) -> int:
    told = facts.modules_end
    return told if told is not None and _IMAGE_MAP + _IMAGE_SIZE_KASLR < told < _MODULES_END else _MODULES_END


def _image_size(facts: Facts) -> tuple[int | None, str]:
    """KERNEL_IMAGE_SIZE, and how it is known."""
    if facts.kernel_image_size in (_IMAGE_SIZE_PLAIN, _IMAGE_SIZE_KASLR):
        return facts.kernel_image_size, "KERNEL_IMAGE_SIZE"
    if facts.has_randomize_base is not None:
        size = _IMAGE_SIZE_KASLR if facts.has_randomize_base else _IMAGE_SIZE_PLAIN
        return size, "KERNEL_IMAGE_SIZE from CONFIG_RANDOMIZE_BASE"
    if facts.has_randomize_memory:
        return _IMAGE_SIZE_KASLR, "KERNEL_IMAGE_SIZE from CONFIG_RANDOMIZE_MEMORY, which needs CONFIG_RANDOMIZE_BASE"
    if facts.runtime_image_start is not None and facts.image_start not in (None, facts.runtime_image_start):
        return _IMAGE_SIZE_KASLR, "KERNEL_IMAGE_SIZE from the image's slide"
    return None, "KERNEL_IMAGE_SIZE not known"


def _fixmap(facts: Facts, source: str) -> Iterator[Area]:
    start = facts.fixmap_start
    if start is not None and _modules_end(facts) <= start < _VSYSCALL and start % _PAGE == 0:
        yield Area(FIXMAP, start, _VSYSCALL, "FIXADDR_START")
        return
    note = {"note": "FIXADDR_START depends on the configuration and is not known"}
    yield Area("fixmap or the hole below it", _modules_end(facts), _VSYSCALL, source, details=note)


def _memory(level: _Level, facts: Facts, source: str) -> Iterator[Area]:
    """Direct map, vmalloc and vmemmap, where they are known to be; and the KASAN shadow."""
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
    variables = ("page_offset_base", "vmalloc_base", "vmemmap_base")
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
        where = variables[index] if known[index] else source
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
    """Where randomisation left some areas, and no more can be said."""
    listed = " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    bases = "bases" if len(names) > 1 else "base"
    return Area(f"{listed} (randomised, {bases} not known)", start, end, "mm/kaslr.c: between its known neighbours")


def _bases(level: _Level, facts: Facts) -> tuple[int | None, int | None, int | None]:
    """The three bases as read, without those that no kernel could have."""
    low = level.ldt
    good: list[int | None] = []
    for base in (facts.page_offset_base, facts.vmalloc_base, facts.vmemmap_base):
        if base is not None and low <= base < _CPU_ENTRY_AREA and base % _PAGE == 0:
            good.append(base)
            low = base + _PAGE
        else:
            good.append(None)
    return good[0], good[1], good[2]


def _extent(
    level: _Level, facts: Facts, index: int, base: int, randomised: bool, later: int
) -> tuple[int, dict[str, object]]:
    """Where the area ends, and what is to be said of that."""
    details: dict[str, object] = {}
    if index == 0:
        physmem_end = facts.direct_map_physmem_end
        size = level.direct_map_size
        if physmem_end is not None and 0 < physmem_end < size and (physmem_end + 1) % _PAGE == 0:
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
            details["end_note"] = "at most: the size follows the direct map's"
    return min(base + size, later), details


def _only_with_5_level(facts: Facts) -> Iterator[Area]:
    """What is non-canonical with 4 levels of page tables and means something with 5."""
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
