"""Kernels that are packed in nothing: ELF files, flat Images of arm64 and riscv, and what identifies each."""

from __future__ import annotations

import contextlib
import struct

from kplug.arch import registry
from kplug.arch.types.record import Architecture
from kplug.arch.types.word import byte_order, struct_order
from kplug.frozen import Frozen
from kplug.image.banner import START as BANNER
from kplug.image.boot.efi import pe_sections
from kplug.image.boot.formats import BadImageError
from kplug.image.boot.window import Window
from kplug.image.elf.file import ELF_MAGIC

# By e_type, ET_REL and ET_CORE.
NO_KERNELS: dict[int | None, str] = {
    1: "a module, or another object file (a module is placed with --module)",
    4: "a dump (a dump is given with -c)",
}
ELF_TYPE_END = 18
_EXECUTABLE_TYPES = (2, 3)
# A flat Image's header, and where its magic is.
IMAGE_HEADER_BYTES, IMAGE_MAGIC_AT = 0x40, 0x38
# What Image headers have as zeros: res3 of arm64, res2 of riscv.
_RESERVED = slice(0x28, 0x30)
# Flags that are defined so far: byte order, page size, where it may be placed.
_MOST_FLAGS = 1 << 8
_MOST_IMAGE_BYTES = 1 << 30
_ELF_HEADER_BYTES = 64
# By class: where e_phoff is, the fields from there on, e_ehsize and e_phentsize, p_offset and p_filesz (gABI).
_ELF_FORMS = {32: (28, "3I5H", (52, 32), "4xI8xI"), 64: (32, "2QI5H", (64, 56), "8xQ16xQ")}
_MOST_SEGMENTS = 64


class ImageHeader(Frozen):
    """The header of a flat Image of arm64 or riscv. Sizes and offsets in bytes; `page_size` is None if not stated.

    `image_size` is the kernel's size in memory, including what is not in the file (.bss).
    """

    text_offset: int
    image_size: int
    flags: int
    little_endian: bool
    page_size: int | None


def elf_machine(data: Window) -> str | None:
    head = data[:20]
    if len(head) < 20 or head[5] not in (1, 2):
        return None
    number = int.from_bytes(head[18:20], byte_order(head[5] == 1))
    return name_of(registry.by_elf(number, 32 if head[4] == 1 else 64))


def name_of(architecture: Architecture | None) -> str | None:
    return None if architecture is None else architecture.name


def elf_type(head: bytes) -> int | None:
    """e_type of an ELF file; None if it is not one."""
    if len(head) < ELF_TYPE_END or not head.startswith(ELF_MAGIC):
        return None
    return int.from_bytes(head[16:ELF_TYPE_END], byte_order(head[5] != 2))


def is_elf_program(data: Window) -> bool:
    """Whether it is an ELF file that can be executed, as kernels are, and what unpacks itself."""
    return elf_type(data[:ELF_TYPE_END]) in _EXECUTABLE_TYPES


def image_machine(data: Window) -> str | None:
    """The machine of a flat Image, by its magic; None if it is not one."""
    magic = data[IMAGE_MAGIC_AT : IMAGE_MAGIC_AT + 4]
    return name_of(registry.by_flat_image(magic)) if len(data) >= IMAGE_HEADER_BYTES else None


def image_header(data: Window) -> ImageHeader | None:
    machine = image_machine(data)
    if machine is None:
        return None
    text_offset, image_size, flags = data.unpack("<3Q", 8)
    page_size = registry.named(machine).flat_image_page_sizes.get(flags >> 1 & 3)
    return ImageHeader(text_offset, image_size, flags, not flags & 1, page_size)


def is_certain_image(data: Window) -> bool:
    """Whether all of the header is an Image's, not the magic alone (which the kernel's own code for kexec has)."""
    header = image_header(data)
    if header is None or any(data[_RESERVED]):
        return False
    return header.flags < _MOST_FLAGS and header.text_offset < header.image_size <= _MOST_IMAGE_BYTES


def image_end(data: Window) -> int:
    """Where in the data a flat Image ends: by its sections, or else where its memory would end, .bss included."""
    header = image_header(data)
    size = header.image_size if header is not None and is_certain_image(data) else len(data)
    return min(_sections_end(data) or size, len(data))


def _sections_end(data: Window) -> int:
    """Where the sections of an EFI program end; 0 if there are none."""
    return max((section.offset + section.size for section in pe_sections(data)), default=0)


def is_elf_kernel(data: Window) -> bool:
    """Whether it is an ELF file that is a kernel itself: one to be executed, with a banner."""
    return is_elf_program(data) and BANNER in data


def check_whole(data: Window) -> None:
    """Check the size of a file whose headers state it: an ELF file, or a flat Image that EFI can start."""
    end = _elf_end(data) or _sections_end(data)
    if end > len(data):
        raise BadImageError(f"truncated: its header claims {end} bytes, it has {len(data)}")


def elf_size(data: Window) -> int | None:
    """The bytes that the headers of an executable ELF file claim, after which there may be another file.

    None if they are not such headers, or if there are fewer bytes.
    """
    end = _elf_end(data)
    return end if end is not None and end <= len(data) else None


def _elf_end(data: Window) -> int | None:
    head = data[:_ELF_HEADER_BYTES]
    bits = {1: 32, 2: 64}.get(head[4] if len(head) == _ELF_HEADER_BYTES else 0)
    if bits is None or head[5] not in (1, 2) or head[6] != 1 or not is_elf_program(data):
        return None
    order, (start, form, sizes, program_form) = struct_order(head[5] == 1), _ELF_FORMS[bits]
    phoff, shoff, _, *actual_sizes, phnum, shentsize, shnum = struct.unpack_from(order + form, head, start)
    if tuple(actual_sizes) != sizes or not 0 < phnum <= _MOST_SEGMENTS:
        return None
    end: int = max(phoff + sizes[1] * phnum, shoff + shentsize * shnum)
    with contextlib.suppress(struct.error):
        for number in range(phnum):
            offset, size = data.unpack(order + program_form, phoff + number * sizes[1])
            end = max(end, offset + size)
        return end
    return None
