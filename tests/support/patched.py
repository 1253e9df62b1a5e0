"""A dump with some bytes of its memory replaced: what a crash, or somebody hostile, might have left there."""

from __future__ import annotations

import drgn
from drgn.helpers.linux.mm import follow_phys

from kplug.runtime.kernel.kernel import Kernel

_PAGE = 4096


def patch(kernel: Kernel, address: int, data: bytes) -> None:
    """Replace the bytes at a kernel virtual address, at all of its aliases; what `kernel` remembers is forgotten.

    The file stays as it is: only this Program sees the change. Later patches go over earlier ones.
    """
    for start in range(address - address % _PAGE, address + len(data), _PAGE):
        first, last = max(start, address), min(start + _PAGE, address + len(data))
        physical = follow_phys(kernel.prog["init_mm"].address_of_(), first).value_()
        _replace(kernel.prog, physical, data[first - address : last - address])
    kernel.resumed()


def patch_physical(kernel: Kernel, address: int, data: bytes) -> None:
    """Replace the bytes at a physical address, as `patch` does."""
    _replace(kernel.prog, address, data)
    kernel.resumed()


def unmap(kernel: Kernel, address: int, size: int) -> None:
    """Take whole pages at a kernel virtual address out of the dump, as makedumpfile does."""

    for start in range(address, address + size, _PAGE):
        unmap_physical(kernel, follow_phys(kernel.prog["init_mm"].address_of_(), start).value_(), _PAGE)


def unmap_physical(kernel: Kernel, address: int, size: int) -> None:
    """Take whole pages at a physical address out of the dump, as `unmap` does."""

    def absent(address: int, count: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError("memory was not saved in the dump", address)

    kernel.prog.add_memory_segment(address, size, absent, True)
    kernel.resumed()


def _replace(prog: drgn.Program, physical: int, data: bytes) -> None:
    prog.add_memory_segment(physical, len(data), lambda _, count, offset, __: data[offset : offset + count], True)
