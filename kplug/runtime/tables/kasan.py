"""What generic KASAN keeps (mm/kasan/): the shadow memory, a byte for each 8, and who allocated and freed slab objects.

The record of an allocation (struct kasan_alloc_meta) follows the object. The record of the free is part of it, or of
struct kasan_free_meta. That one is in the freed object itself, or follows the first. The cache says where both are.
Tag-based KASAN has none of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import drgn

from kplug.arch.registry import named
from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import FaultError, try_read
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.clock import since_boot_and_ago
from kplug.runtime.kernel.cpus import possible_cpus
from kplug.runtime.kernel.facts import facts_of, space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.tables.slab_caches import NO_KASAN_FREE_META, Cache, slabs_of
from kplug.runtime.tables.stack_depot import stack_depot

_AREA = "KASAN shadow"  # as the architectures' memory maps call it
_OF_GENERIC = "global_quarantine"  # which tag-based KASAN does not have
GRANULE = 8  # bytes that one of the shadow stands for (KASAN_SHADOW_SCALE_SHIFT)
_MAX_PID = 1 << 22  # PID_MAX_LIMIT
_MAX_QUARANTINED = 1 << 18  # objects; it has up to a 32nd of memory

FREED, FREED_WITH_TRACK = 0xFB, 0xFA  # KASAN_SLAB_FREE; KASAN_SLAB_FREE_META
# mm/kasan/kasan.h. F1 to F8, CA and CB are what the compiler's own code writes.
_SHADOW = {
    0xFF: "a freed page",
    0xFE: "red zone of a page",
    0xFC: "red zone of a slab object",
    FREED: "a freed slab object",
    0xF1: "red zone on a stack",
    0xF2: "red zone on a stack",
    0xF3: "red zone on a stack",
    0xF4: "red zone on a stack",
    0xF5: "a function's locals after its return",
    0xCA: "red zone of alloca",
    0xCB: "red zone of alloca",
}
# e4b7818b9aa8 (5.9) gave the record of the free a value of its own, and moved those of two others.
_SINCE_5_9 = {
    FREED_WITH_TRACK: "a freed slab object",
    0xF9: "red zone of a global variable",
    0xF8: "vmalloc space not in use, or a local variable out of scope",
}
_BEFORE_5_9 = {
    0xFA: "red zone of a global variable",
    0xF9: "vmalloc space not in use",
    0xF8: "a local variable out of scope",
}
ACCESSIBLE = "accessible"

# kasan_track.timestamp lacks so many low bits of local_clock(): at first (5d4c6ac94694, 6.8), and later.
_CLOCK_SHIFTS = (3, 9)


class KasanTrack(NamedTuple):
    """A record. `cpu`, `seconds` since boot and `age` before now are None without CONFIG_KASAN_EXTRA_INFO (6.8).

    `stack` is empty if the kernel had no memory for it, or it cannot be read.
    """

    pid: int
    cpu: int | None
    seconds: float | None
    age: float | None
    stack: Sequence[int]


class KasanRecord(NamedTuple):
    """What is recorded of an object. `freed` may be from before if it is allocated. `created` are the stacks of what
    may have had to do with the object later, the last one first: call_rcu(), the queueing of work. `problems` are why
    a stack cannot be read."""

    allocated: KasanTrack | None
    freed: KasanTrack | None
    created: list[Sequence[int]]
    problems: list[str]


class _Quarantine(NamedTuple):
    """The places of kasan_free_meta.quarantine_link of the objects in the quarantine, those of broken lists left out.

    `is_whole`: these are all. `problem` is why a list is broken.
    """

    links: frozenset[int]
    is_whole: bool
    problem: str | None


class Kasan:
    """The shadow and the records of a kernel that has them. TargetError without the types."""

    def __init__(self, kernel: Kernel, offset: int) -> None:
        self._kernel = kernel
        self.memo = kernel.memo
        self._offset = offset
        self._end = (kernel.word.mask + 1) // GRANULE + offset & kernel.word.mask
        with kernel.reading("KASAN's records"):
            self._alloc_meta = kernel.prog.type("struct kasan_alloc_meta")
            self._free_meta = kernel.prog.type("struct kasan_free_meta")
        self._free_meta_has_track = self._free_meta.has_member("free_track")
        self._words = {**_SHADOW, **(_SINCE_5_9 if self._free_meta_has_track else _BEFORE_5_9)}

    def shadow(self, address: int) -> int | None:
        """The byte of the shadow for an address; None if there is none, or it cannot be read."""
        place = address // GRANULE + self._offset & self._kernel.word.mask
        data = try_read(self._kernel.read, place, 1) if self._is_shadow(place) else None
        return data[0] if data is not None else None

    def shadowed(self, place: int) -> int | None:
        """The first of the bytes that the byte of the shadow at an address stands for; None if it is none."""
        return (place - self._offset) * GRANULE & self._kernel.word.mask if self._is_shadow(place) else None

    def _is_shadow(self, place: int) -> bool:
        """Whether an address is in the shadow. No, if that does not end where it should with this offset: arm64's was
        another one before 5.11."""
        space = space_of(self._kernel)
        area = space.area_at(place) if space is not None else None
        return area is not None and area.name.startswith(_AREA) and area.end == self._end

    def words(self, address: int) -> str | None:
        """Whether KASAN allows access to the byte at an address, or why not; None if not known."""
        value = self.shadow(address)
        if value is None:
            return None
        if value >= GRANULE:
            return self._words.get(value, f"shadow byte {value:#04x}")
        return ACCESSIBLE if not value or address % GRANULE < value else "past the end of an object or a variable"

    def is_freed(self, start: int) -> bool | None:
        """Whether the shadow says of a slab object that it was freed; None if not known."""
        value = self.shadow(start)
        return None if value is None else value == FREED or (value == FREED_WITH_TRACK and self._free_meta_has_track)

    def is_quarantined(self, cache: Cache, start: int) -> bool | None:
        """Whether a freed slab object is in the quarantine, also where the shadow does not say that it was freed.

        None if there are too many to look at. TargetError if one of the quarantine's lists is broken, and it is in none
        of the others.
        """
        if cache.kasan is None or cache.kasan.free_meta == NO_KASAN_FREE_META:
            return False
        quarantine = self._quarantine()
        if start + cache.kasan.free_meta in quarantine.links:
            return True
        if quarantine.problem is not None:
            raise TargetError(quarantine.problem)
        return False if quarantine.is_whole else None

    @remembered(UNTIL_RESUMED)
    def _quarantine(self) -> _Quarantine:
        kernel = self._kernel
        with kernel.reading("KASAN's quarantine"):
            batches = kernel.prog[_OF_GENERIC]
            per_cpu_lists = (helpers.per_cpu(kernel.prog["cpu_quarantine"], cpu) for cpu in possible_cpus(kernel))
            ends = [(each.head.value_(), each.tail.value_()) for each in (*batches, *per_cpu_lists)]
        links: set[int] = set()
        problem: str | None = None
        for head, tail in ends:
            found: dict[int, None] = {}
            place = head
            try:
                while place and place not in found:
                    if len(links) + len(found) >= _MAX_QUARANTINED:
                        return _Quarantine(frozenset(links), False, problem)
                    found[place] = None
                    place = kernel.read_word(place)
            except FaultError as error:
                problem = f"KASAN's quarantine cannot be read: {error}"
                continue
            # The links are in freed objects, where whoever still uses one writes over it.
            if place or next(reversed(found), 0) != tail:
                problem = f"KASAN's quarantine is corrupted: the list from {head:#x} does not end at {tail:#x}"
                continue
            links.update(found)
        return _Quarantine(frozenset(links), problem is None, problem)

    def records(self, cache: Cache) -> bool:
        """Whether there are records of a cache's objects: they are left out where they do not fit."""
        return cache.kasan is not None and bool(cache.kasan.alloc_meta)

    def record(self, cache: Cache, start: int, is_linked: bool) -> KasanRecord:
        """What is recorded of an object of a cache that has records. TargetError if it is corrupted or cannot be read.

        `is_linked`: it is on one of the allocator's lists, whose link may be in the object.
        """
        assert cache.kasan is not None
        problems: list[str] = []
        meta = self._read(self._alloc_meta, start + cache.kasan.alloc_meta)
        allocated, freed = self._track(meta.alloc_track, problems), None
        if self._alloc_meta.has_member("free_track"):
            track = meta.free_track
            # 5.3 to 5.8: an array, with one element
            freed = self._track(track[0] if track.type_.kind == drgn.TypeKind.ARRAY else track, problems)
        elif self._has_free_track(cache, start, is_linked):
            freed = self._track(self._read(self._free_meta, start + cache.kasan.free_meta).free_track, problems)
        created = []
        if self._alloc_meta.has_member("aux_stack"):  # 26e760c9a7c8 (5.9)
            stacks = [self._stack(handle, problems) for handle in meta.aux_stack.value_() if handle]
            created = [stack for stack in stacks if stack]
        return KasanRecord(allocated, freed, created, problems)

    def _has_free_track(self, cache: Cache, start: int, is_linked: bool) -> bool:
        """Whether an object's struct kasan_free_meta has a track, which the allocator has not written over."""
        assert cache.kasan is not None
        if not self._free_meta_has_track or cache.kasan.free_meta == NO_KASAN_FREE_META:
            return False
        first = cache.kasan.free_meta + drgn.offsetof(self._free_meta, "free_track")
        last = cache.kasan.free_meta + drgn.sizeof(self._free_meta)
        if is_linked and first - self._kernel.word.size < cache.next_offset < last:
            return False
        return self.shadow(start) == FREED_WITH_TRACK

    def _read(self, kind: drgn.Type, place: int) -> drgn.Object:
        try:
            data = self._kernel.read(place, drgn.sizeof(kind))
        except FaultError as error:
            raise TargetError(f"KASAN's record at {place:#x} cannot be read: {error}") from None
        return drgn.Object.from_bytes_(self._kernel.prog, kind, data)

    def _track(self, track: drgn.Object, problems: list[str]) -> KasanTrack | None:
        """A record; None if nothing was recorded."""
        pid, handle = track.pid.value_(), track.stack.value_()
        if not pid and not handle:
            return None
        cpu = seconds = age = None
        if track.type_.has_member("cpu"):
            cpu = track.cpu.value_()
            shift = _clock_shift(self._kernel)
            if shift is not None:
                seconds, age = since_boot_and_ago(self._kernel, track.timestamp.value_() << shift)
        if pid > _MAX_PID or (cpu is not None and cpu not in possible_cpus(self._kernel)):
            raise TargetError("KASAN's record of the object is corrupted")
        return KasanTrack(pid, cpu, seconds, age, self._stack(handle, problems) if handle else ())

    def allocation_clock(self, cache: Cache, start: int) -> int:
        """When an object was allocated, as its record has it."""
        if cache.kasan is None or not self.records(cache):
            raise TargetError(f"the objects of {cache.name} have no record")
        clock: int = self._read(self._alloc_meta, start + cache.kasan.alloc_meta).alloc_track.timestamp.value_()
        return clock

    def _stack(self, handle: int, problems: list[str]) -> Sequence[int]:
        try:
            return stack_depot(self._kernel).stack(handle)
        except TargetError as error:
            problems.append(str(error))
            return ()


