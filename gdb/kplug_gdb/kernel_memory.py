"""The kernel's memory as drgn reads it (`kplug.runtime.over_memory.Memory`): through gdb, each page once."""

from __future__ import annotations

from typing import Callable

from kplug.errors import TargetError
from kplug.memory import UnmappedError
from kplug_gdb import physical
from kplug_gdb.reading import read_plainly
from kplug_gdb.target import GdbTarget
from kplug_gdb.views import KernelTablesView, View

_PAGE = 4096
_MASK = (1 << 64) - 1


class KernelMemory:
    """What was read is kept until `forget`. Pages are read whole: most of what drgn asks for is small and near.

    `whole_pages` is false for a stub that is slow: then no byte is read that was not asked for. `direct_map` is where
    the kernel has physical memory mapped, None if that is not known.
    """

    def __init__(self, target: GdbTarget) -> None:
        self._target = target
        self.whole_pages = True
        self.direct_map: int | None = None
        self._virtual: dict[tuple[int, int], bytes | None] = {}
        self._physical: dict[tuple[int, int], bytes | None] = {}
        self._view: type[View] | None = None

    def forget(self) -> None:
        """The target ran on, or another is there."""
        self._virtual.clear()
        self._physical.clear()

    def read(self, address: int, size: int) -> bytes:
        return self._assembled(address, size, self._virtual, self._read_virtual)

    def read_physical(self, address: int, size: int) -> bytes:
        return self._assembled(address, size, self._physical, self._read_physical)

    def _assembled(
        self, address: int, size: int, known: dict[tuple[int, int], bytes | None], read: Callable[[int, int], bytes]
    ) -> bytes:
        view = self._target.view
        if type(view) is not self._view:  # another CPU was selected, which sees other memory
            self.forget()
            self._view = type(view) if view is not None else None
        if not self.whole_pages:
            return _remembered(address, size, known, read)
        data = b""
        while len(data) < size:
            at = address + len(data) & _MASK
            start = at & -_PAGE
            page = _remembered(start, _PAGE, known, read)
            data += page[at - start : at - start + size - len(data)]
        return data

    def _read_virtual(self, address: int, size: int) -> bytes:
        view = self._target.view
        if view is None:
            raise TargetError("no target to read memory from")
        if not isinstance(view, KernelTablesView):
            return view.read(address, size)
        # Through the tables here, so that these are read once too.
        tables = physical.current_tables(kernel=True)
        found = tables.translate(self._entry, address) if tables is not None else None
        if found is None or found.room < size:
            raise UnmappedError(f"nothing is mapped at {address:#x}")
        return self.read_physical(found.physical, size)

    def _entry(self, address: int) -> int:
        return int.from_bytes(self.read_physical(address, 8), "little")

    def _read_physical(self, address: int, size: int) -> bytes:
        """Through the direct map, which needs no change of QEMU's mode; what is not in it by that mode."""
        view, base = self._target.view, self.direct_map
        if view is not None and base is not None and not isinstance(view, KernelTablesView):
            try:
                return view.read(base + address & _MASK, size)
            except UnmappedError:
                if not physical.stub_has_it():
                    raise
        if not physical.stub_has_it():
            raise UnmappedError(f"no memory at physical address {address:#x}: this stub cannot read by those")
        with physical.physical_memory():
            return read_plainly(address, size)


def _remembered(
    address: int, size: int, known: dict[tuple[int, int], bytes | None], read: Callable[[int, int], bytes]
) -> bytes:
    key = address, size
    if key not in known:
        try:
            known[key] = read(address, size)
        except UnmappedError:
            known[key] = None
    data = known[key]
    if data is None:
        raise UnmappedError(f"nothing is mapped at {address:#x}")
    return data
