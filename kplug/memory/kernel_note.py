"""A kernel's VMCOREINFO: where the kernel itself keeps it, and what it tells of the address space. Needs no drgn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.memory.reading import Read
from kplug.memory.vmcoreinfo import VmcoreInfo, note_in_memory
from kplug.space.address_space import AddressSpaceFacts

# (entry of VMCOREINFO, the fact it holds); NUMBER() where nothing else is said.
_NUMBERS = {
    "x86_64": (("KERNEL_IMAGE_SIZE", "kernel_image_size"), ("phys_base", "phys_base")),
    "aarch64": (
        ("VA_BITS", "va_bits"),
        ("MODULES_VADDR", "modules_vaddr"),  # this and the next five: 5.19 and later
        ("MODULES_END", "modules_end"),
        ("VMALLOC_START", "vmalloc_start"),
        ("VMALLOC_END", "vmalloc_end"),
        ("VMEMMAP_START", "vmemmap_start"),
        ("VMEMMAP_END", "vmemmap_end"),
        ("KERNELPACMASK", "kernel_pac_mask"),
        ("kimage_voffset", "kimage_voffset"),
        ("PHYS_OFFSET", "phys_offset"),
    ),
}


def kernels_note(placed: PlacedImage, read: Read) -> VmcoreInfo | None:
    """The text that the kernel keeps for dumps of itself; None if there is none, or it is not of this kernel."""

    def address(name: str) -> int | None:
        symbols = placed.image.symbols.exact(name)
        return placed.symbol_address(symbols[0]) if symbols else None

    elf = placed.image.elf
    info = note_in_memory(
        read, address("vmcoreinfo_data"), address("vmcoreinfo_size"), elf.bits // 8, elf.little_endian
    )
    return None if info is None or _moved_otherwise(info, placed) else info


def _moved_otherwise(info: VmcoreInfo, placed: PlacedImage) -> bool:
    return bool((slide_of(info, placed.image) - placed.placement.slide) % (1 << 64))


def slide_of(info: VmcoreInfo, image: KernelImage) -> int:
    """By how much the kernel that `info` describes was moved from where `image` is linked, in bytes."""
    if info.slide is not None:
        return info.slide
    for symbol in image.symbols.exact("_stext"):
        if "_stext" in info.symbols:
            return info.symbols["_stext"] - symbol.address
    return 0


def with_vmcoreinfo(facts: AddressSpaceFacts, info: VmcoreInfo, machine: str) -> AddressSpaceFacts:
    """`facts`, and what VMCOREINFO tells, which comes first where both tell the same."""
    known: dict[str, Any] = {}
    for name, field in _NUMBERS.get(machine, ()):
        if name in info.numbers:
            known[field] = info.numbers[name]
    if info.page_size is not None:
        known["page_size"] = info.page_size
    if "page" in info.sizes:
        known["struct_page_size"] = info.sizes["page"]
    if machine == "x86_64":
        level = info.numbers.get("pgtable_l5_enabled")
        if level in (0, 1):
            known["pgtable_l5_enabled"] = bool(level)
        _second_source(facts, known, "vmalloc_base", info.numbers.get("VMALLOC_START"))  # 6.9 and later
        _second_source(facts, known, "vmemmap_base", info.symbols.get("vmemmap"))  # 6.9 and later
    elif machine == "aarch64" and "TCR_EL1_T1SZ" in info.numbers:
        known["vabits_actual"] = 64 - info.numbers["TCR_EL1_T1SZ"]
    if facts.image_start is None:
        known.update(_image_place(info, machine))
    return replace(facts, **known)


def _second_source(facts: AddressSpaceFacts, known: dict[str, Any], field: str, told: int | None) -> None:
    """A base that the variable tells as well. Where they differ, neither is believed."""
    read = getattr(facts, field)
    if told is None or read == told:
        return
    if read is None:
        known[field] = told
        return
    known[field] = None
    said = f"{field} is {read:#x}, and VMCOREINFO says {told:#x}: neither is used"
    known["refused"] = (*known.get("refused", facts.refused), said)


def _image_place(info: VmcoreInfo, machine: str) -> dict[str, int]:
    """Where the image is, of which no vmlinux tells."""
    start, slide = info.symbols.get("_stext"), info.slide
    if start is None or slide is None:
        return {}
    if machine == "x86_64":  # _stext is _text there
        return {"image_start": start - slide, "runtime_image_start": start}
    modules_end = info.numbers.get("MODULES_END")  # where the image is linked; the text follows its header
    if machine == "aarch64" and modules_end is not None and 0 <= start - slide - modules_end <= 1 << 16:
        return {"image_start": modules_end, "runtime_image_start": modules_end + slide}
    return {}
