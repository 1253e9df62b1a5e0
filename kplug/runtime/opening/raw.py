"""A raw image of memory as a Program: drgn reads physical memory from the file, and walks the page tables itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import drgn

from kplug.arch import registry
from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.image.kernel_image import KernelImage
from kplug.memory.raw_image import Extent
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.kernel.platform import platform_of
from kplug.runtime.opening import vmcoreinfo_search
from kplug.runtime.opening.drgn_calls import error_words
from kplug.runtime.opening.request import OpenTarget
from kplug.runtime.opening.walked import walk_for_drgn


def open_raw(path: str, extents: Sequence[Extent], given: str | None, image: KernelImage | None) -> OpenTarget:
    """Open an image of memory that has no notes: the kernel's VMCOREINFO is found in it, or `given`."""
    machine = image.machine if image is not None and image.machine else None
    read = _reader(path)
    if given is not None:
        prog = _with(extents, read, VmcoreInfo(given), machine)
        if prog is None:
            raise InputError(f"{path}: drgn cannot use the VMCOREINFO that was given for it (--vmcoreinfo)")
        how = "VMCOREINFO: as given (--vmcoreinfo)"
    else:
        prog = _found(path, extents, read, image, machine)
        how = "VMCOREINFO: found in the image's memory"
    target = OpenTarget(path, prog, f"memory image {path}", [how])
    lost = sum(extent.lost for extent in extents)
    if lost:
        target.warnings.append(f"{path} is truncated: bytes missing at its end: {lost}")
    return target


def _found(
    path: str,
    extents: Sequence[Extent],
    read: Callable[[int, int], bytes],
    image: KernelImage | None,
    machine: str | None,
) -> drgn.Program:
    searched = _memory(extents, read, machine)
    ranges = [(extent.start, extent.start + extent.size) for extent in extents if extent.size]
    rejected: list[VmcoreInfo] = []
    for info in vmcoreinfo_search.candidates(searched, ranges, False, image, None):
        prog = _with(extents, read, info, machine)
        if prog is not None and vmcoreinfo_search.stands_in_memory(prog, info):
            return prog
        rejected.append(info)
    if rejected:
        releases = ", ".join(dict.fromkeys(str(info.release) for info in rejected))
        raise InputError(
            f"{path}: the VMCOREINFO of {releases} is in it, but no such kernel is where it says: "
            "its physical ranges are others, or part of it is missing"
        )
    likely = "not the memory of a Linux kernel"
    raise InputError(f"{path}: {vmcoreinfo_search.not_found(rejected, likely)}")


def _with(
    extents: Sequence[Extent], read: Callable[[int, int], bytes], info: VmcoreInfo, machine: str | None
) -> drgn.Program | None:
    """The memory as that of the kernel which wrote the VMCOREINFO; None if drgn cannot use that."""
    declared = registry.by_vmcoreinfo(info.numbers)
    prog = _memory(extents, read, machine or (declared.name if declared is not None else None))
    try:
        prog.set_linux_kernel_custom(info.text, is_live=False)
    except Exception:  # drgn raises a bare Exception for what it cannot use
        return None
    walk_for_drgn(prog, (extent.start for extent in extents), still=True)
    return prog


def _memory(extents: Sequence[Extent], read: Callable[[int, int], bytes], machine: str | None) -> drgn.Program:
    """The memory; where its machine is not known, to search it the host's does as well."""
    prog = drgn.Program(platform_of(machine) if machine is not None else drgn.host_platform)
    for extent in extents:
        if extent.size:
            prog.add_memory_segment(extent.start, extent.size, _segment(read, extent), True)
    return prog


def add_physical(prog: drgn.Program, path: str, extents: Sequence[Extent]) -> None:
    """Give a Program the physical memory that is in ranges of a file."""
    read = _reader(path)
    for extent in extents:
        prog.add_memory_segment(extent.start, extent.size, _segment(read, extent), True)


def _segment(read: Callable[[int, int], bytes], extent: Extent) -> Callable[[int, int, int, bool], bytes]:
    def segment(address: int, size: int, offset: int, physical: bool) -> bytes:
        data = read(extent.offset + address - extent.start, size)
        if len(data) != size:
            raise drgn.FaultError("short read", address)
        return data

    return segment


def _reader(path: str) -> Callable[[int, int], bytes]:
    """What reads from the file, which stays open as long as it is used."""
    file = open_file(path)

    def read(offset: int, size: int) -> bytes:
        try:
            return os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise drgn.FaultError(error_words(error), offset) from None

    return read
