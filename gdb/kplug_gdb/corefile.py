"""The core file that gdb has loaded: the addresses that it really contains, and its notes about the kernel.

gdb reads the vmlinux for any address that the core does not contain (gdb/corelow.c passes the request to the stratum
below). For a kernel's data this gives initial values. So the core's own program headers decide.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from functools import lru_cache

import gdb
from kplug.arch.registry import named
from kplug.errors import InputError, TargetError
from kplug.image.elf.file import ElfFile
from kplug.memory.kaslr_ways import kernel_offset
from kplug.memory.reading import FaultError
from kplug.model import State
from kplug.space.address_space import AddressSpaceFacts
from kplug_gdb.reading import read_plainly

_HEADING = re.compile(r"^Local core dump file:\n\s*[`'](?P<path>.*)', file type ", re.MULTILINE)


def core_path() -> str | None:
    """The path of the core file that is being debugged; None if there is no core."""
    connection = gdb.selected_inferior().connection
    if connection is None or connection.type != "core":
        return None
    match = _HEADING.search(gdb.execute("info files", to_string=True))
    return match.group("path") if match else None


class CoreFile:
    """The memory of an ELF core, by virtual address, or (dumps of physical memory) by physical address only."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._elf = elf = ElfFile(path)
        self.offset = kernel_offset(elf.notes())
        self.machine = elf.machine
        self.vmcoreinfo = _note(elf).decode("ascii", "backslashreplace")
        self.release = _noted(elf, rb"^OSRELEASE=(\S{1,100})$")
        self.build_id = _noted(elf, rb"^BUILD-ID=([0-9a-f]{1,128})$")
        base = _noted(elf, rb"^NUMBER\(phys_base\)=(-?\d{1,20})$")
        self._physical_base = None if base is None else int(base)
        self._facts = AddressSpaceFacts(phys_base=self._physical_base)
        self._loads = loads = [segment for segment in elf.segments if segment.type == "LOAD" and segment.file_size]
        virtual = [segment for segment in loads if elf.word.is_kernel(segment.address)]
        self.physical_only = bool(loads) and not virtual
        self._ranges = sorted((s.address, s.address + s.file_size) for s in loads)
        self._starts = [start for start, _ in self._ranges]
        # Ranges may overlap; a range that holds an address begins at most this far below it.
        self._longest = max((end - start for start, end in self._ranges), default=0)

    def holds(self, address: int, size: int) -> bool:
        """Whether the core contains these bytes."""
        position = bisect_right(self._starts, address) - 1
        while position >= 0 and address - self._starts[position] < self._longest:
            if address + size <= self._ranges[position][1]:
                return True
            position -= 1
        return False

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a virtual address; FaultError if the core does not contain them."""
        if not self.holds(address, size):
            raise FaultError(f"the core has no memory at {address:#x}")
        return read_plainly(address, size)

    def read_image(self, address: int, size: int) -> bytes:
        """Bytes of the kernel image in a dump of physical memory, located by phys_base (x86_64)."""
        if self._physical_base is None:
            raise TargetError(f"{self.path}: does not say where in physical memory the kernel is")
        image_physical = named(self.machine).image_physical
        physical = image_physical(address, self._facts) if image_physical is not None else None
        if physical is None:
            raise FaultError(f"nothing tells where the kernel's {address:#x} is in physical memory")
        physical &= self._elf.word.mask
        for load in self._loads:
            offset = physical - load.physical_address
            if offset >= 0 and offset + size <= load.file_size:
                return self._elf.read(load.offset + offset, size, "memory")
        # Of an address outside of the image, that physical one means nothing.
        raise FaultError(f"of a core by physical address only the kernel image is read, and {address:#x} is not there")

    def state(self, address: int) -> State:
        """The state that a dump proves: an address in it was mapped; a missing one may just have been left out."""
        return State(mapped=True if not self.physical_only and self.holds(address, 1) else None)


def _noted(elf: ElfFile, pattern: bytes) -> str | None:
    """The VMCOREINFO note, parsed (kernel/vmcore_info.c), or None."""
    for note in elf.notes():
        match = re.search(pattern, note.description, re.MULTILINE) if note.owner == "VMCOREINFO" else None
        if match:
            return match.group(1).decode("ascii", "backslashreplace")
    return None


def _note(elf: ElfFile) -> bytes:
    """The VMCOREINFO note; empty if there is none."""
    return next((note.description for note in elf.notes() if note.owner == "VMCOREINFO"), b"")


@lru_cache(maxsize=1)
def _open(path: str, size: int, modified: int) -> CoreFile:
    return CoreFile(path)


def current_core() -> CoreFile | None:
    """The core that gdb debugs, opened once; None if there is no core. InputError if it cannot be read."""
    path = core_path()
    if path is None:
        return None
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return _open(path, status.st_size, status.st_mtime_ns)
