"""Boot images, as boot loaders load them, and the kernel that is packed in them.

They are opened by the headers of their containers (`boot.containers`); a file without any of these is searched for
magics as scripts/extract-vmlinux does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from kplug.errors import InputError
from kplug.files.bounded_output import ProgressCallback, TooLargeError, UnpackError
from kplug.files.compression import FORMATS, decompress, decompressed_start, recognise
from kplug.files.opening import open_file
from kplug.frozen import Frozen
from kplug.image.boot.containers import (
    ELF_TYPE_END,
    HEAD_BYTES,
    NO_KERNELS,
    ZIMAGE_MAGICS,
    BadImageError,
    ImageHeader,
    check_whole,
    elf_type,
    image_header,
    kind_of,
    part_of,
)

# Kernels unpack to 20 to 200 MiB; debug builds without their DWARF to less than this.
MAX_UNPACKED_BYTES = 1 << 29
MAX_FILE_BYTES = 1 << 29
# zstd -22 packs a kernel to a fifth. A file that unpacks to far more than that was made to fill memory.
MAX_UNPACKING_RATIO = 100
_ALWAYS_UNPACKED_BYTES = 1 << 24
# An Android image that contains a bzImage, a FIT with an Image.gz: no real nesting is deeper.
_MOST_CONTAINERS = 4
# A magic of three bytes turns up about four times in 64 MiB of noise.
_MOST_CANDIDATES = 64
_MOST_WHOLE_CANDIDATES = 8
_BANNER = b"Linux version "


class BootImage(Frozen):
    """A boot image that has been opened.

    `containers` are listed from the outside in ("uImage", "Image"). `payload` is the kernel: `kind` says whether it is
    an "ELF" or a "flat Image", with its `header` if it has one. `offset` and `length` give the place of the packed data
    in the file (of the whole kernel if nothing is packed). `machine` is a name as for ELF files, or None. `sources`
    says how each of `payload`, `compression` and `machine` is known; `warnings` are for the user.
    """

    path: str
    containers: tuple[str, ...]
    compression: str | None
    offset: int
    length: int
    payload: bytes
    kind: str
    machine: str | None
    header: ImageHeader | None
    sources: dict[str, str]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"BootImage({self.path!r}, {self.containers!r}, {self.kind!r}, ...)"


def open_boot_image(path: str, progress: ProgressCallback | None = None) -> BootImage:
    """The kernel in the boot image at `path`. `progress` is called with the fraction of the unpacking that is done.

    An ELF file is taken as it is. InputError, one line naming the file, if it contains no kernel, is truncated, has a
    header, checksum or size that contradicts its bytes, or unpacks to more than a kernel does.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            head = os.pread(file.fileno(), ELF_TYPE_END, 0)
            _check_file(path, head, size)
            data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise InputError(f"{path}: the file is empty")
    try:
        return _Opening(path, data, progress).opened()
    except (UnpackError, BadImageError) as error:
        raise InputError(f"{path}: {error}") from None


