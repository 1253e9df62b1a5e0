"""Boot images: what a boot loader is given, and the kernel that is packed in it.

Containers: x86's bzImage (Documentation/arch/x86/boot.rst), EFI zboot (drivers/firmware/efi/libstub/zboot-header.S),
the flat Image of arm64 and riscv (Documentation/arch/arm64/booting.rst, arch/riscv/boot-image-header.rst), U-Boot's
uImage (include/image.h) and FIT (a device tree), Android's boot image, a unified kernel image (an EFI program with a
.linux section), a compressed file. What is none of them is searched for magics as scripts/extract-vmlinux does.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from kplug.errors import InputError
from kplug.image.compression import (
    FORMATS,
    ProgressCallback,
    TooLargeError,
    UnpackError,
    decompress,
    decompressed_start,
    recognise,
)
from kplug.image.elf import open_file
from kplug.image.elf_names import MACHINES

# What is_boot_image() wants to see: bzImage's header ends here.
HEAD_BYTES = 0x250
# Kernels unpack to 20 to 200 MiB; all of a debug build's without its DWARF to less than this.
MAX_UNPACKED_BYTES = 1 << 29
MAX_FILE_BYTES = 1 << 29
# zstd -22 packs a kernel to a fifth. What unpacks to far more than its size is made to fill memory.
MAX_UNPACKING_RATIO = 100
_ALWAYS_UNPACKED_BYTES = 1 << 24
# An Android image that holds a bzImage, a FIT with an Image.gz: no real one is deeper.
_MOST_CONTAINERS = 4
# A magic of three bytes turns up about four times in 64 MiB of noise.
_MOST_CANDIDATES = 64
_MOST_WHOLE_CANDIDATES = 8
_BANNER = b"Linux version "


@dataclass(frozen=True)
class ImageHeader:
    """The header of a flat Image of arm64 or riscv. Sizes and offsets in bytes; `page_size` None where it is not said.

    `image_size` is what the kernel takes in memory, with what is not in the file (.bss).
    """

    text_offset: int
    image_size: int
    flags: int
    little_endian: bool
    page_size: int | None


@dataclass(frozen=True)
class BootImage:
    """A boot image that has been opened.

    `containers` run from the outside in ("uImage", "Image"). `payload` is the kernel: `kind` says whether it is an
    "ELF" or a "flat Image", whose `header` is there if it has one. `offset` and `length` are those of what is packed
    in the file (of the whole kernel where nothing is). `machine` is a name as in an ELF's, or None. `sources` says how
    each of `payload`, `compression` and `machine` is known; `warnings` are for the user.
    """

    path: str
    containers: tuple[str, ...]
    compression: str | None
    offset: int
    length: int
    payload: bytes = field(repr=False)
    kind: str
    machine: str | None
    header: ImageHeader | None
    sources: dict[str, str]
    warnings: tuple[str, ...] = ()


def is_boot_image(head: bytes) -> bool:
    """Whether a file whose first HEAD_BYTES are these is for `open_boot_image` (and not an ELF file, or a dump)."""
    if head.startswith((b"MZ", _UIMAGE_MAGIC, _FDT_MAGIC, _ANDROID_MAGIC)) or recognise(head) is not None:
        return True
    return _image_machine(head) is not None or _is_bzimage(head) or head[0x24:0x28] in _ZIMAGE_MAGICS


def open_boot_image(path: str, progress: ProgressCallback | None = None) -> BootImage:
    """The kernel in the boot image at `path`. `progress` is told the fraction of the unpacking that is done.

    An ELF file is taken as it is. InputError, one line naming the file, for one without a kernel, a truncated one, one
    whose header, checksum or size contradicts its bytes, and one that unpacks to more than a kernel does.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            head = os.pread(file.fileno(), _ELF_TYPE_END, 0)
            _check_file(path, head, size)
            data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise InputError(f"{path}: it is empty")
    try:
        return _Opening(path, data, progress).opened()
    except (UnpackError, _BadImageError) as error:
        raise InputError(f"{path}: {error}") from None


