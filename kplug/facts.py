"""What is known of a kernel's address space: from its vmlinux, and from the memory of a running or crashed one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kplug.image.placed import PlacedImage
from kplug.memory import Read, try_read
from kplug.space.layout import Facts


def static_facts(placed: PlacedImage) -> Facts:
    """What the vmlinux alone tells. A module, or a file without boundary symbols, tells nothing."""
    image = placed.image
    root = image.regions.root

    def has(symbol: str) -> bool:
        return image.symbols.has_name(symbol) and bool(image.symbols.indexes_of(symbol))

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


# (variable, the fact it holds, its bytes); both architectures that have tables are little-endian.
_X86_64_VARIABLES = (
    ("page_offset_base", "page_offset_base", 8),
    ("vmalloc_base", "vmalloc_base", 8),
    ("vmemmap_base", "vmemmap_base", 8),
    ("direct_map_physmem_end", "direct_map_physmem_end", 8),  # 6.13 and later
    ("physmem_end", "direct_map_physmem_end", 8),  # its name up to 6.12
    ("max_pfn", "max_pfn", 8),
)
_VARIABLES = {"x86_64": _X86_64_VARIABLES}


def memory_facts(placed: PlacedImage, read: Read) -> Facts:
    """What the vmlinux tells, and the kernel's own variables in memory; `read` is a Target's. Costs a few small reads.

    What cannot be read, or is not set yet early in boot (zero), stays as the vmlinux tells it.
    """
    facts = static_facts(placed)
    known: dict[str, Any] = {}
    for name, field, size in _VARIABLES.get(placed.image.machine, ()):
        value = _variable(placed, read, name, size)
        if value:
            known.setdefault(field, value)
    if placed.image.machine == "x86_64" and "page_offset_base" in known:  # set after the level is
        level = _variable(placed, read, "__pgtable_l5_enabled", 4)
        if level is not None:
            known["pgtable_l5_enabled"] = bool(level)
    return replace(facts, **known)


def _variable(placed: PlacedImage, read: Read, name: str, size: int) -> int | None:
    """The value of an unsigned variable of the image in memory; None if there is none or it cannot be read."""
    symbols = placed.image.symbols.exact(name)
    data = try_read(read, placed.symbol_address(symbols[0]), size) if symbols else None
    return None if data is None else int.from_bytes(data, "little")
