"""The slab allocator's caches: the layout of its structures, and of the objects of each cache."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import drgn

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.cpus import online_cpus
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.lists import list_nodes
from kplug.runtime.kernel.nodes import online_node_numbers

OBJECT, LEFT_RED_ZONE, RIGHT_RED_ZONE, FREE_POINTER = "object", "left red zone", "right red zone", "free pointer"
ALLOCATION_TRACK, FREE_TRACK, REQUESTED_SIZE = "allocation track", "free track", "requested size"
KASAN_METADATA, PADDING, PADDING_OR_METADATA = "KASAN metadata", "padding", "padding or other metadata"

NO_KASAN_FREE_META = 0x7FFFFFFF  # KASAN_NO_FREE_META

_MAX_NAME = 256
_MAX_SHEAF = 1 << 12  # objects; calculate_sheaf_capacity() gives some tens
_MAX_FULL_SHEAVES = 1 << 12  # of a node; MAX_FULL_SHEAVES is 10

# slab.h: 4fd8ab3e6cb5 (6.9) made the bits an enumeration; before, they were these for all of SLUB's time.
_FLAGS = {
    "_SLAB_RED_ZONE": 0x400,
    "_SLAB_KMALLOC": 0x1000,
    "_SLAB_STORE_USER": 0x10000,
    "_SLAB_TYPESAFE_BY_RCU": 0x80000,
    "_SLAB_NO_USER_FLAGS": 0x10000000,
}
# A static key, since ca0cab65ea2b (5.9): without it, debugging that a cache's flags ask for is not done. Up to 5.13 a
# cache that is made with such flags does not switch it on, only slub_debug= does (1f0723a4c0df).
_DEBUGS = "slub_debug_enabled"
_INT = 4  # the bytes of an int
# CONFIG_SLUB_DEBUG: what slub_debug= names, since e17f1dfba37b (5.8) and before
_DEBUGGING = ("slub_debug_string", "slub_debug_slabs")
_IN_OBJECT = "_SLAB_OBJ_EXT_IN_OBJ"


class Part(NamedTuple):
    """What some bytes of an object's room are for; offsets from the object."""

    name: str
    start: int
    end: int


class KasanOffsets(NamedTuple):
    """Where KASAN's records are, from the object: struct kasan_cache. `alloc_meta` is 0 if there is none; `free_meta`
    is 0 if that is in the object."""

    alloc_meta: int
    free_meta: int


class Cache:
    """One kmem_cache, with the facts that all of its objects share.

    `parts` is the room of an object from its first byte to its last; empty where the layout is not certain.
    """

    def __init__(self, slabs: Slabs, address: int) -> None:
        prog = slabs.kernel.prog
        self.address = address
        with slabs.kernel.reading(f"the slab cache at {address:#x}"):
            cache = drgn.Object(prog, "struct kmem_cache *", address)
            name = prog.read_c_string(cache.name.value_(), max_size=_MAX_NAME)
            self.name = name.decode(errors="backslashreplace")
            self.size: int = cache.size.value_()
            self.object_size: int = cache.object_size.value_()
            self.merged = cache.refcount.value_() > 1
            self.left_pad: int = cache.red_left_pad.value_() if slabs.has_left_pad and slabs.debugs else 0
            self.next_offset: int = cache.offset.value_() if slabs.is_slub else 0
            self.random = cache.random.value_() if slabs.is_hardened else None
            # 2d517aa09bbc (6.18): free objects of any slab, in bags for each CPU, and for each node
            self.has_sheaves: bool = slabs.may_have_sheaves and bool(cache.cpu_sheaves.value_())
            self.per_cpu = self._cpu_slabs(slabs, cache)
            self.flags: int = cache.flags.value_() & ~slabs.without_effect if slabs.is_slub else 0
            self.is_typesafe_by_rcu = bool(self.flags & slabs.typesafe_by_rcu) if slabs.is_slub else False
            self.tracks_users = False
            self.kasan: KasanOffsets | None = None
            if slabs.has_kasan:
                info = cache.kasan_info
                self.kasan = KasanOffsets(info.alloc_meta_offset.value_(), info.free_meta_offset.value_())
            self.parts: tuple[Part, ...] = ()
            if slabs.is_slub:
                self.parts = self._parts(slabs, cache.inuse.value_())
        self._starts = [part.start for part in self.parts]
        if not 0 < self.object_size <= self.size:
            raise TargetError(f"the slab cache at {address:#x} is corrupted: objects of {self.object_size:#x} bytes")

    def _cpu_slabs(self, slabs: Slabs, cache: drgn.Object) -> list[tuple[int, int]]:
        """Each CPU, and the address of its kmem_cache_cpu; none since 32c894c7274b (7.0)."""
        if not slabs.has_cpu_slab:
            return []
        return [(cpu, helpers.per_cpu_ptr(cache.cpu_slab, cpu).value_()) for cpu in slabs.cpus]

    def _parts(self, slabs: Slabs, inuse: int) -> tuple[Part, ...]:
        """The layout that calculate_sizes() in mm/slub.c made. Empty if flags and sizes do not agree."""
        word, flags = slabs.word.size, self.flags
        red_zone, end = bool(flags & slabs.red_zone), self.size - self.left_pad
        if (self.left_pad and not red_zone) or not self.object_size <= inuse <= end:
            return ()
        parts = [Part(LEFT_RED_ZONE, -self.left_pad, 0), Part(OBJECT, 0, self.object_size)]
        parts.append(Part(RIGHT_RED_ZONE if red_zone else PADDING, self.object_size, inuse))
        place = inuse
        if self.next_offset >= inuse:
            parts.append(Part(FREE_POINTER, inuse, inuse + word))
            place += word
        if flags & slabs.store_user:
            if not slabs.track_size:
                return ()
            for name in (ALLOCATION_TRACK, FREE_TRACK):
                parts.append(Part(name, place, place + slabs.track_size))
                place += slabs.track_size
            if flags & slabs.kmalloc:
                parts.append(Part(REQUESTED_SIZE, place, place + slabs.requested_size))
                place += slabs.requested_size
        if place > end:
            return ()
        self.tracks_users = bool(flags & slabs.store_user)
        kasan_end = slabs.kasan_end(self.kasan) if self.kasan is not None else 0
        if kasan_end is not None and place < kasan_end <= end:
            parts.append(Part(KASAN_METADATA, place, kasan_end))
            place = kasan_end
        # A slabobj_ext may come after what is known.
        unsure = kasan_end is None or flags & slabs.in_object
        parts.append(Part(PADDING_OR_METADATA if unsure else PADDING, place, end))
        return tuple(part for part in parts if part.start < part.end)

    def part_at(self, offset: int) -> Part | None:
        """The part that holds an offset from the object; None where the layout is not certain."""
        number = bisect_right(self._starts, offset) - 1
        return self.parts[number] if number >= 0 and offset < self.parts[number].end else None

    def part(self, name: str) -> Part | None:
        """The part of a name, None if the cache's objects have none."""
        return next((part for part in self.parts if part.name == name), None)


