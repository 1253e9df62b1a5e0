"""The formats of boot images: the containers, by their headers, and plain kernels.

Containers: x86's bzImage (Documentation/arch/x86/boot.rst), EFI zboot (drivers/firmware/efi/libstub/zboot-header.S),
the flat Image of arm64 and riscv (Documentation/arch/arm64/booting.rst, arch/riscv/boot-image-header.rst), U-Boot's
uImage (include/image.h) and FIT (a device tree), Android's boot image, a unified kernel image (an EFI program with a
.linux section), a compressed file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

from kplug.arch import registry
from kplug.arch.types.record import Architecture
from kplug.arch.types.word import byte_order
from kplug.files.compression import FORMATS, recognise
from kplug.frozen import Frozen
from kplug.named_tuples import NamedTuple

# The bytes that is_boot_image() needs: bzImage's header ends here.
HEAD_BYTES = 0x250


class ImageHeader(Frozen):
    """The header of a flat Image of arm64 or riscv. Sizes and offsets in bytes; `page_size` is None if not stated.

    `image_size` is the kernel's size in memory, including what is not in the file (.bss).
    """

    text_offset: int
    image_size: int
    flags: int
    little_endian: bool
    page_size: int | None


class BadImageError(Exception):
    """What is wrong with the image, for a line that names the file."""


class Part(NamedTuple):
    """The payload of a container: its bytes (from `start`, `size` of them), and what the container says about it."""

    container: str
    start: int
    size: int
    compression: str | None = None  # None: detect it
    unpacked_size: int | None = None
    machine: str | None = None
    is_packed: bool = False  # the container says so


def is_boot_image(head: bytes) -> bool:
    """Whether a file with these first HEAD_BYTES is one for `open_boot_image` (not an ELF file, or a dump)."""
    if head.startswith((b"MZ", _UIMAGE_MAGIC, _FDT_MAGIC, _ANDROID_MAGIC)) or recognise(head) is not None:
        return True
    return _image_machine(head) is not None or _is_bzimage(head) or head[0x24:0x28] in ZIMAGE_MAGICS


# -- what a payload is -------------------------------------------------------------------------------------------------

# By e_type, ET_REL and ET_CORE.
NO_KERNELS: dict[int | None, str] = {
    1: "a module, or another object file (a module is placed with --module)",
    4: "a dump (a dump is given with -c)",
}
ELF_TYPE_END = 18


def kind_of(data: bytes) -> tuple[str, str | None, str] | None:
    """ "ELF" or "flat Image", the machine, and the container's name; None if it is not a plain kernel."""
    if data.startswith(b"\x7fELF"):
        return "ELF", _elf_machine(data), "vmlinux"
    machine = _image_machine(data)
    return ("flat Image", machine, "Image") if machine is not None else None


def _elf_machine(data: bytes) -> str | None:
    if len(data) < 20 or data[5] not in (1, 2):
        return None
    number = int.from_bytes(data[18:20], byte_order(data[5] == 1))
    return _name(registry.by_elf(number, 32 if data[4] == 1 else 64))


def _name(architecture: Architecture | None) -> str | None:
    return None if architecture is None else architecture.name


def elf_type(head: bytes) -> int | None:
    """e_type of an ELF file; None if it is not one."""
    if len(head) < ELF_TYPE_END or not head.startswith(b"\x7fELF"):
        return None
    return int.from_bytes(head[16:ELF_TYPE_END], byte_order(head[5] != 2))


def _image_machine(data: bytes) -> str | None:
    """By the magic at 0x38."""
    return _name(registry.by_flat_image(data[0x38:0x3C])) if len(data) >= 0x40 else None


def image_header(data: bytes) -> ImageHeader | None:
    machine = _image_machine(data)
    if machine is None:
        return None
    text_offset, image_size, flags = struct.unpack_from("<3Q", data, 8)
    page_size = registry.named(machine).flat_image_page_sizes.get(flags >> 1 & 3)
    return ImageHeader(text_offset, image_size, flags, not flags & 1, page_size)


