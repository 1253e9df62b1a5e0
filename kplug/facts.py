"""What is known of a kernel's address space: from its vmlinux, and from the memory of a running or crashed one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kplug.errors import TargetError
from kplug.image.placed import PlacedImage
from kplug.space.layout import Facts


def static_facts(placed: PlacedImage) -> Facts:
    """What the vmlinux alone tells. A module, or a file without boundary symbols, tells nothing."""
    image = placed.image
    root = image.regions.root

    def has(symbol: str) -> bool:
        return image.symbols.has_name(symbol)

    if root is None:
        return Facts()
    return Facts(
        image_start=root.start,
        image_end=root.end,
        runtime_image_start=placed.placement.runtime(root.start),
        # RANDOMIZE_MEMORY depends on RANDOMIZE_BASE, and both are on or off together in practice.
        has_randomize_base=has("kernel_randomize_memory") or None,
        has_randomize_memory=has("kernel_randomize_memory"),
        # Without the variable the kernel was built for 4 levels only.
        pgtable_l5_enabled=None if has("__pgtable_l5_enabled") else False,
        kasan_shadow=has("kasan_early_shadow_page"),
        has_early_init_stack=has("early_init_stack"),
    )


# Variables that hold a fact of the same name, or (name in memory, field).
_X86_64_VARIABLES = (
    ("page_offset_base", "page_offset_base", 8),
    ("vmalloc_base", "vmalloc_base", 8),
    ("vmemmap_base", "vmemmap_base", 8),
    ("direct_map_physmem_end", "direct_map_physmem_end", 8),  # 6.13 and later
    ("physmem_end", "direct_map_physmem_end", 8),  # its name up to 6.12
    ("max_pfn", "max_pfn", 8),
    ("__pgtable_l5_enabled", "pgtable_l5_enabled", 4),
)
_VARIABLES = {"x86_64": _X86_64_VARIABLES}


def memory_facts(placed: PlacedImage, read: Callable[[int, int], bytes]) -> Facts:
    """What the vmlinux tells, and the kernel's own variables in memory; `read` is a Target's. Costs a few small reads.

    What cannot be read, or is not set yet early in boot (zero), stays as the vmlinux tells it.
    """
    image = placed.image
    facts = static_facts(placed)
    known: dict[str, int] = {}
    for name, field, size in _VARIABLES.get(image.machine, ()):
        for symbol in image.symbols.exact(name)[:1]:
            try:
                data = read(placed.symbol_address(symbol), size)
            except TargetError:
                continue
            value = int.from_bytes(data, "little")
            if value and len(data) == size:
                known.setdefault(field, value)
    level = known.pop("pgtable_l5_enabled", None)
    facts = replace(facts, **known)
    return replace(facts, pgtable_l5_enabled=True) if level else facts