def _check_file(path: str, head: bytes, size: int) -> None:
    """InputError for what is seen to be no boot image before it is read."""
    if _elf_type(head) in _NO_KERNELS:
        raise InputError(f"{path}: not a boot image but {_NO_KERNELS[_elf_type(head)]}")
    if size > MAX_FILE_BYTES and head.startswith(b"\x7fELF"):
        raise InputError(f"{path}: an ELF file of {size >> 20} MiB, not a boot image (a vmlinux is given with -s)")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{path}: {size >> 20} MiB; no boot image is larger than {MAX_FILE_BYTES >> 20} MiB")


class _BadImageError(Exception):
    """What is wrong with the image, for a line that names the file."""


class _Part(NamedTuple):
    """What lies in a container: its bytes (from `start`, `size` of them), and what the container says of it."""

    container: str
    start: int
    size: int
    compression: str | None = None  # None: look
    unpacked_size: int | None = None
    machine: str | None = None
    is_packed: bool = False  # the container says so


class _Opening:
    """One image, opened from the outside in."""

    def __init__(self, path: str, data: bytes, progress: ProgressCallback | None) -> None:
        self._path = path
        self._data = data
        self._progress = progress
        self._containers: list[str] = []
        self._sources: dict[str, str] = {}
        self._warnings: list[str] = []
        self._machine: str | None = None

    def opened(self) -> BootImage:
        data, offset = self._data, 0
        for _ in range(_MOST_CONTAINERS):
            if _kind(data) is not None:
                return self._result(data, None, offset, len(data))
            part = _part(data)
            if part is None:
                break
            self._containers.append(part.container)
            if part.machine is not None:
                self._machine = part.machine
                self._sources["machine"] = f"the header of the {part.container}"
            packed = data[part.start : part.start + part.size]
            offset += part.start
            self._sources["payload"] = f"the header of the {part.container}"
            if not part.is_packed and recognise(packed) is None:
                if self._machine is not None and _part(packed) is None and _kind(packed) is None:
                    return self._raw(packed, None, offset, len(packed))  # a uImage of bare machine code
                data = packed
                continue
            name = part.compression or recognise(packed)
            if name is None:
                if part.container == "bzImage" and packed.startswith(b"\x7fELF"):  # CONFIG_KERNEL_UNCOMPRESSED
                    return self._result(packed, None, offset, len(packed))
                raise _BadImageError(f"what its {part.container} header points to is packed in no known way")
            self._sources["compression"] = "its magic"
            unpacked = self._unpack(name, packed, part.unpacked_size, part.container)
            if _kind(unpacked) is not None:
                return self._result(unpacked, name, offset, len(packed))
            if _part(unpacked) is None:
                return self._raw(unpacked, name, offset, len(packed))
            data, offset = unpacked, 0
        return self._search(data, offset)

    def _unpack(self, name: str, packed: bytes, size: int | None, container: str) -> bytes:
        """The kernel that is packed as `packed`, of `size` bytes if the container says so."""
        # lzma's is no more than one usual choice of its parameters.
        if name != "lzma" and not packed.startswith(FORMATS[name].magic):
            raise _BadImageError(f"its {container} header says {name}, and the data is not {name}")
        most = min(MAX_UNPACKED_BYTES, max(_ALWAYS_UNPACKED_BYTES, MAX_UNPACKING_RATIO * len(packed)))
        if size is not None and size > most:
            raise _BadImageError(f"claims to unpack to {size} bytes, from {len(packed)}; no kernel does")
        try:
            unpacked = decompress(name, packed, most if size is None else size, self._progress)
        except TooLargeError as error:
            if size is None:
                raise _BadImageError(f"{error}; no kernel of its size does") from None
            raise _BadImageError(f"says that it unpacks to {size} bytes, and its {name} data has more") from None
        if size is None and name != "gzip" and container != "EFI zboot" and len(packed) - unpacked.consumed == 4:
            # The kernel's own scripts append the size (Makefile.lib, size_append).
            size = int.from_bytes(packed[-4:], "little")
        if size is not None and size != len(unpacked.data):
            raise _BadImageError(
                f"says that it unpacks to {size} bytes, and its {name} data unpacks to {len(unpacked.data)}"
            )
        rest = len(packed) - unpacked.consumed
        if container == f"{name} file" and size is None and rest:
            self._warnings.append(f"{rest} bytes follow the {name} data (an appended device tree?)")
        return unpacked.data

    def _result(self, payload: bytes, compression: str | None, offset: int, length: int) -> BootImage:
        kind, machine, name = _kind(payload) or ("flat Image", self._machine, "")
        if name:
            self._containers.append(name)
        if machine is not None:
            self._sources["machine"] = "the ELF header" if kind == "ELF" else "the header of the Image"
        self._sources.setdefault("payload", f"the magic of an {name}")
        header = _image_header(payload) if kind != "ELF" else None
        if kind != "ELF":
            _check_whole(payload)
        return BootImage(
            self._path,
            tuple(self._containers),
            compression,
            offset,
            length,
            payload,
            kind,
            machine or self._machine,
            header,
            self._sources,
            tuple(self._warnings),
        )

    def _raw(self, payload: bytes, compression: str | None, offset: int, length: int) -> BootImage:
        """Machine code without a header (what 32-bit arm and powerpc boot): a kernel, if it has a banner."""
        if _BANNER not in payload:
            raise _BadImageError(f"no kernel in the {self._containers[-1]}: no ELF, no Image, no banner")
        return BootImage(
            self._path,
            tuple(self._containers),
            compression,
            offset,
            length,
            payload,
            "flat Image",
            self._machine,
            None,
            self._sources,
            tuple(self._warnings),
        )

    def _search(self, data: bytes, offset: int) -> BootImage:
        """As scripts/extract-vmlinux: format after format, the first that unpacks to a kernel."""
        tried: list[tuple[str, int]] = []
        reason, view = "", memoryview(data)
        for name, each in FORMATS.items():
            for position in _positions(data, each.magic):
                packed = view[position:]
                try:
                    start = decompressed_start(name, packed, HEAD_BYTES)
                except UnpackError as error:
                    reason = reason or _told(name, error)
                    continue
                if _kind(start) is not None:
                    return self._found(name, data, position, offset)
                tried.append((name, position))
        # What has no header is told by its banner, and has to be unpacked whole for that.
        for name, position in tried[:_MOST_WHOLE_CANDIDATES]:
            try:
                most = min(MAX_UNPACKED_BYTES, max(_ALWAYS_UNPACKED_BYTES, MAX_UNPACKING_RATIO * len(data)))
                if _BANNER in decompress(name, view[position:], most).data:
                    return self._found(name, data, position, offset)
            except UnpackError as error:
                reason = reason or _told(name, error)
        raise _BadImageError(f"no kernel found in it{f' ({reason})' if reason else ''}")

    def _found(self, name: str, data: bytes, position: int, offset: int) -> BootImage:
        self._sources["payload"] = f"the search for magics ({name}'s at {offset + position:#x})"
        self._sources["compression"] = "its magic"
        packed = memoryview(data)[position:]
        most = min(MAX_UNPACKED_BYTES, max(_ALWAYS_UNPACKED_BYTES, MAX_UNPACKING_RATIO * len(packed)))
        unpacked = decompress(name, packed, most, self._progress)
        if not self._containers:
            zimage = data[0x24:0x28] in _ZIMAGE_MAGICS
            self._containers.append("zImage" if zimage else "unknown container")
        if _kind(unpacked.data) is None:
            return self._raw(unpacked.data, name, offset + position, unpacked.consumed)
        return self._result(unpacked.data, name, offset + position, unpacked.consumed)


