"""KFENCE, the sampling memory error detector: its objects, their owners, and its guard pages.

mm/kfence/core.c: the pool is pairs of pages. The first pair is guards; in each later pair the first page has an object,
anywhere in that page, and the second is a guard. `kfence_metadata` has a record for each object. For the slab allocator
the object belongs to the cache that it was allocated from, but it is in none of its slabs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import drgn

from kplug.errors import TargetError
from kplug.kinds import Kind, before_range, name_and_offset, register
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import FaultError, try_read
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.registry import locates
from kplug.runtime.locators.tracks import ALLOCATORS, first_outside, stack_words, track_lines, track_words
from kplug.runtime.tables.translation import page_size_of

SOURCE = "kfence_metadata"

UNUSED, ALLOCATED = "unused", "allocated"
_DESTROYED = "destroyed cache"

# CONFIG_KFENCE_NUM_OBJECTS is 255 by default, and 65535 at most (lib/Kconfig.kfence). No symbol or type has it; a
# record is recognised by the page in it.
_MOST_OBJECTS = 65535
_MAX_NAME = 256


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = [layer.name]
    if not details["guard"]:
        words += [details["state"] or "", f"object size {details['size']:#x}" if details["size"] is not None else ""]
        track = details["freed_by"] or details["allocated_by"]
        if track is not None:
            words.append(track_words(track))
    return before_range("  ".join(filter(None, words)), layer), True


def _phrase(layer: Layer, offset: int) -> str:
    details = layer.details
    if details["guard"] or details["object"] is None:
        return layer.name
    if layer.start == int(details["object"], 16):
        state = f"{details['state']} " if details["state"] not in (None, ALLOCATED) else ""
        return f"{state}KFENCE object {name_and_offset(layer, offset)}"
    return layer.name


KIND = register(
    Kind(
        "kfence",
        950,
        {
            "number": "(as in `/sys/kernel/debug/kfence/objects`)",
            "cache": "",
            "object": "",
            "size": "(as asked for; of a cache with objects of one size, that)",
            "state": "(`unused`, `allocated`, `rcu_freeing`, `freed`)",
            "allocated_by": "",
            "freed_by": "(`pid`, `cpu`, `seconds` since boot, `caller` of the allocator, `stack`)",
            "guard": "(the address is in a guard page, which is never mapped)",
            "below": "",
            "above": "(of a guard page: the objects on both sides)",
        },
        "outside the object's bounds the layer is the rest of its page on that side, which has a canary",
        words=_words,
        more=track_lines,
        phrase=_phrase,
        replaces=frozenset(("slab",)),
        object_type=lambda layer: "" if layer.details.get("object") == hex(layer.start or 0) else None,
    )
)


class _Record(NamedTuple):
    """An object of the pool: its number, its struct kfence_metadata, and its cache's name."""

    number: int
    metadata: drgn.Object
    cache: str | None
    state: str

    @property
    def start(self) -> int:
        return int(self.metadata.addr)

    @property
    def end(self) -> int:
        return self.start + int(self.metadata.size)

    @property
    def words(self) -> str:
        if self.state == UNUSED:
            return f"{UNUSED} #{self.number}"
        return f"{self.cache} at {self.start:#x}"


class _Pool:
    """The pool of a kernel that has one, with its records, which are read on demand."""

    def __init__(self, kernel: Kernel, start: int) -> None:
        self._kernel = kernel
        self.start = start
        self.page_size = page_size_of(kernel)
        self.end = start + 2 * self.page_size * (_MOST_OBJECTS + 1)
        with kernel.reading("KFENCE's records"):
            self._type = kernel.prog.type("struct kfence_metadata")
            self._size: int = drgn.sizeof(self._type)
            self._states = {
                each.value: each.name.rpartition("OBJECT_")[2].lower()
                for each in kernel.prog.type("enum kfence_object_state").enumerators or ()
            }
        self._records: int | None = self._find_records()

    def _find_records(self) -> int | None:
        """The address of the records: an array, or a pointer's target ("allocate kfence_metadata at runtime", 6.6)."""
        symbol = self._kernel.symbol("kfence_metadata")
        if symbol is None:
            return None
        word = self._kernel.word
        pointer = try_read(self._kernel.read, symbol, word.size)
        for place in (word.at(pointer, 0) if pointer else 0, symbol):
            data = try_read(self._kernel.read, place, self._size) if place else None
            if data is not None and self._metadata(data, 0) is not None:
                return place
        return None

    def _metadata(self, data: bytes, number: int) -> drgn.Object | None:
        """A record; None if it is not one: the address in each record lies in the page of its object."""
        found = drgn.Object.from_bytes_(self._kernel.prog, self._type, data)
        first = self.start + 2 * self.page_size * (number + 1)
        return found if first <= int(found.addr) < first + self.page_size else None

    def record(self, number: int) -> _Record | None:
        """The object of that number; None if there is none. TargetError if its record cannot be read."""
        if self._records is None or not 0 <= number < _MOST_OBJECTS:
            return None
        place = self._records + number * self._size
        try:
            metadata = self._metadata(self._kernel.read(place, self._size), number)
        except FaultError as error:
            raise TargetError(f"KFENCE's record at {place:#x} cannot be read: {error}") from None
        if metadata is None:
            return None
        if int(metadata.addr) % self.page_size + int(metadata.size) > self.page_size:
            raise TargetError(f"KFENCE's record at {place:#x} is corrupted: an object of {int(metadata.size):#x} bytes")
        state = self._states.get(int(metadata.state), str(int(metadata.state)))
        return _Record(number, metadata, self._cache_name(metadata) if state != UNUSED else None, state)

    def _cache_name(self, metadata: drgn.Object) -> str:
        if not metadata.cache:
            return _DESTROYED
        with self._kernel.reading(f"the slab cache at {int(metadata.cache):#x}"):
            name: bytes = self._kernel.prog.read_c_string(metadata.cache.name.value_(), max_size=_MAX_NAME)
        return name.decode(errors="backslashreplace")


