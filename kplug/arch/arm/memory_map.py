"""The virtual memory map of arm: Documentation/arch/arm/memory.rst, arch/arm/include/asm/memory.h and pgtable.h.

Memory (lowmem) is mapped from PAGE_OFFSET on, up to `high_memory`; modules and pkmap are right below it.
"""

from __future__ import annotations

from collections.abc import Iterator

from kplug.arch.types.memory_map import (
    DIRECT_MAP,
    FIXMAP,
    LOWER_PAGE_OFFSET,
    LOWMEM,
    MODULES,
    USER,
    VMALLOC,
    AddressSpace,
    AddressSpaceFacts,
    Area,
    fixmap_parts,
    whole,
)

_BITS, _PAGE, _MIB = 32, 4096, 1 << 20
_PAGE_OFFSETS = (0x40000000, 0x80000000, 0xB0000000, 0xC0000000)  # CONFIG_VMSPLIT_...
_USUAL_PAGE_OFFSET = _PAGE_OFFSETS[-1]
_MODULES_SIZE = 16 * _MIB
_PMD = 2 * _MIB  # PMD_SIZE, of either format of the page tables
_VMALLOC_OFFSET = 8 * _MIB
_VMALLOC_END = 0xFF800000
_FIXADDR_END = 0xFFF00000
_FIXADDR_TOP = _FIXADDR_END - _PAGE
_KASAN_SHADOW = 1 << _BITS - 3


def address_space(facts: AddressSpaceFacts) -> AddressSpace:
    """The map of an arm kernel."""
    page_offset = page_offset_of(facts)
    split = page_offset or _USUAL_PAGE_OFFSET
    source = f"arm layout, PAGE_OFFSET {split:#x}"
    source += " from the link address of _text" if page_offset else " (assumed)"
    claims = [*_below_memory(facts, split, source), *_lowmem_and_vmalloc(facts, split, source), *_fixed(facts, source)]
    warnings = facts.refused
    if facts.high_memory is not None and _high_memory(facts, split) is None:
        said = f"high_memory is {facts.high_memory:#x}, which is impossible with PAGE_OFFSET {split:#x}: it is not used"
        warnings = (*warnings, said)
    description = f"arm, PAGE_OFFSET {split:#x}{'' if page_offset else ' (assumed)'}"
    return AddressSpace("arm", whole(claims, _BITS), description, facts, _FIXADDR_TOP, _PAGE, warnings)


def page_offset_of(facts: AddressSpaceFacts) -> int | None:
    """PAGE_OFFSET: the image is linked at less than 16 MiB above it (TEXT_OFFSET)."""
    start = facts.image_start
    below = [offset for offset in _PAGE_OFFSETS if start is not None and offset <= start < offset + 16 * _MIB]
    return below[-1] if below else None


def _below_memory(facts: AddressSpaceFacts, split: int, source: str) -> Iterator[Area]:
    """Programs, KASAN's shadow, modules, pkmap."""
    modules = split - _MODULES_SIZE
    user_end = modules
    if facts.kasan_shadow:
        offset = modules - _KASAN_SHADOW  # CONFIG_KASAN_SHADOW_OFFSET
        user_end = (modules >> 3) + offset
        yield Area("KASAN shadow", user_end, modules, source)
    lower = {} if page_offset_of(facts) else LOWER_PAGE_OFFSET
    yield Area("user", 0, user_end, source, details=lower, kind=USER)
    note = {"note": "from the middle on in a Thumb-2 kernel; with CONFIG_ARM_MODULE_PLTS more of them are in vmalloc"}
    if facts.has_highmem is None:
        yield Area(f"{MODULES} or pkmap", split - _PMD, split, source, details=lower)
    elif facts.has_highmem:
        yield Area("pkmap", split - _PMD, split, source, details={"note": "kmap() of pages above lowmem"})
    yield Area(MODULES, modules, split, source, details={**note, **lower})


def _high_memory(facts: AddressSpaceFacts, split: int) -> int | None:
    high = facts.high_memory
    return high if high is not None and split < high < _VMALLOC_END and high % _PAGE == 0 else None


def _lowmem_and_vmalloc(facts: AddressSpaceFacts, split: int, source: str) -> Iterator[Area]:
    """Memory, and vmalloc above it. What may be the one or the other has both names."""
    high = _high_memory(facts, split)
    lowmem = {"also_called": LOWMEM}
    note = {"note": "also static mappings of devices"}
    if high is not None:
        vmalloc = (high + _VMALLOC_OFFSET) // _VMALLOC_OFFSET * _VMALLOC_OFFSET
        yield Area(DIRECT_MAP, split, high, "high_memory", details=lowmem)
        yield Area(VMALLOC, vmalloc, _VMALLOC_END, "high_memory", details=note)
        return
    start = facts.vmalloc_start
    if start is not None and split < start - _VMALLOC_OFFSET < start < _VMALLOC_END and start % _VMALLOC_OFFSET == 0:
        end = start - _VMALLOC_OFFSET
        yield Area(DIRECT_MAP, split, end, "VMALLOC_START", details=lowmem)
        yield Area(f"{DIRECT_MAP} or the hole above it", end, start, "VMALLOC_START")
        yield Area(VMALLOC, start, _VMALLOC_END, "VMALLOC_START", details=note)
        return
    image_end = facts.runtime_image[1] if facts.runtime_image is not None else split
    if split < image_end < _VMALLOC_END:
        yield Area(DIRECT_MAP, split, image_end, f"{source}; the image is in it", details=lowmem)
    name = f"{VMALLOC} or {DIRECT_MAP} (high_memory not known)"
    yield Area(name, max(split, image_end), _VMALLOC_END, source, details=note)


def _fixed(facts: AddressSpaceFacts, source: str) -> Iterator[Area]:
    """What has the same place in all kernels."""
    note = {"note": "older kernels have nothing here"}
    yield Area("device tree", _VMALLOC_END, 0xFFC00000, source, details=note)
    yield Area(
        f"{FIXMAP} or the guard below it", 0xFFC00000, 0xFFC80000, source, details={"note": "fixmap in older kernels"}
    )
    parts = fixmap_parts(facts, _FIXADDR_TOP, _PAGE)
    yield Area(FIXMAP, 0xFFC80000, _FIXADDR_END, source, parts=parts)
    yield Area("TCM", 0xFFFE0000, 0xFFFF0000, source, details={"note": "where the CPU has such memory"})
    note = {"note": "the CPU's vectors, what they jump to, and the kernel's helpers for programs"}
    yield Area("vectors", 0xFFFF0000, 0xFFFF2000, source, details=note)
    note = {"note": "temporary mappings of pages that the cache may hold under another address"}
    yield Area("cache aliases", 0xFFFF4000, 1 << _BITS, source, details=note)
