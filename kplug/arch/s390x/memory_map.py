"""The virtual memory map of s390x, which its boot code lays out (arch/s390/boot/startup.c) and leaves in variables.

From the bottom up: memory as it is (the identity map), vmemmap, absolute lowcore, vmalloc, modules, and since 6.10
(c98d2ecae08f) the kernel; before, it is in the identity map. Programs have an address space of their own, which begins
at 0 too. The end of the kernel's is that of its page tables, of three or four levels.
"""

from __future__ import annotations

from collections.abc import Iterator

from kplug.arch.types.memory_map import (
    DIRECT_MAP,
    IMAGE_MAPPING,
    MODULES,
    NON_CANONICAL,
    TOP,
    VMALLOC,
    VMEMMAP,
    AddressSpace,
    AddressSpaceFacts,
    Area,
    whole,
)

_PAGE = 4096
_LEVEL_3, _LEVEL_4 = 1 << 42, 1 << 53  # _REGION2_SIZE, _REGION1_SIZE
_KASAN_SHADOW = 0x1C000000000000  # CONFIG_KASAN_SHADOW_OFFSET
_LOWCORE = 2 * _PAGE
_OWN = {"note": "programs have an address space of their own, from 0 as well"}


def address_space(facts: AddressSpaceFacts) -> AddressSpace | None:
    """The map of an s390x kernel; None where its variables are not known, since nothing has a fixed place."""
    vmemmap, vmalloc = facts.vmemmap_start, facts.vmalloc_start
    if vmemmap is None or vmalloc is None:
        return None
    image = facts.runtime_image if facts.image_is_apart else None
    bounds = (vmemmap, vmalloc, facts.vmalloc_end, facts.modules_vaddr, facts.modules_end, *(image or ()))
    known = [bound for bound in bounds if bound is not None]
    if known != sorted(known) or known[-1] > _LEVEL_4:
        said = "vmemmap, VMALLOC_START and _END, MODULES_VADDR and _END and the image are not in this order: "
        warnings = (*facts.refused, f"{said}{', '.join(map(hex, known))}: they are not used")
        nothing = Area("kernel (layout not known)", 0, _LEVEL_4, "s390x layout")
        return AddressSpace("s390x", whole([nothing]), "s390x", facts, None, _PAGE, warnings)
    end, levels = (_LEVEL_3, 3) if known[-1] <= _LEVEL_3 and not facts.kasan_shadow else (_LEVEL_4, 4)
    claims = list(_claims(facts, image, vmemmap, vmalloc, end))
    return AddressSpace("s390x", whole(claims), f"s390x, {levels}-level page tables", facts, None, _PAGE, facts.refused)


def _claims(
    facts: AddressSpaceFacts, image: tuple[int, int] | None, vmemmap: int, vmalloc: int, end: int
) -> Iterator[Area]:
    yield Area(NON_CANONICAL, end, TOP, "s390x layout", kind=NON_CANONICAL)
    if facts.kasan_shadow:
        yield Area("KASAN shadow", _KASAN_SHADOW, _LEVEL_4, "s390x layout")
    if image is not None:
        yield Area(IMAGE_MAPPING, *image, "the image's place")
    if facts.modules_vaddr is not None and facts.modules_end is not None:
        yield Area(MODULES, facts.modules_vaddr, facts.modules_end, "MODULES_VADDR")
    if facts.vmalloc_end is not None:
        yield Area(VMALLOC, vmalloc, facts.vmalloc_end, "VMALLOC_START")
    else:
        yield Area(f"{VMALLOC} or above", vmalloc, end, "VMALLOC_START")
    real, lowcore = facts.memcpy_real_area, facts.abs_lowcore
    if real is not None and lowcore is not None and vmemmap < lowcore < real < vmalloc:
        note = {"note": "a page through which memory is read by its real address"}
        yield Area("real memory copy", real, real + _PAGE, "__memcpy_real_area", details=note)
        end = real - (real - lowcore) % _LOWCORE  # it starts at a whole lowcore, and so may end a page below
        yield Area("absolute lowcore", lowcore, end, "__abs_lowcore", details={"note": "each CPU's lowcore"})
    yield from _vmemmap(facts, vmemmap, min(vmalloc, lowcore or vmalloc))
    yield from _identity(facts, vmemmap)


def _vmemmap(facts: AddressSpaceFacts, start: int, limit: int) -> Iterator[Area]:
    size = facts.vmemmap_size
    if size is not None and start < start + size <= limit:
        yield Area(VMEMMAP, start, start + size, "vmemmap, vmemmap_size")
    else:
        yield Area(VMEMMAP, start, limit, "vmemmap", details={"end_note": "at most: its size is not known"})


def _identity(facts: AddressSpaceFacts, vmemmap: int) -> Iterator[Area]:
    """Memory as it is, from the identity base on, which is 0 unless the kernel was built to choose it."""
    base, size = facts.page_offset_base or 0, facts.identity_size
    details: dict[str, object] = {"also_called": "identity map", **_OWN}
    end, source = vmemmap, "vmemmap"
    if size is not None and base < base + size <= vmemmap:
        end, source = base + size, "identity_size"
    else:
        details["end_note"] = "at most: its size is not known"
    if facts.max_pfn is not None and base + facts.max_pfn * _PAGE <= end:
        details["ram_end"] = f"{base + facts.max_pfn * _PAGE:#x}"
    lowcore = Area("lowcore", 0, _LOWCORE, "prefixing", details={"note": "each CPU sees its own"})
    yield Area(DIRECT_MAP, base, end, source, details=details, parts=() if base else (lowcore,))