@remembered(UNTIL_RESUMED)
def kasan_of(kernel: Kernel) -> Kasan | None:
    """The one Kasan of a kernel; None of one without generic KASAN. TargetError without the types."""
    if not kernel.image or not facts_of(kernel).kasan_shadow or kernel.symbol(_OF_GENERIC) is None:
        return None
    declared = named(kernel.machine).kasan_shadow_offset
    offset = declared(facts_of(kernel)) if declared is not None else None
    return Kasan(kernel, offset) if offset is not None and kernel.has_types else None


@remembered(UNTIL_RESUMED)
def _clock_shift(kernel: Kernel) -> int | None:
    """How many low bits of the clock the records lack. No type tells, but the youngest task does, whose start is known.
    None if that cannot be read, or is neither."""
    kasan, place = kasan_of(kernel), kernel.symbol("task_struct_cachep")
    if kasan is None or place is None:
        return None
    try:
        with kernel.reading("the youngest task"):
            task = drgn.container_of(kernel.prog["init_task"].tasks.prev, "struct task_struct", "tasks")
            start, since_boot = task.value_(), task.start_time.value_()
            cache = slabs_of(kernel).cache(kernel.read_word(place))
        stored = kasan.allocation_clock(cache, start)
    except TargetError:  # a record stands without its time
        return None
    near = [shift for shift in _CLOCK_SHIFTS if since_boot // 4 <= stored << shift <= since_boot * 4]
    return near[0] if len(near) == 1 else None
