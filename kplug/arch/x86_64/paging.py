"""How a kernel maps its memory: its page tables, the image, and the direct map."""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.types.page_tables import Paging, PagingSources
from kplug.arch.x86_64.page_tables import Tables

_START_KERNEL_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map: where x86_64 maps the image's memory
_X86_NO_EXECUTE = 1 << 63  # _PAGE_NX
# As compiled, by depth: __PAGE_OFFSET_BASE_L4 and L5, and the size of that area.
_X86_DIRECT_MAPS = {4: (0xFFFF888000000000, 1 << 46), 5: (0xFF11000000000000, 1 << 55)}


def paging(sources: PagingSources) -> Paging:
    numbers = sources.numbers
    facts = sources.facts
    five = numbers.get("pgtable_l5_enabled")
    if five is None:
        five = facts.pgtable_l5_enabled
    levels = 5 if five else 4
    phys_base = numbers.get("phys_base")
    if phys_base is None:
        found = sources.variable("phys_base")
        phys_base = found - (1 << 64) if found is not None and found >> 63 else found
    image_offset = None if phys_base is None else _START_KERNEL_MAP - phys_base
    top = sources.symbol("init_top_pgt", "init_level4_pgt", "swapper_pg_dir")  # init_level4_pgt: its name up to 4.12
    compiled, size = _X86_DIRECT_MAPS[levels]
    # A kernel without the variable cannot move its direct map.
    base = facts.page_offset_base or sources.variable("page_offset_base", image_offset=image_offset)
    if base is None and sources.has_image and not sources.has_symbol("page_offset_base"):
        base = compiled
    max_pfn = facts.max_pfn or sources.variable("max_pfn", image_offset=image_offset)
    supported = sources.variable(
        "__supported_pte_mask", image_offset=image_offset
    )  # without NX if the CPU has none, or with noexec=off
    encryption = numbers.get("sme_mask", 0)
    no_execute = supported is None or bool(supported & _X86_NO_EXECUTE)
    bits = 12 + 9 * levels
    return Paging(
        page_shift=12,
        address_bits=bits,
        image=sources.image,
        image_offset=image_offset,
        direct_map=range(base, base + (min(size, max_pfn << 12) if max_pfn else size)) if base else None,
        direct_offset=base or None,
        root=None if top is None or image_offset is None else top - image_offset,
        tables=lambda root, _user: Tables(root, levels, no_execute, encryption),
        upper_half=(1 << 64) - (1 << bits - 1),
    )


_PRESENT = 1


def user_root(root: int, address: int, address_bits: int, page_size: int, entry_at: Callable[[int], int]) -> int:
    """The top table through which a program reaches an address of its own.

    Under page-table isolation the kernel's own copy of the top entry forbids execution, and the one that the program
    runs on is in the next page (pti_set_user_pgtbl()). An entry without a copy is not isolated.
    """
    slot = (address >> address_bits - 9 & 0x1FF) * 8
    entry = entry_at(root + slot)
    if not entry & _X86_NO_EXECUTE or not entry & _PRESENT:
        return root
    copy = entry_at(root + page_size + slot)
    return root + page_size if copy == entry & ~_X86_NO_EXECUTE else root


# Control register bits (Intel SDM vol. 3, 2.5 "Control Registers"; EFER: 2.2.1).
_CR0_PAGING, _CR4_LA57, _EFER_NO_EXECUTE = 1 << 31, 1 << 12, 1 << 11
# The user's page tables are the page after the kernel's (PTI_USER_PGTABLE_BIT, arch/x86/entry/calling.h).
_CR3_USER_TABLES = 1 << 12


def cpu_tables(register: Callable[[str], int | None], kernel: bool) -> Tables | None:
    """See `Architecture.cpu_tables`."""
    cr0, cr3, cr4, efer = (register(name) for name in ("cr0", "cr3", "cr4", "efer"))
    if cr0 is None or cr3 is None or cr4 is None or efer is None or not cr0 & _CR0_PAGING:
        return None
    root = cr3 & ~_CR3_USER_TABLES if kernel else cr3
    return Tables(root, 5 if cr4 & _CR4_LA57 else 4, bool(efer & _EFER_NO_EXECUTE))
