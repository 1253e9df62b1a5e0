"""Slab objects: the cache, the object's bounds, and whether it is allocated."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import drgn
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.slab import get_slab_cache_aliases, slab_object_info

from kplug.arch.types.word import WordFormat
from kplug.errors import TargetError
from kplug.kinds import Kind, before_range, register
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import FaultError
from kplug.model import Layer
from kplug.runtime.kernel.cpus import online_cpus
from kplug.runtime.kernel.kernel import Kernel, reading
from kplug.runtime.locators.freed import owned_address
from kplug.runtime.locators.registry import locates
from kplug.runtime.tables import struct_page
from kplug.runtime.tables.struct_page import pages_of
from kplug.runtime.tables.translation import page_tables

ALLOCATED, FREE, CPU_FREE, CORRUPTED = "allocated", "free", "cpu-free", "corrupted"

SOURCE = "slab allocator"

_MAX_NAME = 256
_MAX_SLAB = 1 << 22  # bytes; the kernel's largest slabs have 32 KiB


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = f"{layer.name}  {details.get('state') or ''}".rstrip()
    if details.get("object_size") is not None:
        words += f"  object size {details['object_size']:#x}"
    return before_range(words, layer), True


def _phrase(layer: Layer, offset: int) -> str:
    state = layer.details.get("state")
    free = f"{state} " if state and state != ALLOCATED else ""
    return f"{free}slab object {layer.name}+{offset:#x}" if layer.details.get("object") else f"slab {layer.name}"


KIND = register(
    Kind(
        "slab",
        900,
        {
            "cache": "",
            "object": "",
            "state": "(`allocated`, `free`, `cpu-free`, `corrupted`)",
            "object_size": "",
            "padding": "",
            "merged_with": "",
        },
        words=_words,
        phrase=_phrase,
        object_type=lambda layer: None if layer.details["object"] is None else "",
    )
)


class _CorruptedError(Exception):
    """A freelist that leads out of its slab, or loops."""


class _Cache:
    """One kmem_cache, with the facts that all of its objects share."""

    def __init__(self, slabs: _Slabs, address: int) -> None:
        prog = slabs.kernel.prog
        with reading(f"the slab cache at {address:#x}"):
            cache = drgn.Object(prog, "struct kmem_cache *", address)
            name = prog.read_c_string(cache.name.value_(), max_size=_MAX_NAME)
            self.name = name.decode(errors="backslashreplace")
            self.size: int = cache.size.value_()
            self.object_size = cache.object_size.value_()
            self.merged = cache.refcount.value_() > 1
            self.left_pad: int = cache.red_left_pad.value_() if slabs.has_left_pad else 0
            self.next_offset = cache.offset.value_() if slabs.is_slub else 0
            self.random = cache.random.value_() if slabs.is_hardened else None
            # 2d517aa09bbc (6.18): free objects of any slab, in bags for each CPU
            self.has_sheaves = slabs.may_have_sheaves and bool(cache.cpu_sheaves.value_())
            self.per_cpu = self._cpu_slabs(slabs, cache)
        if not 0 < self.object_size <= self.size:
            raise TargetError(f"the slab cache at {address:#x} is corrupted: objects of {self.object_size:#x} bytes")

    def _cpu_slabs(self, slabs: _Slabs, cache: drgn.Object) -> list[int]:
        """The addresses of each CPU's kmem_cache_cpu; none since 32c894c7274b (7.0)."""
        if not slabs.has_cpu_slab:
            return []
        return [per_cpu_ptr(cache.cpu_slab, cpu).value_() for cpu in slabs.cpus]