def check_whole(data: bytes) -> None:
    """Check the size of a flat Image that EFI can start: the headers for EFI state the file's size."""
    sections = _pe_sections(data)
    end = max((section.offset + section.size for section in sections), default=0)
    if end > len(data):
        raise BadImageError(f"truncated: its header claims {end} bytes, it has {len(data)}")


# -- containers --------------------------------------------------------------------------------------------------------


def part_of(data: bytes) -> Part | None:
    """The payload of the container `data`; None if it is not a known container. BadImageError for a broken one."""
    for parse in _CONTAINERS:
        part = parse(data)
        if part is not None:
            return _inside(part, data)
    return None


def _inside(part: Part, data: bytes) -> Part:
    if part.start + part.size > len(data):
        end = part.start + part.size
        raise BadImageError(f"truncated: its {part.container} header claims {end} bytes, it has {len(data)}")
    if part.size <= 0:
        raise BadImageError(f"its {part.container} header points to no kernel")
    return part


def _is_bzimage(head: bytes) -> bool:
    return head[0x202:0x206] == b"HdrS"


def _bzimage(data: bytes) -> Part | None:
    """The header gives the payload's place since protocol 2.08 (2.6.26); its last four bytes are the unpacked size."""
    if not _is_bzimage(data) or len(data) < HEAD_BYTES:
        return None
    version = struct.unpack_from("<H", data, 0x206)[0]
    if version < 0x208:
        return None
    offset, size = struct.unpack_from("<2I", data, 0x248)
    start = (data[0x1F1] or 4) * 512 + 512 + offset
    end = start + size
    unpacked = int.from_bytes(data[end - 4 : end], "little") if size >= 4 and end <= len(data) else None
    if data[start : start + 4] == b"\x7fELF":
        unpacked = None
    return Part("bzImage", start, size, unpacked_size=unpacked, is_packed=True)


def _zboot(data: bytes) -> Part | None:
    if data[:2] != b"MZ" or data[4:8] != b"zimg" or len(data) < 0x40:
        return None
    start, size = struct.unpack_from("<2I", data, 8)
    word = data[24:32].split(b"\0")[0].decode("ascii", "backslashreplace")
    name = {"zstd22": "zstd", "xzkern": "xz"}.get(word, word)
    if name not in FORMATS:
        raise BadImageError(f"its EFI zboot header says it is packed with {word!r}, which is not known")
    known = None
    if name not in ("gzip", "zstd") and start + size + 4 <= len(data):
        # The unpacked size is appended, and not counted. Since only gzip and zstd are left (6.14), it is not always
        # there, and there may be other bytes.
        known = int.from_bytes(data[start + size : start + size + 4], "little")
    return Part("EFI zboot", start, size, name, unpacked_size=known, machine=_pe_machine(data), is_packed=True)


_UIMAGE_MAGIC = b"\x27\x05\x19\x56"
_UIMAGE_COMPRESSIONS = (None, "gzip", "bzip2", "lzma", "lzo", "lz4", "zstd")
_UIMAGE_KERNELS, _UIMAGE_MULTI = (2, 14), 4


def _uimage(data: bytes) -> Part | None:
    """U-Boot's legacy image: a header of 64 bytes, big-endian, with checksums of itself and of the data."""
    if not data.startswith(_UIMAGE_MAGIC):
        return None
    if len(data) < 64:
        raise BadImageError("truncated: it ends within its uImage header")
    header_sum, _, size, _, _, data_sum = struct.unpack_from(">6I", data, 4)
    machine, kind, compression = data[29:32]
    if zlib.crc32(data[:4] + bytes(4) + data[8:64]) != header_sum:
        raise BadImageError("the checksum of its uImage header is wrong")
    part = _inside(Part("uImage", 64, size, machine=_name(registry.by_uimage(machine))), data)
    if zlib.crc32(memoryview(data)[64 : 64 + size]) != data_sum:
        raise BadImageError("the checksum of the data in its uImage is wrong")
    if kind == _UIMAGE_MULTI:
        part = _first_of_several(data, part)
    elif kind not in _UIMAGE_KERNELS:
        raise BadImageError(f"a uImage of type {kind}, which is not a kernel")
    if compression >= len(_UIMAGE_COMPRESSIONS):
        raise BadImageError(f"its uImage header says compression {compression}, which is not known")
    name = _UIMAGE_COMPRESSIONS[compression]
    return part._replace(compression=name, is_packed=name is not None)