class Slabs:
    """The layout of the allocator's structures."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.word = kernel.word
        self.memo = kernel.memo
        prog = kernel.prog
        with kernel.reading("the slab allocator"):
            cache = prog.type("struct kmem_cache")
            try:
                slab = prog.type("struct slab")  # d122019bf061 (5.17); before, it is in struct page
                slab.size  # noqa: B018
            except LookupError:
                slab = prog.type("struct page")
            self.cpus = online_cpus(kernel)
            self.is_slub = cache.has_member("offset")
            self.is_hardened = cache.has_member("random")
            self.has_left_pad = cache.has_member("red_left_pad")
            self.has_cpu_slab = cache.has_member("cpu_slab")
            self.may_have_sheaves = cache.has_member("cpu_sheaves")
            # Tag-based KASAN lacks the offsets of records since 6.1.
            self.has_kasan = "alloc_meta_offset" in _members(cache, "kasan_info")
            self.cache_offset = drgn.offsetof(slab, "slab_cache")
            if self.is_slub:
                self.freelist = drgn.offsetof(slab, "freelist")
                self.counters = drgn.offsetof(slab, "counters")
            if self.has_cpu_slab:
                cpu_slab = prog.type("struct kmem_cache_cpu")
                self.cpu_freelist = drgn.offsetof(cpu_slab, "freelist")
                member = "slab" if cpu_slab.has_member("slab") else "page"  # bb192ed9aa71 (5.17)
                self.cpu_slab = drgn.offsetof(cpu_slab, member)
                self.cpu_slab_size = cpu_slab.size or 0
            switch = kernel.symbol(_DEBUGS)
            self.debugs = switch is None or kernel.read_unsigned(switch, _INT) != 0  # struct static_key begins with it
        self._set_flags(prog)
        self.track = _type(prog, "struct track", "slub.c")
        self.track_size: int = (self.track.size or 0) if self.track is not None else 0
        metas = [_type(prog, f"struct kasan_{which}_meta") if self.has_kasan else None for which in ("alloc", "free")]
        self._kasan_sizes = [(kind.size or 0) if kind is not None else 0 for kind in metas]

    def _set_flags(self, prog: drgn.Program) -> None:
        bits = _type(prog, "enum _slab_flag_bits")
        named = {each.name: 1 << each.value for each in (bits.enumerators or ())} if bits is not None else _FLAGS
        self.red_zone = named.get("_SLAB_RED_ZONE", 0)
        self.store_user = named.get("_SLAB_STORE_USER", 0)
        self.without_effect = 0 if self.debugs else self.red_zone | self.store_user
        self.kmalloc = named.get("_SLAB_KMALLOC", 0)
        self.typesafe_by_rcu = named.get("_SLAB_TYPESAFE_BY_RCU", 0)
        self.no_user_flags = named.get("_SLAB_NO_USER_FLAGS", 0)
        self.in_object = named.get(_IN_OBJECT, 0)
        # b85f369b81ae (7.0) made it a word; it came with a flag.
        self.requested_size = self.word.size if self.in_object else 4

    def can_track(self, cache: Cache) -> bool:
        """Whether the kernel could be told to record who uses a cache's objects (slub_debug=)."""
        return bool(cache.parts and self._has_debugging and not cache.flags & self.no_user_flags)

    def kasan_end(self, offsets: KasanOffsets) -> int | None:
        """Where KASAN's records end, from the object: 0 if none follow it, None if that is not known."""
        following = [each for each in zip(offsets, self._kasan_sizes) if 0 < each[0] < NO_KASAN_FREE_META]
        return max(map(sum, following), default=0) if all(size for _, size in following) else None

    @property
    @remembered(UNTIL_RESUMED)
    def _has_debugging(self) -> bool:
        return any(self.kernel.symbol(name) is not None for name in _DEBUGGING)

    def object_count(self, data: bytes) -> int:
        """How many objects a slab has, of the bytes of its struct: `objects:15` after `inuse:16`. The compiler counts
        bits from the end that the byte order has first.
        """
        bits = self.word.unsigned(data, self.counters, 4)
        return bits >> (16 if self.word.little_endian else 1) & 0x7FFF

    @remembered(UNTIL_RESUMED)
    def in_sheaves(self, cache: Cache) -> dict[int, int | None]:
        """The free objects in a cache's sheaves, each with the CPU that has it; None for a node's."""
        found: dict[int, int | None] = {}
        with self.kernel.reading(f"the sheaves of the slab cache {cache.name}"):
            whole = drgn.Object(self.kernel.prog, "struct kmem_cache *", cache.address)
            for sheaf in self._nodes_sheaves(whole):
                found.update(dict.fromkeys(_objects(sheaf)))
            for cpu in self.cpus:
                sheaves = helpers.per_cpu_ptr(whole.cpu_sheaves.read_(), cpu)
                for sheaf in (sheaves.main.read_(), sheaves.spare.read_()):
                    found.update(dict.fromkeys(_objects(sheaf), cpu))
        return found

    def _nodes_sheaves(self, cache: drgn.Object) -> Iterator[drgn.Object]:
        """The full sheaves that a cache's nodes have."""
        link = drgn.offsetof(self.kernel.prog.type("struct slab_sheaf"), "barn_list")
        split = self.kernel.prog.type("struct kmem_cache").has_member("per_node")  # 5ba6bc27b1f9 (7.1)
        for number in online_node_numbers(self.kernel.prog):
            node = cache.per_node[number] if split else cache.node[number].read_()
            barn = node.barn.read_() if split or node else None
            if not barn:
                continue
            try:
                places = [*list_nodes(self.kernel, barn.sheaves_full.address_of_().value_(), _MAX_FULL_SHEAVES)]
            except TargetError as error:
                raise TargetError(f"node {number}'s list of sheaves: {error}") from None
            for place in places:
                yield drgn.Object(self.kernel.prog, "struct slab_sheaf *", place - link)

    @remembered(UNTIL_RESUMED)
    def cache(self, address: int) -> Cache:
        """The cache whose struct is at an address. TargetError if that cannot be read, or is none."""
        return Cache(self, address)


def _objects(sheaf: drgn.Object) -> Sequence[int]:
    """The objects that a sheaf has; a null pointer has none."""
    count = min(sheaf.size.value_(), _MAX_SHEAF) if sheaf else 0
    objects: Sequence[int] = sheaf.objects[:count].value_() if count else ()
    return objects


def _members(kind: drgn.Type, name: str) -> set[str | None]:
    """The names of the members of a structure that is a member; empty if there is none."""
    return {each.name for each in kind.member(name).type.members or ()} if kind.has_member(name) else set()


def _type(prog: drgn.Program, name: str, file: str | None = None) -> drgn.Type | None:
    """A type, in the named file if debug information knows files; None if there is none."""
    for arguments in ((name, file), (name,)) if file is not None else ((name,),):
        try:
            return prog.type(*arguments)
        except LookupError:
            continue
    return None


@remembered(UNTIL_RESUMED)
def slabs_of(kernel: Kernel) -> Slabs:
    """The one Slabs of a kernel. TargetError without the types."""
    return Slabs(kernel)
