"""The stack depot (lib/stackdepot.c): the kernel's store of stack traces, each found by a handle of 32 bits.

A handle has the number of a pool, and where in it the record of the stack is. Each record has its own handle, so a
corrupted one is never taken for a stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import drgn

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import FaultError, try_read
from kplug.runtime.kernel.kernel import Kernel

_ALIGN = 4  # DEPOT_STACK_ALIGN: offsets in handles count 16 bytes
_MOST_FRAMES = 256  # the most that CONFIG_STACKDEPOT_MAX_FRAMES can be
_HANDLE = 4  # bytes of a depot_stack_handle_t


class StackDepot:
    """The stacks of a kernel that has a depot. TargetError without the types or the symbol."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.memo = kernel.memo
        prog = kernel.prog
        with kernel.reading("the stack depot"):
            fields = {
                member.name: (member.bit_offset, member.bit_field_size or 0)
                for part in prog.type("union handle_parts").members or ()
                if part.name is None
                for member in part.type.members or ()
            }
            # slabindex; 961c949b012f (6.3): pool_index; then pool_index_plus_1
            self._index = next(field for name, field in fields.items() if name is not None and "index" in name)
            self._offset = fields["offset"]
            # 36aa1e6779c3 (6.1): bits for the users of the depot, which the record lacks
            self._stored = ~self._mask(fields.get("extra", (0, 0)))
            record = prog.type("struct stack_record")
            self._size: int = drgn.offsetof(record, "size")
            self._handle: int = drgn.offsetof(record, "handle")
            self._entries: int = drgn.offsetof(record, "entries")
            self._pool_size = 1 << self._offset[1] + _ALIGN
        names = (kernel.symbol(name) for name in ("stack_pools", "stack_slabs"))
        pools = next((address for address in names if address is not None), None)
        if pools is None:
            raise TargetError("the stack depot: the kernel has neither stack_pools nor stack_slabs")
        self._pools = pools

    @remembered(UNTIL_RESUMED)
    def stack(self, handle: int) -> Sequence[int]:
        """The return addresses of a stack. TargetError if the depot has none for this handle."""
        word = self._kernel.word
        place = self._field(handle, self._offset) << _ALIGN
        room = (self._pool_size - place - self._entries) // word.size
        for pool in self._candidates(self._field(handle, self._index)):
            header = try_read(self._kernel.read, pool + place, self._entries) if room > 0 else None
            if header is None or (word.unsigned(header, self._handle, _HANDLE) ^ handle) & self._stored:
                continue
            count = word.unsigned(header, self._size, 4)
            if not 0 < count <= min(room, _MOST_FRAMES):
                break
            try:
                return tuple(word.numbers(self._kernel.read(pool + place + self._entries, count * word.size)))
            except FaultError as error:
                raise TargetError(f"the stack of handle {handle:#x} cannot be read: {error}") from None
        raise TargetError(
            f"the stack depot has no stack of handle {handle:#x}: freed since, or the handle is corrupted"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """The pools that the number in a handle may mean: it counts from 0 or from 1 (3ee34eabac2a, 6.9), in an array
        or in one that the kernel allocates. Only one has a record with the handle."""
        word = self._kernel.word
        table = try_read(self._kernel.read, self._pools, word.size)
        for pools in (self._pools, word.at(table, 0) if table is not None else 0):
            for number in (index, index - 1):
                if not word.is_kernel(pools) or number < 0:
                    continue
                pool = try_read(self._kernel.read, pools + number * word.size, word.size)
                if pool is not None and word.is_kernel(word.at(pool, 0)):
                    yield word.at(pool, 0)

    def _field(self, handle: int, field: tuple[int, int]) -> int:
        """A field of a handle, which has at least one bit."""
        mask = self._mask(field)
        return (handle & mask) // (mask & -mask)

    def _mask(self, field: tuple[int, int]) -> int:
        """The bits of a field. The compiler counts them from the end that the byte order has first."""
        start, bits = field
        if not self._kernel.word.little_endian:
            start = 8 * _HANDLE - start - bits
        return ((1 << bits) - 1) << start


@remembered(UNTIL_RESUMED)
def stack_depot(kernel: Kernel) -> StackDepot:
    """The one StackDepot of a kernel. TargetError as for it."""
    return StackDepot(kernel)