def _first_of_several(data: bytes, part: Part) -> Part:
    """The kernel is the first of several images; their sizes precede them, terminated by a zero."""
    for count in range(1, 16):
        word = data[60 + 4 * count : 64 + 4 * count]
        if len(word) == 4 and not any(word):
            size = int.from_bytes(data[64:68], "big")
            return part._replace(start=64 + 4 * count, size=size)
    raise BadImageError("its uImage's list of images is not terminated")


_ANDROID_MAGIC = b"ANDROID!"


def _android(data: bytes) -> Part | None:
    """The kernel is on the second page; from version 3 on pages are 4096 bytes (AOSP, bootimg.h)."""
    if not data.startswith(_ANDROID_MAGIC):
        return None
    if len(data) < 44:
        raise BadImageError("truncated: it ends within its Android boot image header")
    size, version = struct.unpack_from("<I", data, 8)[0], struct.unpack_from("<I", data, 40)[0]
    # Before the format had versions, this word was the size of a device tree.
    page = 4096 if version in (3, 4) else struct.unpack_from("<I", data, 36)[0]
    if page & page - 1 or not 2048 <= page <= 1 << 16:
        raise BadImageError(f"its Android boot image header claims pages of {page} bytes")
    return Part("Android boot image", page, size)


class _PeSection(NamedTuple):
    name: bytes
    offset: int
    size: int


def _pe_header(data: bytes) -> int | None:
    """The position of the PE header for EFI; None if there is none."""
    if data[:2] != b"MZ" or len(data) < 0x40:
        return None
    start = int.from_bytes(data[0x3C:0x40], "little")
    return start if data[start : start + 4] == b"PE\0\0" and start + 24 <= len(data) else None


def _pe_machine(data: bytes) -> str | None:
    start = _pe_header(data)
    return None if start is None else _name(registry.by_pe(struct.unpack_from("<H", data, start + 4)[0]))


def _pe_sections(data: bytes) -> list[_PeSection]:
    start = _pe_header(data)
    if start is None:
        return []
    count, optional_size = struct.unpack_from("<H12xH", data, start + 6)
    position, found = start + 24 + optional_size, []
    for _ in range(min(count, 96)):  # the limit of Windows; an EFI program has five to ten
        if position + 40 > len(data):
            break
        name, size, offset = struct.unpack_from("<8s8x2I", data, position)
        found.append(_PeSection(name.rstrip(b"\0"), offset, size))
        position += 40
    return found


def _unified(data: bytes) -> Part | None:
    """A unified kernel image (the UAPI group's specification): a boot image in the section .linux."""
    for section in _pe_sections(data):
        if section.name == b".linux":
            return Part("unified kernel image", section.offset, section.size)
    return None


_FDT_MAGIC = b"\xd0\x0d\xfe\xed"


def _fit(data: bytes) -> Part | None:
    """U-Boot's FIT: a device tree whose /images have the data in a property, or after the tree (`data-offset`)."""
    if not data.startswith(_FDT_MAGIC):
        return None
    for path, properties in _fdt_nodes(data):
        kind = properties.get("type", (0, b""))[1]
        if len(path) == 3 and path[1] == "images" and kind in (b"kernel\0", b"kernel_noload\0"):
            return _fit_part(data, properties)
    raise BadImageError("its FIT has no image of type kernel")


