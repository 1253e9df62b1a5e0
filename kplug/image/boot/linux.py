"""The kernel's own boot images: bzImage, zImage, what IPL loads, ELF files that unpack themselves."""

from __future__ import annotations

from kplug.arch import registry
from kplug.image.boot.formats import Container, Part
from kplug.image.boot.plain import elf_machine, is_elf_program, name_of
from kplug.image.boot.window import Window
from kplug.image.elf.file import ELF_MAGIC

# The bytes of a file that recognise it: bzImage's header ends here.
HEAD_BYTES = 0x250


def _bzimage(data: Window) -> list[Part] | None:
    """The header gives the payload's place since protocol 2.08 (2.6.26); its last four bytes are the unpacked size."""
    if len(data) < HEAD_BYTES:
        return None
    version = data.unpack("<H", 0x206)[0]
    if version < 0x208:
        return [Part(0, len(data), is_exact=False)]
    offset, size = data.unpack("<2I", 0x248)
    start = (data.unpack("B", 0x1F1)[0] or 4) * 512 + 512 + offset
    if data[start : start + 4] == ELF_MAGIC:  # CONFIG_KERNEL_UNCOMPRESSED
        return [Part(start, size)]
    end = start + size
    unpacked = int.from_bytes(data[end - 4 : end], "little") if size >= 4 and end <= len(data) else None
    return [Part(start, size, unpacked_size=unpacked, is_packed=True)]


def _zimage(data: Window) -> list[Part] | None:
    """The header says where the file ends (what follows may be a device tree), not where the packed kernel is."""
    head = data[:0x30]
    if len(head) < 0x30:
        return None
    magic, start, end = data.unpack("<3I" if head[0x24:0x28] == _ZIMAGE_MAGICS[0] else ">3I", 0x24)
    size = end - start
    if size and size <= len(head):  # a table of numbers, one of which is the magic
        return None
    return [Part(0, min(size or len(data), len(data)), machine=name_of(registry.by_zimage(magic)), is_exact=False)]


def _ipl(data: Window) -> list[Part] | None:
    """Boot loaders know it by a string before its second entry; nothing says where the packed kernel is."""
    architecture = registry.by_entry_string(lambda start, end: data[start:end])
    return [Part(0, len(data), machine=name_of(architecture), is_exact=False)]


def _self_extracting(data: Window) -> list[Part] | None:
    """An ELF file that is not the kernel itself: powerpc's zImage, mips's and loongarch's vmlinuz."""
    return [Part(0, len(data), machine=elf_machine(data), is_exact=False)] if is_elf_program(data) else None


# Little-endian and big-endian.
_ZIMAGE_MAGICS = (b"\x18\x28\x6f\x01", b"\x01\x6f\x28\x18")
BZIMAGE = Container(
    "bzImage",
    "Documentation/arch/x86/boot.rst",
    "by its header; before 2.6.26 searched for",
    (b"HdrS",),
    0x202,
    _bzimage,
)
ZIMAGE = Container("zImage", "arch/arm/boot/compressed/head.S", "searched for in it", _ZIMAGE_MAGICS, 0x24, _zimage)
# After the PSW to start with: two words for each of the channel programs that load the rest.
IPL = Container(
    "IPL image",
    "arch/s390/boot/head.S",
    "searched for in it",
    (bytes.fromhex("02000018 60000050 02000068 60000050"),),
    8,
    _ipl,
    searched=False,
)
SELF_EXTRACTING = Container(
    "self-extracting ELF file",
    "arch/powerpc/boot/wrapper, arch/mips/boot/compressed",
    "searched for in it, if it has no banner of its own",
    (ELF_MAGIC,),
    0,
    _self_extracting,
    searched=False,
)
