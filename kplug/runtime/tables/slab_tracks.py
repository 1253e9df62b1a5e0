"""Who allocated and freed a slab object: struct track of mm/slub.c, which SLAB_STORE_USER puts after each object."""

from __future__ import annotations

from collections.abc import Sequence

import drgn

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import FaultError, try_read
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.cpus import possible_cpus
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.tables.slab_caches import slabs_of
from kplug.runtime.tables.stack_depot import stack_depot

_BEFORE_WRAP = 300  # seconds: INITIAL_JIFFIES lets the low 32 bits wrap five minutes after boot
_INT = 4  # the bytes of an int
_MAX_PID = 1 << 22  # PID_MAX_LIMIT
_NANOSECONDS = 10**9


class Track(NamedTuple):
    """One record. `caller` is where the allocator was called; `stack` may be empty. `seconds` is the time since boot,
    `age` that time before now, in seconds; None where not known. `problem`: why there is no stack."""

    caller: int
    stack: Sequence[int]
    cpu: int
    pid: int
    seconds: float | None
    age: float | None
    problem: str | None


class Tracks:
    """Reads the records of a kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        kind = slabs_of(kernel).track
        with kernel.reading("struct track"):
            if kind is None:
                raise LookupError("it is not in the debug information")
            self._size: int = kind.size or 0
            self._addr: int = drgn.offsetof(kind, "addr")
            self._cpu: int = drgn.offsetof(kind, "cpu")
            self._pid: int = drgn.offsetof(kind, "pid")
            self._when: int = drgn.offsetof(kind, "when")
            # 5cf909c553e9 (5.18): a stack of the depot; before, and without CONFIG_STACKDEPOT, 16 addresses or none
            self._handle: int | None = drgn.offsetof(kind, "handle") if kind.has_member("handle") else None
            self._addrs, self._length = 0, 0
            if kind.has_member("addrs"):
                self._addrs = drgn.offsetof(kind, "addrs")
                self._length = kind.member("addrs").type.length or 0
        self._tick = _tick_of(kernel)

    def read(self, address: int) -> Track | None:
        """The record at an address; None if nothing was recorded. TargetError if it is corrupted or cannot be read."""
        kernel, word = self._kernel, self._kernel.word
        try:
            data = kernel.read(address, self._size)
        except FaultError as error:
            raise TargetError(f"the track at {address:#x} cannot be read: {error}") from None
        caller, when = word.at(data, self._addr), word.at(data, self._when)
        if not caller:
            return None
        cpu, pid = word.signed(data, self._cpu, _INT), word.signed(data, self._pid, _INT)
        if not word.is_kernel(caller) or cpu not in possible_cpus(kernel) or not 0 <= pid <= _MAX_PID:
            raise TargetError(f"the track at {address:#x} is corrupted")
        stack: Sequence[int] = ()
        problem = None
        if self._handle is not None:
            handle = word.unsigned(data, self._handle, _INT)
            try:
                stack = stack_depot(kernel).stack(handle) if handle else ()
            except TargetError as error:
                problem = str(error)
        elif self._length:
            stack = word.numbers(data[self._addrs : self._addrs + self._length * word.size])
        stack = [each for each in stack if each and each != word.mask]  # the rest of an array, and its old end mark
        return Track(caller, stack, cpu, pid, *self._times(when), problem)

    def _times(self, when: int) -> tuple[float | None, float | None]:
        """Seconds since boot, and before now, of a number of jiffies."""
        word, tick = self._kernel.word, self._tick
        if tick is None:
            return None, None
        place = self._kernel.symbol("jiffies")
        data = try_read(self._kernel.read, place, word.size) if place is not None else None
        now = word.at(data, 0) if data is not None else None
        first = -(_BEFORE_WRAP * _NANOSECONDS // tick) & 0xFFFFFFFF
        elapsed = when - first & word.mask
        if now is not None and elapsed > now - first & word.mask:
            return None, None
        age = round((now - when & word.mask) * tick / _NANOSECONDS, 3) if now is not None else None
        return round(elapsed * tick / _NANOSECONDS, 3), age


@remembered(UNTIL_RESUMED)
def slab_tracks(kernel: Kernel) -> Tracks:
    """The one Tracks of a kernel. TargetError without the types."""
    return Tracks(kernel)


def _tick_of(kernel: Kernel) -> int | None:
    """Nanoseconds of a jiffy: what the clock source that counts them multiplies by (TICK_NSEC)."""
    place = kernel.symbol("clocksource_jiffies")
    if place is None:
        return None
    with kernel.reading("the length of a jiffy"):
        clock = drgn.Object(kernel.prog, "struct clocksource", address=place)
        tick: int = clock.mult.value_() >> clock.shift.value_()
    return tick if 0 < tick < _NANOSECONDS else None