def _fit_part(data: bytes, properties: dict[str, tuple[int, bytes]]) -> Part:
    def number(name: str) -> int | None:
        value = properties.get(name)
        return int.from_bytes(value[1], "big") if value is not None and len(value[1]) == 4 else None

    def word(name: str) -> str:
        return properties.get(name, (0, b""))[1].rstrip(b"\0").decode("ascii", "backslashreplace")

    if "data" in properties:
        start, size = properties["data"][0], len(properties["data"][1])
    else:
        tree_end = int.from_bytes(data[4:8], "big") + 3 & ~3
        offset, position, size = number("data-offset"), number("data-position"), number("data-size") or 0
        start = position if position is not None else tree_end + (offset or 0)
    name = word("compression")
    if name in ("", "none"):
        return Part("FIT", start, size, machine=_name(registry.by_fit(word("arch"))))
    if name not in FORMATS:
        raise BadImageError(f"its FIT says it is packed with {name!r}, which is not known")
    return Part("FIT", start, size, name, machine=_name(registry.by_fit(word("arch"))), is_packed=True)


# Tokens of a flattened device tree (Devicetree Specification, 5.4.1). A FIT has some tens of nodes.
_FDT_BEGIN, _FDT_END_NODE, _FDT_PROPERTY, _FDT_NOP, _FDT_END = 1, 2, 3, 4, 9
_MOST_FDT_TOKENS = 100_000


def _fdt_nodes(data: bytes) -> Iterator[tuple[tuple[str, ...], dict[str, tuple[int, bytes]]]]:
    """Each node, when it ends: its path, and the positions and values of its properties."""
    if len(data) < 40:
        raise BadImageError("truncated: it ends within its device tree header")
    total, position, strings = struct.unpack_from(">3I", data, 4)
    if total > len(data):
        raise BadImageError(f"truncated: its device tree header claims {total} bytes, it has {len(data)}")
    open_nodes: list[tuple[str, dict[str, tuple[int, bytes]]]] = []
    for _ in range(_MOST_FDT_TOKENS):
        token = int.from_bytes(data[position : position + 4], "big") if position + 4 <= total else _FDT_END
        position += 4
        if token == _FDT_BEGIN:
            end = data.find(b"\0", position, total)
            if end < 0 or end - position > 256 or len(open_nodes) > 16:
                break
            open_nodes.append((data[position:end].decode("ascii", "backslashreplace"), {}))
            position = end + 4 & ~3
        elif token == _FDT_PROPERTY and open_nodes and position + 8 <= total:
            size, name_at = struct.unpack_from(">2I", data, position)
            position += 8
            name_end = data.find(b"\0", strings + name_at, total)
            if position + size > total or not 0 <= name_end - strings - name_at <= 256:
                break
            name = data[strings + name_at : name_end].decode("ascii", "backslashreplace")
            open_nodes[-1][1][name] = (position, data[position : position + size])
            position = position + size + 3 & ~3
        elif token == _FDT_END_NODE and open_nodes:
            yield tuple(name for name, _ in open_nodes), open_nodes.pop()[1]
        elif token == _FDT_END and not open_nodes:
            return
        elif token != _FDT_NOP:
            break
    raise BadImageError("its device tree is broken")


# arch/arm/boot/compressed/head.S. The header does not give the packed kernel's position: it is searched for.
ZIMAGE_MAGICS = (b"\x18\x28\x6f\x01", b"\x01\x6f\x28\x18")


def _compressed(data: bytes) -> Part | None:
    """A compressed file: Image.gz, and a kernel that somebody packed."""
    name = recognise(data)
    if name is None:
        return None
    return Part(f"{name} file", 0, len(data), name, is_packed=True)


_CONTAINERS: tuple[Callable[[bytes], Part | None], ...] = (
    _zboot,
    _bzimage,
    _unified,
    _uimage,
    _fit,
    _android,
    _compressed,
)