def _told(name: str, error: UnpackError) -> str:
    """The error if the data is surely of that format, else nothing: a short magic is found in any noise."""
    return f"{error}" if len(FORMATS[name].magic) > 4 or "nothing here" in str(error) else ""


def _positions(data: bytes, magic: bytes) -> Iterator[int]:
    position = data.find(magic)
    for _ in range(_MOST_CANDIDATES):
        if position < 0:
            return
        yield position
        position = data.find(magic, position + 1)


# -- what a payload is -------------------------------------------------------------------------------------------------

# Magic at 0x38, and the machine (arch/arm64/include/asm/image.h, arch/riscv/include/asm/image.h).
_IMAGE_MACHINES = {b"ARM\x64": "aarch64", b"RSC\x05": "riscv"}
_ELF_MACHINE_NUMBERS = {
    3: "EM_386", 8: "EM_MIPS", 20: "EM_PPC", 21: "EM_PPC64", 22: "EM_S390", 40: "EM_ARM", 62: "EM_X86_64",
    183: "EM_AARCH64", 243: "EM_RISCV", 258: "EM_LOONGARCH",
}  # fmt: skip


# By e_type, ET_REL and ET_CORE.
_NO_KERNELS: dict[int | None, str] = {
    1: "a module, or another object file (a module is placed with --module)",
    4: "a dump (a dump is given with -c)",
}
_ELF_TYPE_END = 18


