"""Opening a kernel from a file of any kind, recognised by its first bytes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.image.elf.file import ELF_MAGIC
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import PACKED_ENDINGS, open_vmlinux
from kplug.image.opening.vmlinuz import kernel_in, open_vmlinuz, refuse_program, unpacks_itself

if TYPE_CHECKING:
    from kplug.files.bounded_output import ProgressCallback

_PEEKED_BYTES = 1 << 16
_LINE_BYTES = 1 << 10
_LISTING = rb"(?:[0-9a-f]{8}|[0-9a-f]{16}) [A-Za-z?] \S+\n"


def open_kernel(path: str, progress: ProgressCallback | None = None) -> KernelImage:
    """The kernel at `path`, from any kind of file: a vmlinux, a boot image, a System.map."""
    with open_file(path) as file:
        head = file.read(_PEEKED_BYTES)
    if head.startswith(ELF_MAGIC):
        return _elf_kernel(path, progress)
    from kplug.image.symbols.listings import stub_package

    if re.match(_LISTING, head) or stub_package(head) is not None:
        from kplug.image.opening.symbol_list_kernel import open_system_map

        return open_system_map(path)
    from kplug.image.boot.containers import HEAD_BYTES, is_boot_image

    _refuse_packed_listing(path, head)
    if _is_packed_vmlinux(path, head):
        return _elf_kernel(path, progress)
    if not is_boot_image(head[:HEAD_BYTES]):
        return _searched(path, progress)
    return open_vmlinuz(path, progress)


def _elf_kernel(path: str, progress: ProgressCallback | None) -> KernelImage:
    image = refuse_program(open_vmlinux(path))
    return open_vmlinuz(path, progress) if unpacks_itself(image) else image


def _searched(path: str, progress: ProgressCallback | None) -> KernelImage:
    """The kernel that a search finds in a file whose start is none that is known."""
    from kplug.image.boot.boot_image import open_boot_image

    try:
        found = open_boot_image(path, progress)
    except InputError as error:
        try:
            return open_vmlinux(path)
        except InputError as no_elf:
            raise InputError(f"{no_elf}: {str(error).removeprefix(f'{path}: ')}") from None
    return kernel_in(found)


def _refuse_packed_listing(path: str, head: bytes) -> None:
    """InputError for a System.map that is packed."""
    from kplug.files.bounded_output import UnpackError
    from kplug.files.compression import decompressed_start, recognise
    from kplug.image.symbols.listings import refuse_packed

    packed = recognise(head)
    try:
        if packed is not None and re.match(_LISTING, decompressed_start(packed, head, _LINE_BYTES)):
            refuse_packed(path, head)
    except UnpackError:
        return  # opening it reports the error


def _is_packed_vmlinux(path: str, head: bytes) -> bool:
    """Whether the file has the name of a packed one and contains an ELF file, or is broken; not an Image.gz."""
    from kplug.files.bounded_output import UnpackError
    from kplug.files.compression import decompressed_start, recognise

    packed = recognise(head)
    if packed is None or os.path.splitext(path)[1] not in PACKED_ENDINGS:
        return False
    try:
        start = decompressed_start(packed, head, len(ELF_MAGIC))
    except UnpackError:
        return True
    return not start or start == ELF_MAGIC
