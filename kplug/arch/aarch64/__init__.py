"""aarch64, which the kernel's sources call arm64."""

from __future__ import annotations

from kplug.arch.types.boundaries import BoundaryRows
from kplug.arch.types.memory_map import AddressSpace, AddressSpaceFacts
from kplug.arch.types.record import BIG, LITTLE, Architecture, ElfMachine, ElfWords, Names, Resource


def _memory_map(facts: AddressSpaceFacts) -> AddressSpace:
    from kplug.arch.aarch64.memory_map import address_space

    return address_space(facts)


def _boundaries() -> BoundaryRows:
    from kplug.arch.aarch64.boundaries import ROWS

    return ROWS


def _image_physical(address: int, facts: AddressSpaceFacts) -> int | None:
    return None if facts.kimage_voffset is None else address - facts.kimage_voffset


# By VA_BITS, with 48 and 52 as the default (arch/arm64/Kconfig).
_KASAN_SHADOW_OFFSETS = {
    36: 0xDFFFFFF800000000,
    39: 0xDFFFFFC000000000,
    42: 0xDFFFFE0000000000,
    47: 0xDFFFC00000000000,
}


def _kasan_shadow_offset(facts: AddressSpaceFacts) -> int:
    return _KASAN_SHADOW_OFFSETS.get(facts.va_bits or 0, 0xDFFF800000000000)


ARCHITECTURE = Architecture(
    name="aarch64",
    title="arm64",
    names=Names(
        elf=(ElfMachine(183, 64),),
        kernel="arm64",
        uname=("aarch64_be",),
        debian=("arm64",),
        drgn="AARCH64",
        gdb=("aarch64",),
        qemu=("aarch64",),
        flat_image=b"ARM\x64",
        uimage=22,
        pe=0xAA64,
        fit=("arm64",),
    ),
    byte_orders=(LITTLE, BIG),
    elf=ElfWords(
        segment_types={0x70000002: "AARCH64_MEMTAG_MTE"},
        mapping_symbols=True,
        properties={0xC0000000: ("AArch64 feature", ("BTI", "PAC", "GCS"))},  # ELF for the Arm 64-bit Architecture
    ),
    flat_image_page_sizes={1: 1 << 12, 2: 1 << 14, 3: 1 << 16},  # Documentation/arch/arm64/booting.rst
    telling_symbols=("__primary_switched", "primary_entry", "el1_sync", "el1t_64_sync_handler"),
    build_numbers=("text_size", "_kernel_flags_le_lo32", "PECOFF_FILE_ALIGNMENT"),
    vmcoreinfo_numbers=("kimage_voffset",),  # 4.17, arch_crash_save_vmcoreinfo()
    # arch/arm64/kernel/setup.c: its code begins at _stext or at _text.
    iomem=(
        Resource("Kernel code", None, "__init_begin"),
        Resource("Kernel data", "_sdata", "_end"),
    ),
    boundaries=_boundaries,
    memory_map=_memory_map,
    image_physical=_image_physical,
    poison_delta=0xDEAD000000000000,
    kasan_shadow_offset=_kasan_shadow_offset,
    top_byte_tags=True,
    signed_pointers=True,
    char_signed=False,
)