def _kind(data: bytes) -> tuple[str, str | None, str] | None:
    """ "ELF" or "flat Image", its machine, and the word for a container; None for what is not a kernel by itself."""
    if data.startswith(b"\x7fELF"):
        return "ELF", _elf_machine(data), "vmlinux"
    machine = _image_machine(data)
    return ("flat Image", machine, "Image") if machine is not None else None


def _elf_machine(data: bytes) -> str | None:
    if len(data) < 20 or data[5] not in (1, 2):
        return None
    number = int.from_bytes(data[18:20], "little" if data[5] == 1 else "big")
    name = _ELF_MACHINE_NUMBERS.get(number)
    return MACHINES.get(name, name.replace("EM_", "").lower()) if name is not None else None


def _elf_type(head: bytes) -> int | None:
    """e_type of an ELF file; None for what is none."""
    if len(head) < _ELF_TYPE_END or not head.startswith(b"\x7fELF"):
        return None
    return int.from_bytes(head[16:_ELF_TYPE_END], "big" if head[5] == 2 else "little")


def _image_machine(data: bytes) -> str | None:
    return _IMAGE_MACHINES.get(data[0x38:0x3C]) if len(data) >= 0x40 else None


def _image_header(data: bytes) -> ImageHeader | None:
    machine = _image_machine(data)
    if machine is None:
        return None
    text_offset, image_size, flags = struct.unpack_from("<3Q", data, 8)
    page_size = {1: 1 << 12, 2: 1 << 14, 3: 1 << 16}.get(flags >> 1 & 3) if machine == "aarch64" else None
    return ImageHeader(text_offset, image_size, flags, not flags & 1, page_size)


def _check_whole(data: bytes) -> None:
    """A flat Image that EFI can start says, in the headers for it, how large its file is."""
    sections = _pe_sections(data)
    end = max((section.offset + section.size for section in sections), default=0)
    if end > len(data):
        raise _BadImageError(f"truncated: its header tells of {end} bytes, it has {len(data)}")


# -- containers --------------------------------------------------------------------------------------------------------


def _part(data: bytes) -> _Part | None:
    """What is in the container that `data` is; None for none that is known. _BadImageError for a broken one."""
    for parse in _CONTAINERS:
        part = parse(data)
        if part is not None:
            return _inside(part, data)
    return None


def _inside(part: _Part, data: bytes) -> _Part:
    if part.start + part.size > len(data):
        end = part.start + part.size
        raise _BadImageError(f"truncated: its {part.container} header tells of {end} bytes, it has {len(data)}")
    if part.size <= 0:
        raise _BadImageError(f"its {part.container} header tells of no kernel")
    return part


def _is_bzimage(head: bytes) -> bool:
    return head[0x202:0x206] == b"HdrS"


def _bzimage(data: bytes) -> _Part | None:
    """The payload's place is in the header since protocol 2.08 (2.6.26); its last four bytes are the unpacked size."""
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
    return _Part("bzImage", start, size, unpacked_size=unpacked, is_packed=True)