class _Slabs:
    """The layout of the allocator's structures."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._word = kernel.word
        self.memo = kernel.memo
        prog = kernel.prog
        with reading("the slab allocator"):
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

    def object_count(self, data: bytes) -> int:
        """How many objects a slab has, of the bytes of its struct: `objects:15` behind `inuse:16`. The compiler counts
        bits from the end that the byte order has first.
        """
        bits = self._word.unsigned(data, self.counters, 4)
        return bits >> (16 if self._word.little_endian else 1) & 0x7FFF

    @remembered(UNTIL_RESUMED)
    def cache(self, address: int) -> _Cache:
        return _Cache(self, address)


class SlabLocator:
    """The slab object that holds an address of the direct map, or of the image's freed memory."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def locate(self, address: int) -> Iterable[Layer]:
        kernel, tables = self._kernel, page_tables(self._kernel)
        pages, paging = pages_of(kernel), tables.paging
        place = owned_address(kernel, address)
        if place is None or pages is None or paging is None:
            return
        physical = tables.linear_physical(place)
        if physical is None or not pages.exists(physical >> paging.page_shift):
            return
        page = pages.page(physical >> paging.page_shift)
        if page.state != struct_page.SLAB:
            return
        base = tables.direct_address(page.head << paging.page_shift)
        if base is None:
            return
        slabs = _slabs_of(kernel)
        cache = slabs.cache(kernel.word.at(pages.raw(page.head), slabs.cache_offset))
        size, shift = paging.page_size << page.order, address - place
        start = self._object_start(slabs, cache, page.head, base, size, place)
        details: dict[str, Any] = {
            "cache": cache.name,
            "object": None if start is None else hex(start),
            "state": None,
            "object_size": cache.object_size,
        }
        if cache.merged:
            details["merged_with"] = list(_aliases_of(self._kernel).get(cache.name, ()))
        if start is None:
            yield Layer(KIND.name, cache.name, base + shift, base + size + shift, SOURCE, details)
            return
        details["padding"] = place - start >= cache.object_size
        problem = None
        try:
            details["state"] = self._state(slabs, cache, page.head, base, size, start)
        except TargetError as error:
            problem = error
        yield Layer(KIND.name, cache.name, start + shift, start + cache.size + shift, SOURCE, details)
        if problem is not None:
            raise problem

    def _object_start(self, slabs: _Slabs, cache: _Cache, head: int, base: int, size: int, address: int) -> int | None:
        """The start of the object around an address; None before the first and after the last."""
        if not slabs.is_slub:
            info = self._drgn_info(address)
            found: int | None = info.address if info is not None and info.address else None
            return found
        pages = pages_of(self._kernel)
        assert pages is not None
        count = slabs.object_count(pages.raw(head))
        number: int = (address - base - cache.left_pad) // cache.size
        if number < 0 or number >= min(count, size // cache.size):
            return None
        return base + cache.left_pad + number * cache.size

    def _state(self, slabs: _Slabs, cache: _Cache, head: int, base: int, size: int, start: int) -> str | None:
        """Whether an object is allocated. TargetError if the slab's memory cannot be read."""
        if not slabs.is_slub:
            info = self._drgn_info(start)
            return None if info is None or info.allocated is None else ALLOCATED if info.allocated else FREE
        pages = pages_of(self._kernel)
        assert pages is not None
        page_size = pages.size
        slab, word = pages.base + head * page_size, self._kernel.word
        try:
            memory = self._kernel.read(base, min(size, _MAX_SLAB))
            free = _free_objects(word, cache, memory, base, word.at(pages.raw(head), slabs.freelist))
            if start in free:
                return FREE
            for cpu_slab in cache.per_cpu:
                data = self._kernel.read(cpu_slab, slabs.cpu_slab_size)
                if word.at(data, slabs.cpu_slab) == slab:
                    free = _free_objects(word, cache, memory, base, word.at(data, slabs.cpu_freelist))
                    if start in free:
                        return CPU_FREE
        except FaultError as error:
            raise TargetError(f"whether the slab object at {start:#x} is allocated: {error}") from None
        except _CorruptedError:
            return CORRUPTED
        if cache.has_sheaves:
            info = self._drgn_info(start)
            return None if info is None or info.allocated is None else ALLOCATED if info.allocated else CPU_FREE
        return ALLOCATED

    def _drgn_info(self, address: int) -> Any:
        with reading(f"the slab object at {address:#x}"):
            return slab_object_info(self._kernel.prog, address)


@remembered(UNTIL_RESUMED)
def _slabs_of(kernel: Kernel) -> _Slabs:
    return _Slabs(kernel)


@remembered(UNTIL_RESUMED)
def _aliases_of(kernel: Kernel) -> dict[str, list[str]]:
    """The names that were merged into each cache, as far as sysfs's tree in memory has them."""
    found: dict[str, list[str]] = {}
    with suppress(TargetError), reading("the names of merged slab caches"):
        for name, target in get_slab_cache_aliases(kernel.prog).items():
            found.setdefault(target, []).append(name)
    return {target: sorted(names) for target, names in found.items()}


def _free_objects(word: WordFormat, cache: _Cache, memory: bytes, base: int, first: int) -> set[int]:
    """The objects on a list of free ones within one slab, whose bytes are `memory`.

    With CONFIG_SLAB_FREELIST_HARDENED each link is scrambled with the cache's secret and the link's own address, since
    1ad53d9fa3f6 (5.7) byte-swapped. Which of the two it is follows from where the link leads.
    """
    found: set[int] = set()
    place, swapped = first, True
    start = base + cache.left_pad
    while place:
        if not (start <= place < base + len(memory)) or (place - start) % cache.size or place in found:
            raise _CorruptedError
        found.add(place)
        link = place + cache.next_offset
        if link + word.size > base + len(memory):
            raise _CorruptedError
        stored = word.at(memory, link - base)
        if cache.random is None:
            place = stored
            continue
        plain = stored ^ cache.random
        mixed = plain ^ word.swapped(link)
        if len(found) == 1:
            swapped = not mixed or start <= mixed < base + len(memory)
        place = mixed if swapped else plain ^ link
    return found


locates(KIND, lambda kernel, user: SlabLocator(kernel))