def _check_file(path: str, head: bytes, size: int) -> None:
    """InputError for a file that is clearly not a boot image, before all of it is read."""
    if elf_type(head) in NO_KERNELS:
        raise InputError(f"{path}: not a boot image but {NO_KERNELS[elf_type(head)]}")
    if size > MAX_FILE_BYTES and head.startswith(b"\x7fELF"):
        raise InputError(f"{path}: an ELF file of {size >> 20} MiB, not a boot image (a vmlinux is given with -s)")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{path}: {size >> 20} MiB; no boot image is larger than {MAX_FILE_BYTES >> 20} MiB")


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
            if kind_of(data) is not None:
                return self._result(data, None, offset, len(data))
            part = part_of(data)
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
                if self._machine is not None and part_of(packed) is None and kind_of(packed) is None:
                    return self._raw(packed, None, offset, len(packed))  # a uImage of bare machine code
                data = packed
                continue
            name = part.compression or recognise(packed)
            if name is None:
                if part.container == "bzImage" and packed.startswith(b"\x7fELF"):  # CONFIG_KERNEL_UNCOMPRESSED
                    return self._result(packed, None, offset, len(packed))
                raise BadImageError(f"what its {part.container} header points to is packed in an unknown format")
            self._sources["compression"] = "its magic"
            unpacked = self._unpack(name, packed, part.unpacked_size, part.container)
            if kind_of(unpacked) is not None:
                return self._result(unpacked, name, offset, len(packed))
            if part_of(unpacked) is None:
                return self._raw(unpacked, name, offset, len(packed))
            data, offset = unpacked, 0
        return self._search(data, offset)

    def _unpack(self, name: str, packed: bytes, size: int | None, container: str) -> bytes:
        """The kernel in `packed`, which unpacks to `size` bytes if the container says so."""
        # lzma's magic is only a common choice of its parameters.
        if name != "lzma" and not packed.startswith(FORMATS[name].magic):
            raise BadImageError(f"its {container} header says {name}, but the data is not {name}")
        most = min(MAX_UNPACKED_BYTES, max(_ALWAYS_UNPACKED_BYTES, MAX_UNPACKING_RATIO * len(packed)))
        if size is not None and size > most:
            raise BadImageError(f"claims to unpack to {size} bytes, from {len(packed)}; no kernel does")
        try:
            unpacked = decompress(name, packed, most if size is None else size, self._progress)
        except TooLargeError as error:
            if size is None:
                raise BadImageError(f"{error}; no kernel of its size does") from None
            raise BadImageError(f"says that it unpacks to {size} bytes, but its {name} data has more") from None
        if size is None and name != "gzip" and container != "EFI zboot" and len(packed) - unpacked.consumed == 4:
            # The kernel's own scripts append the size (Makefile.lib, size_append).
            size = int.from_bytes(packed[-4:], "little")
        if size is not None and size != len(unpacked.data):
            raise BadImageError(
                f"says that it unpacks to {size} bytes, but its {name} data unpacks to {len(unpacked.data)}"
            )
        rest = len(packed) - unpacked.consumed
        if container == f"{name} file" and size is None and rest:
            self._warnings.append(f"{rest} bytes follow the {name} data (an appended device tree?)")
        return unpacked.data

    def _result(self, payload: bytes, compression: str | None, offset: int, length: int) -> BootImage:
        kind, machine, name = kind_of(payload) or ("flat Image", self._machine, "")
        if name:
            self._containers.append(name)
        if machine is not None:
            self._sources["machine"] = "the ELF header" if kind == "ELF" else "the header of the Image"
        self._sources.setdefault("payload", f"the magic of an {name}")
        if kind != "ELF":
            check_whole(payload)
        self._machine = machine or self._machine
        return self._made(payload, kind, compression, offset, length)

    def _raw(self, payload: bytes, compression: str | None, offset: int, length: int) -> BootImage:
        """Machine code without a header (as 32-bit arm and powerpc boot it): a kernel, if it has a banner."""
        if _BANNER not in payload:
            raise BadImageError(f"no kernel in the {self._containers[-1]}: no ELF, no Image, no banner")
        return self._made(payload, "flat Image", compression, offset, length)

    def _made(self, payload: bytes, kind: str, compression: str | None, offset: int, length: int) -> BootImage:
        return BootImage(
            self._path,
            tuple(self._containers),
            compression,
            offset,
            length,
            payload,
            kind,
            self._machine,
            image_header(payload) if kind != "ELF" else None,
            self._sources,
            tuple(self._warnings),
        )

    def _search(self, data: bytes, offset: int) -> BootImage:
        """As scripts/extract-vmlinux: try the formats in turn until one unpacks to a kernel."""
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
                if kind_of(start) is not None:
                    return self._found(name, data, position, offset)
                tried.append((name, position))
        # Data without a header is recognised by its banner, for which all of it must be unpacked.
        # The limit for all of them together is that of one kernel.
        left = min(MAX_UNPACKED_BYTES, max(_ALWAYS_UNPACKED_BYTES, MAX_UNPACKING_RATIO * len(data)))
        for name, position in tried[:_MOST_WHOLE_CANDIDATES]:
            if left <= 0:
                break
            try:
                unpacked = decompress(name, view[position:], left).data
                if _BANNER in unpacked:
                    return self._found(name, data, position, offset)
                left -= len(unpacked)
            except UnpackError as error:
                reason = reason or _told(name, error)
                left -= error.unpacked
        raise BadImageError(f"no kernel found in it{f' ({reason})' if reason else ''}")

    def _found(self, name: str, data: bytes, position: int, offset: int) -> BootImage:
        self._sources["payload"] = f"the search for magics ({name}'s at {offset + position:#x})"
        self._sources["compression"] = "its magic"
        packed = memoryview(data)[position:]
        most = min(MAX_UNPACKED_BYTES, max(_ALWAYS_UNPACKED_BYTES, MAX_UNPACKING_RATIO * len(packed)))
        unpacked = decompress(name, packed, most, self._progress)
        if not self._containers:
            zimage = data[0x24:0x28] in ZIMAGE_MAGICS
            self._containers.append("zImage" if zimage else "unknown container")
        if kind_of(unpacked.data) is None:
            return self._raw(unpacked.data, name, offset + position, unpacked.consumed)
        return self._result(unpacked.data, name, offset + position, unpacked.consumed)


def _told(name: str, error: UnpackError) -> str:
    """The error if the data is certainly of that format, else nothing: a short magic occurs in any noise."""
    return f"{error}" if len(FORMATS[name].magic) > 4 or "nothing here" in str(error) else ""


def _positions(data: bytes, magic: bytes) -> Iterator[int]:
    position = data.find(magic)
    for _ in range(_MOST_CANDIDATES):
        if position < 0:
            return
        yield position
        position = data.find(magic, position + 1)