def _zboot(data: bytes) -> _Part | None:
    if data[:2] != b"MZ" or data[4:8] != b"zimg" or len(data) < 0x40:
        return None
    start, size = struct.unpack_from("<2I", data, 8)
    word = data[24:32].split(b"\0")[0].decode("ascii", "backslashreplace")
    name = {"zstd22": "zstd", "xzkern": "xz"}.get(word, word)
    if name not in FORMATS:
        raise _BadImageError(f"its EFI zboot header says it is packed with {word!r}, which is not known")
    known = None
    if name not in ("gzip", "zstd") and start + size + 4 <= len(data):
        # The unpacked size is appended, and not counted. Since only gzip and zstd are left (6.14), it is not always
        # there, and other words are.
        known = int.from_bytes(data[start + size : start + size + 4], "little")
    return _Part("EFI zboot", start, size, name, unpacked_size=known, machine=_pe_machine(data), is_packed=True)


_UIMAGE_MAGIC = b"\x27\x05\x19\x56"
_UIMAGE_COMPRESSIONS = (None, "gzip", "bzip2", "lzma", "lzo", "lz4", "zstd")
_UIMAGE_MACHINES = {2: "arm", 3: "i386", 5: "mips", 7: "ppc", 22: "aarch64", 24: "x86_64", 26: "riscv"}
_UIMAGE_KERNELS, _UIMAGE_MULTI = (2, 14), 4


def _uimage(data: bytes) -> _Part | None:
    """U-Boot's legacy image: a header of 64 bytes, big-endian, with checksums of itself and of the data."""
    if not data.startswith(_UIMAGE_MAGIC):
        return None
    if len(data) < 64:
        raise _BadImageError("truncated: it ends within its uImage header")
    header_sum, _, size, _, _, data_sum = struct.unpack_from(">6I", data, 4)
    machine, kind, compression = data[29:32]
    if zlib.crc32(data[:4] + bytes(4) + data[8:64]) != header_sum:
        raise _BadImageError("the checksum of its uImage header is wrong")
    part = _inside(_Part("uImage", 64, size, machine=_UIMAGE_MACHINES.get(machine)), data)
    if zlib.crc32(memoryview(data)[64 : 64 + size]) != data_sum:
        raise _BadImageError("the checksum of the data in its uImage is wrong")
    if kind == _UIMAGE_MULTI:
        part = _first_of_several(data, part)
    elif kind not in _UIMAGE_KERNELS:
        raise _BadImageError(f"a uImage of type {kind}, which is no kernel")
    if compression >= len(_UIMAGE_COMPRESSIONS):
        raise _BadImageError(f"its uImage header says compression {compression}, which is not known")
    name = _UIMAGE_COMPRESSIONS[compression]
    return part._replace(compression=name, is_packed=name is not None)


def _first_of_several(data: bytes, part: _Part) -> _Part:
    """The kernel comes first of several images, whose sizes stand before them, ended by a zero."""
    for count in range(1, 16):
        word = data[60 + 4 * count : 64 + 4 * count]
        if len(word) == 4 and not any(word):
            size = int.from_bytes(data[64:68], "big")
            return part._replace(start=64 + 4 * count, size=size)
    raise _BadImageError("its uImage's list of images has no end")


_ANDROID_MAGIC = b"ANDROID!"


def _android(data: bytes) -> _Part | None:
    """The kernel is on the second page; from version 3 on pages are 4096 bytes (AOSP, bootimg.h)."""
    if not data.startswith(_ANDROID_MAGIC):
        return None
    if len(data) < 44:
        raise _BadImageError("truncated: it ends within its Android boot image header")
    size, version = struct.unpack_from("<I", data, 8)[0], struct.unpack_from("<I", data, 40)[0]
    # Before there were versions, the word was the size of a device tree.
    page = 4096 if version in (3, 4) else struct.unpack_from("<I", data, 36)[0]
    if page & page - 1 or not 2048 <= page <= 1 << 16:
        raise _BadImageError(f"its Android boot image header tells of pages of {page} bytes")
    return _Part("Android boot image", page, size)


class _PeSection(NamedTuple):
    name: bytes
    offset: int
    size: int


# IMAGE_FILE_MACHINE_* of the PE format.
_PE_MACHINES = {0x14C: "i386", 0x1C2: "arm", 0x8664: "x86_64", 0xAA64: "aarch64", 0x5064: "riscv", 0x6264: "loongarch"}


