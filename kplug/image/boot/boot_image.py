"""Boot images, as boot loaders load them, and the kernel that is packed in them."""

from __future__ import annotations

import os

from kplug.errors import InputError
from kplug.files.bounded_output import ProgressCallback, UnpackError
from kplug.files.opening import open_file
from kplug.frozen import Frozen
from kplug.image.boot.formats import BadImageError
from kplug.image.boot.opener import FLAT, FoundKernel, Opener
from kplug.image.boot.plain import ELF_TYPE_END, NO_KERNELS, ImageHeader, elf_type, image_header
from kplug.image.elf.file import DUMPS, ELF_MAGIC

MAX_FILE_BYTES = 1 << 29


class BootImage(Frozen):
    """A boot image that has been opened.

    `containers` are listed from the outside in ("uImage", "Image"). `payload` is the kernel: `kind` says whether it is
    an "ELF" or a "flat Image", with its `header` if it has one. `compression` names what it was packed with, from the
    outside in. `offset` and `length` give the place of the packed data in the file (of the whole kernel if nothing is
    packed). `machine` is a name as for ELF files, or None. `sources` says how each of `payload`, `compression` and
    `machine` is known; `warnings` are for the user.
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


def open_boot_image(
    path: str, progress: ProgressCallback | None = None, offset: int | None = None, *, any_elf: bool = False
) -> BootImage:
    """The kernel in the boot image at `path`. `progress` is called with the fraction of the unpacking that is done.

    An ELF file that is a kernel is taken as it is. `offset` is where in the file to begin: then the first kernel is
    taken, whatever follows. InputError, one line naming the file, if it contains no kernel or several, is truncated,
    has a header, checksum or size that contradicts its bytes, or unpacks to more than a kernel does. `any_elf`: a
    packed module or dump is taken, too.
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
    if offset is not None and not 0 <= offset < len(data):
        raise InputError(f"{path}: it has {len(data):#x} bytes, none at {offset:#x}")
    try:
        return _made(path, Opener(data, progress, any_elf).kernel(offset))
    except (UnpackError, BadImageError) as error:
        raise InputError(f"{path}: {error}") from None


def _check_file(path: str, head: bytes, size: int) -> None:
    """InputError for a file that is clearly not a boot image, before all of it is read."""
    if elf_type(head) in NO_KERNELS:
        raise InputError(f"{path}: not a boot image but {NO_KERNELS[elf_type(head)]}")
    for magic, kind in DUMPS:
        if head.startswith(magic):
            raise InputError(f"{path}: not a boot image but {kind} (a dump is given with -c)")
    if size > MAX_FILE_BYTES and head.startswith(ELF_MAGIC):
        raise InputError(f"{path}: an ELF file of {size >> 20} MiB, not a boot image (a vmlinux is given with -s)")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{path}: {size >> 20} MiB; no boot image is larger than {MAX_FILE_BYTES >> 20} MiB")


def _made(path: str, kernel: FoundKernel) -> BootImage:
    trail = kernel.trail
    sources = {"payload": trail.payload_source or f"the magic of an {kernel.name}"}
    if trail.compressions:
        sources["compression"] = "its magic"
    if kernel.machine is not None:
        sources["machine"] = "the header of the Image" if kernel.kind == FLAT else "the ELF header"
    elif trail.machine_source is not None:
        sources["machine"] = trail.machine_source
    offset, length = trail.packed or (trail.offset, len(kernel.payload))
    return BootImage(
        path,
        trail.containers if kernel.name is None else (*trail.containers, kernel.name),
        " > ".join(trail.compressions) or None,
        offset,
        length,
        kernel.payload.all(),
        kernel.kind,
        kernel.machine or trail.machine,
        image_header(kernel.payload) if kernel.kind == FLAT else None,
        sources,
        kernel.warnings,
    )
