"""A kernel's VMCOREINFO: its place in the kernel's memory, and its facts about the address space. Needs no drgn."""

from __future__ import annotations

from typing import Any

from kplug.arch.registry import named
from kplug.arch.types.word import WIDEST_MASK
from kplug.frozen import replace
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug.memory.reading import Read
from kplug.memory.variables import memory_facts
from kplug.memory.vmcoreinfo import VmcoreInfo, note_in_memory
from kplug.space.address_space import AddressSpaceFacts


def kernels_note(placed: PlacedImage, read: Read) -> VmcoreInfo | None:
    """The text of VMCOREINFO in the kernel's memory; None if there is none, or it is not this kernel's."""

    def address(name: str) -> int | None:
        symbols = placed.image.symbols.exact(name)
        return placed.symbol_address(symbols[0]) if symbols else None

    word = placed.image.elf.word
    info = note_in_memory(read, address("vmcoreinfo_data"), address("vmcoreinfo_size"), word)
    return None if info is None or _moved_otherwise(info, placed) else info


def _moved_otherwise(info: VmcoreInfo, placed: PlacedImage) -> bool:
    return bool(kaslr_offset_of(info, placed.image) - placed.placement.kaslr_offset & placed.placement.mask)


def kaslr_offset_of(info: VmcoreInfo, image: KernelImage) -> int:
    """The distance of the kernel that `info` describes from the link address of `image`, in bytes."""
    if info.kaslr_offset is not None:
        return info.kaslr_offset
    for symbol in image.symbols.exact("_stext"):
        if "_stext" in info.symbols:
            return info.symbols["_stext"] - symbol.address
    return 0


def with_offset(info: VmcoreInfo, kaslr_offset: int) -> VmcoreInfo:
    """`info` with the KASLR offset, which i386's lacks: drgn moves the vmlinux by what it says."""
    if info.kaslr_offset is not None or not kaslr_offset:
        return info
    return VmcoreInfo(f"{info.text.rstrip()}\nKERNELOFFSET={kaslr_offset & WIDEST_MASK:x}\n")


def noted_facts(placed: PlacedImage, read: Read) -> AddressSpaceFacts:
    """The facts about a kernel's address space in its memory: from its variables and its VMCOREINFO."""
    facts = memory_facts(placed, read)
    # Facts without a variable: arm64's 52-bit addresses (since 6.9), its pointer authentication, its areas' bounds.
    note = kernels_note(placed, read)
    return with_vmcoreinfo(facts, note, placed.image.machine) if note is not None else facts


def with_vmcoreinfo(facts: AddressSpaceFacts, info: VmcoreInfo, machine: str) -> AddressSpaceFacts:
    """`facts` combined with those in VMCOREINFO, which come first if both have one."""
    known: dict[str, Any] = {}
    architecture = named(machine)
    for name, field in architecture.vmcoreinfo_facts:
        if name in info.numbers:
            known[field] = info.numbers[name]
    if info.page_size is not None:
        known["page_size"] = info.page_size
    if "page" in info.sizes:
        known["struct_page_size"] = info.sizes["page"]
    if architecture.vmcoreinfo_derived is not None:
        known.update(architecture.vmcoreinfo_derived(info.numbers))
    for source in architecture.second_sources:
        noted = info.numbers.get(source.number) if source.number is not None else info.symbols.get(source.symbol or "")
        _second_source(facts, known, source.fact, noted)
    if facts.image_start is None:
        known.update(_image_place(info, machine))
    return replace(facts, **known)


def _second_source(facts: AddressSpaceFacts, known: dict[str, Any], field: str, noted: int | None) -> None:
    """A base that is in a variable as well. If they differ, neither is used."""
    read = getattr(facts, field)
    if noted is None or read == noted:
        return
    if read is None:
        known[field] = noted
        return
    known[field] = None
    said = f"{field} is {read:#x}, and VMCOREINFO says {noted:#x}: neither is used"
    known["refused"] = (*known.get("refused", facts.refused), said)


def _image_place(info: VmcoreInfo, machine: str) -> dict[str, int]:
    """The place of an image without a vmlinux."""
    start, kaslr_offset = info.symbols.get("_stext"), info.kaslr_offset
    if start is None or kaslr_offset is None:
        return {}
    image_start = named(machine).image_start
    linked = image_start(start - kaslr_offset, info.numbers) if image_start is not None else None
    return {} if linked is None else {"image_start": linked, "runtime_image_start": linked + kaslr_offset}