def _pe_header(data: bytes) -> int | None:
    """Where the PE header is that EFI needs; None if there is none."""
    if data[:2] != b"MZ" or len(data) < 0x40:
        return None
    start = int.from_bytes(data[0x3C:0x40], "little")
    return start if data[start : start + 4] == b"PE\0\0" and start + 24 <= len(data) else None


def _pe_machine(data: bytes) -> str | None:
    start = _pe_header(data)
    return None if start is None else _PE_MACHINES.get(struct.unpack_from("<H", data, start + 4)[0])


def _pe_sections(data: bytes) -> list[_PeSection]:
    start = _pe_header(data)
    if start is None:
        return []
    count, optional_size = struct.unpack_from("<H12xH", data, start + 6)
    position, found = start + 24 + optional_size, []
    for _ in range(min(count, 96)):  # as many as Windows takes; an EFI program has five to ten
        if position + 40 > len(data):
            break
        name, size, offset = struct.unpack_from("<8s8x2I", data, position)
        found.append(_PeSection(name.rstrip(b"\0"), offset, size))
        position += 40
    return found


def _unified(data: bytes) -> _Part | None:
    """A unified kernel image (the UAPI group's specification): a boot image in the section .linux."""
    for section in _pe_sections(data):
        if section.name == b".linux":
            return _Part("unified kernel image", section.offset, section.size)
    return None


_FDT_MAGIC = b"\xd0\x0d\xfe\xed"


def _fit(data: bytes) -> _Part | None:
    """U-Boot's FIT: a device tree whose /images have the data in a property, or behind the tree (`data-offset`)."""
    if not data.startswith(_FDT_MAGIC):
        return None
    for path, properties in _fdt_nodes(data):
        kind = properties.get("type", (0, b""))[1]
        if len(path) == 3 and path[1] == "images" and kind in (b"kernel\0", b"kernel_noload\0"):
            return _fit_part(data, properties)
    raise _BadImageError("its FIT has no image of type kernel")


def _fit_part(data: bytes, properties: dict[str, tuple[int, bytes]]) -> _Part:
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
        return _Part("FIT", start, size, machine=_FIT_MACHINES.get(word("arch")))
    if name not in FORMATS:
        raise _BadImageError(f"its FIT says it is packed with {name!r}, which is not known")
    return _Part("FIT", start, size, name, machine=_FIT_MACHINES.get(word("arch")), is_packed=True)


_FIT_MACHINES = {"arm64": "aarch64", "arm": "arm", "riscv": "riscv", "x86": "i386", "x86_64": "x86_64", "ppc": "ppc"}
# Tokens of a flattened device tree (Devicetree Specification, 5.4.1). A FIT has some tens of nodes.
_FDT_BEGIN, _FDT_END_NODE, _FDT_PROPERTY, _FDT_NOP, _FDT_END = 1, 2, 3, 4, 9
_MOST_FDT_TOKENS = 100_000


def _fdt_nodes(data: bytes) -> Iterator[tuple[tuple[str, ...], dict[str, tuple[int, bytes]]]]:
    """Each node that has ended: its path, and its properties' places and values."""
    if len(data) < 40:
        raise _BadImageError("truncated: it ends within its device tree header")
    total, position, strings = struct.unpack_from(">3I", data, 4)
    if total > len(data):
        raise _BadImageError(f"truncated: its device tree header tells of {total} bytes, it has {len(data)}")
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
    raise _BadImageError("its device tree is broken")


# arch/arm/boot/compressed/head.S. Where the packed kernel lies in it is not said: it is searched.
_ZIMAGE_MAGICS = (b"\x18\x28\x6f\x01", b"\x01\x6f\x28\x18")


def _compressed(data: bytes) -> _Part | None:
    """A compressed file: Image.gz, and a kernel that somebody packed."""
    name = recognise(data)
    if name is None:
        return None
    return _Part(f"{name} file", 0, len(data), name, is_packed=True)


_CONTAINERS: tuple[Callable[[bytes], _Part | None], ...] = (
    _zboot,
    _bzimage,
    _unified,
    _uimage,
    _fit,
    _android,
    _compressed,
)