class KfenceLocator:
    """KFENCE's object or guard page that holds an address."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def locate(self, address: int) -> Iterable[Layer]:
        pool = self._pool_at(address)
        if pool is None:
            return
        page = (address - pool.start) // pool.page_size
        start = address - (address - pool.start) % pool.page_size
        if page > 1 and not page % 2:
            record = pool.record(page // 2 - 1)
            if record is not None:
                yield self._object(record, address, start, start + pool.page_size)
            return
        below, above = pool.record(page // 2 - 1), pool.record(page // 2)
        if page > 1 and below is None:
            return  # after the pool
        name = "KFENCE guard page"
        sides = [side.words if side is not None else None for side in (below, above if page else None)]
        if any(sides):
            name += f" between {sides[0] or 'the start of the pool'} and {sides[1] or 'the end of the pool'}"
        details = {**_no_object(), "guard": True, "below": sides[0], "above": sides[1]}
        yield Layer(KIND.name, name, start, start + pool.page_size, SOURCE, details)

    def _pool_at(self, address: int) -> _Pool | None:
        kernel = self._kernel
        start = _pool_start(kernel)
        if not start or not start <= address or not kernel.has_types:
            return None
        pool = _pool_of(kernel, start)
        return pool if address < pool.end else None

    def _object(self, record: _Record, address: int, page: int, page_end: int) -> Layer:
        details = {**_no_object(), "number": record.number, "state": record.state}
        if record.state == UNUSED:
            return Layer(KIND.name, "page for a KFENCE object", page, page_end, SOURCE, details)
        metadata, start, end = record.metadata, record.start, record.end
        details.update(
            cache=record.cache,
            object=hex(start),
            size=end - start,
            allocated_by=self._track(metadata.alloc_track),
            freed_by=self._track(metadata.free_track) if record.state != ALLOCATED else None,
        )
        if start <= address < end:
            return Layer(KIND.name, record.cache or "", start, end, SOURCE, details)
        if address < start:
            name = f"canary of KFENCE object {record.cache}, {start - address:#x} bytes before it"
            return Layer(KIND.name, name, page, start, SOURCE, details)
        name = f"canary of KFENCE object {record.cache}, {address - end:#x} bytes past its end"
        return Layer(KIND.name, name, end, page_end, SOURCE, details)

    def _track(self, track: drgn.Object) -> dict[str, Any] | None:
        """The task that allocated or freed an object; None if none did."""
        count = min(int(track.num_stack_entries), track.stack_entries.type_.length or 0)
        entries = [int(track.stack_entries[number]) for number in range(count)]
        if not entries:
            return None
        stack = stack_words(self._kernel, entries)
        members = {member.name for member in track.type_.members or ()}
        return {
            "pid": int(track.pid),
            # "show cpu and timestamp in alloc/free info" (5.17)
            "cpu": int(track.cpu) if "cpu" in members else None,
            "seconds": int(track.ts_nsec) / 1e9 if "ts_nsec" in members else None,
            "caller": first_outside(stack, ALLOCATORS),
            "stack": stack,
        }


def _no_object() -> dict[str, Any]:
    return {key: None if key != "guard" else False for key in KIND.details}


@remembered(UNTIL_RESUMED)
def _pool_of(kernel: Kernel, start: int) -> _Pool:
    return _Pool(kernel, start)


@remembered(UNTIL_RESUMED)
def _pool_start(kernel: Kernel) -> int:
    """The start of the pool; 0 if there is none: KFENCE is not built in, or was not switched on."""
    symbol = kernel.symbol("__kfence_pool")
    if symbol is None:
        return 0
    try:
        return kernel.read_word(symbol)
    except FaultError as error:
        raise TargetError(f"where KFENCE's pool is cannot be read: {error}") from None


locates(KIND, lambda kernel, user: KfenceLocator(kernel))
