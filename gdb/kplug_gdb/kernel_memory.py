"""The kernel's memory as drgn reads it (`debugger_memory.Memory`): through gdb, each page once."""

from __future__ import annotations

from collections.abc import Callable

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, Memo, remembered
from kplug.memory.reading import FaultError, Read
from kplug_gdb import machine, physical
from kplug_gdb.current_view import CurrentView
from kplug_gdb.reading import read_plainly
from kplug_gdb.views import KernelTablesView

_PAGE = 4096
# QEMU sends this much in one packet, in hardly more time than a word: 0.08 ms, and 0.5 ms for a page (a unix socket).
_BLOCK = 1024


VIRTUAL, PHYSICAL = "virtual", "physical"


class KernelMemory:
    """What was read is kept until the target runs. Whole blocks are read, since most of drgn's requests are small and
    close together; but from a stub that may be slow (`reads_blocks` is false) only the requested bytes are read.
    `direct_map` gives the place where the kernel maps physical memory, None if it is not known.
    """

    def __init__(
        self, current: CurrentView, memo: Memo, reads_blocks: Callable[[], bool], direct_map: Callable[[], int | None]
    ) -> None:
        self._current = current
        self.memo = memo
        self._reads_blocks = reads_blocks
        self._direct_map = direct_map

    def read(self, address: int, size: int) -> bytes:
        return self._assembled(address, size, VIRTUAL, self._read_virtual)

    def read_physical(self, address: int, size: int) -> bytes:
        return self._assembled(address, size, PHYSICAL, self._read_physical)

    @remembered(UNTIL_RESUMED)
    def _blocks(self, space: str, view: type) -> dict[int, bytes | None]:
        """What was read, by address. If another CPU is selected, it has another view and may see other memory."""
        return {}

    def _assembled(self, address: int, size: int, space: str, read: Read) -> bytes:
        if not self._reads_blocks():
            return read(address, size)
        known = self._blocks(space, type(self._current.view))
        first, end = address & -_BLOCK, address + size
        starts = range(first, end, _BLOCK)
        if any(start not in known for start in starts):
            _fetch(starts, known, read)
        blocks = [known[start] for start in starts]
        for start, block in zip(starts, blocks):
            if block is None:
                raise FaultError(f"nothing is mapped at {max(start, address):#x}")
        return b"".join(filter(None, blocks))[address - first : end - first]

    def _read_virtual(self, address: int, size: int) -> bytes:
        view = self._current.view
        if view is None:
            raise TargetError("no target to read memory from")
        if not isinstance(view, KernelTablesView):
            return view.read(address, size)
        # Walk the tables here, so that they are read only once too.
        tables, mask = physical.current_tables(kernel=True), machine.mask()
        entry = physical.entry_reader(tables, self.read_physical) if tables is not None else None
        data = b""
        while len(data) < size:
            place = address + len(data) & mask
            found = tables.translate(entry, place) if tables is not None and entry is not None else None
            if found is None:
                raise FaultError(f"nothing is mapped at {place:#x}")
            data += self.read_physical(found.physical, min(found.room, size - len(data)))
        return data

    def _read_physical(self, address: int, size: int) -> bytes:
        """Read through the direct map, which needs no change of QEMU's mode; other addresses need that mode."""
        view, base = self._current.view, self._direct_map()
        if view is not None and base is not None and not isinstance(view, KernelTablesView):
            try:
                return view.read(base + address & machine.mask(), size)
            except FaultError:
                if not physical.stub_has_it():
                    raise
        if not physical.stub_has_it():
            raise FaultError(f"no memory at physical address {address:#x}: this stub cannot read by those")
        with physical.physical_memory():
            return read_plainly(address, size)


def _fetch(starts: range, known: dict[int, bytes | None], read: Read) -> None:
    """Read blocks: all at once, or page by page if some are not mapped."""
    try:
        data = read(starts.start, len(starts) * _BLOCK)
        known.update({start: data[start - starts.start : start - starts.start + _BLOCK] for start in starts})
        return
    except FaultError:
        if len(starts) == 1:
            known[starts.start] = None
            return
    for page in range(starts.start & -_PAGE, starts.stop, _PAGE):
        there = [start for start in starts if page <= start < page + _PAGE]
        if len(there) < len(starts):
            _fetch(range(there[0], there[-1] + _BLOCK, _BLOCK), known, read)
        else:
            known.update(dict.fromkeys(there))
            return
