"""Slab objects: the cache, the object's bounds, and whether it is allocated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from kplug.arch.types.word import WordFormat
from kplug.errors import TargetError
from kplug.kinds import Kind, before_range, register
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import FaultError
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.freed import owned_page
from kplug.runtime.locators.registry import locates
from kplug.runtime.locators.slab_owners import ALLOCATED, QUARANTINED, add_owners
from kplug.runtime.locators.tracks import track_lines
from kplug.runtime.tables import struct_page
from kplug.runtime.tables.kasan import kasan_of
from kplug.runtime.tables.slab_caches import (
    LEFT_RED_ZONE,
    OBJECT,
    PADDING,
    Cache,
    Slabs,
    slabs_of,
)
from kplug.runtime.tables.struct_page import pages_of

FREE, CPU_FREE, FREED, CORRUPTED = "free", "cpu-free", "freed", "corrupted"

SOURCE = "slab allocator"

_MAX_SLAB = 1 << 22  # bytes; the kernel's largest slabs have 32 KiB


def _words(layer: Layer) -> tuple[str, bool]:
    details = layer.details
    words = [layer.name, "" if _in_object(details) else _part_words(details), _state_words(details)]
    if details.get("object_size") is not None:
        words.append(f"object size {details['object_size']:#x}")
    if details.get("requested") is not None:
        words.append(f"requested {details['requested']:#x}")
    return before_range("  ".join(filter(None, words)), layer), True


def _state_words(details: Mapping[str, Any]) -> str:
    state: str = details.get("state") or ""
    return f"{state} (CPU {details['cpu']})" if details.get("cpu") is not None else state


def _in_object(details: Mapping[str, Any]) -> bool:
    return details.get("part") == OBJECT or (details.get("part") is None and not details.get("padding"))


def _part_words(details: Mapping[str, Any]) -> str:
    part: str = details.get("part") or "past the end"
    return part


def _phrase(layer: Layer, offset: int) -> str:
    details = layer.details
    if not details.get("object"):
        return f"padding after the last object of slab {layer.name}" if details.get("part") else f"slab {layer.name}"
    state = _state_words(details) if details.get("state") not in (None, ALLOCATED) else ""
    assert layer.start is not None
    distance = layer.start + offset - _object_of(layer)
    words = f"slab object {layer.name}{distance:+#x}"
    words = f"{state} {words}" if state else words
    if details.get("requested") is not None and details["requested"] <= distance < details["object_size"]:
        words += f", past the {details['requested']:#x} bytes requested"
    return words if _in_object(details) else f"{_part_words(details)} of {words}"


def _object_of(layer: Layer) -> int:
    """Where the object is, in the addresses of the layer, which may be those of the image's freed memory."""
    assert layer.start is not None
    assert layer.end is not None
    return layer.end if layer.details.get("part") == LEFT_RED_ZONE else layer.start


KIND = register(
    Kind(
        "slab",
        900,
        {
            "cache": "",
            "object": "",
            "state": "(`allocated`, `free`, `cpu-free`, `quarantined`: freed, and kept by KASAN; `freed`: by"
            " KASAN's shadow, if its quarantine has too many to look at; `corrupted`)",
            "cpu": "(whose list a `cpu-free` object is on)",
            "object_size": "",
            "requested": "(bytes that kmalloc was asked for, where recorded)",
            "allocated_by": "",
            "freed_by": "(by SLUB or KASAN: `pid`, `cpu`, `seconds` since boot, `age` in seconds, `caller` of the"
            " allocator, `stack`; of an allocated object: who freed it before)",
            "work_created": "(by KASAN: who last gave the object to call_rcu() or a work queue, the last one first:"
            " `caller`, `stack`)",
            "record_with": "(the option of the kernel's command line that would record who allocates and frees)",
            "padding": "(the address is in none of the object's own bytes)",
            "part": "(`object`, `left red zone`, `right red zone`, `free pointer`, `allocation track`, `free track`,"
            " `requested size`, `KASAN metadata`, `padding`, `padding or other metadata`; `null` where the layout is"
            " not certain)",
            "merged_with": "",
        },
        "a left red zone is a layer of its own, which ends where its `object` begins",
        words=_words,
        more=track_lines,
        phrase=_phrase,
        object_type=lambda layer: None if layer.details["object"] is None else "",
    )
)


class _CorruptedError(Exception):
    """A freelist that leads out of its slab, or loops."""


class _Slab(NamedTuple):
    """A slab: the page frame number of its first page, and its memory in the direct map."""

    slabs: Slabs
    cache: Cache
    head: int
    base: int
    size: int


class SlabLocator:
    """The slab object that holds an address of the direct map, or of the image's freed memory."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def locate(self, address: int) -> Iterable[Layer]:
        kernel, owned = self._kernel, owned_page(self._kernel, address)
        if owned is None or owned.page.state != struct_page.SLAB:
            return
        pages, page, place, base, size = owned
        slabs = slabs_of(kernel)
        cache = slabs.cache(kernel.word.at(pages.raw(page.head), slabs.cache_offset))
        shift = address - place
        slab = _Slab(slabs, cache, page.head, base, size)
        start = self._object_start(slab, place)
        details: dict[str, Any] = {
            "cache": cache.name,
            "object": None if start is None else hex(start),
            "state": None,
            "object_size": cache.object_size,
        }
        if cache.merged:
            details["merged_with"] = list(_aliases_of(self._kernel).get(cache.name, ()))
        if start is None:
            details["part"] = PADDING if slabs.is_slub else None
            yield Layer(KIND.name, cache.name, base + shift, base + size + shift, SOURCE, details)
            return
        part = cache.part_at(place - start)
        details["padding"] = not 0 <= place - start < cache.object_size
        details["part"] = part.name if part is not None else None
        problems = []
        try:
            state, cpu = self._state(slab, start)
            details["state"] = self._unless_quarantined(cache, start) if state == ALLOCATED else state
            if cpu is not None:
                details["cpu"] = cpu
        except TargetError as error:
            problems.append(str(error))
        problems += add_owners(kernel, cache, start, details)
        first, last = start + shift, start - cache.left_pad + cache.size + shift
        if place < start:
            first, last = first - cache.left_pad, first
        yield Layer(KIND.name, cache.name, first, last, SOURCE, details)
        if problems:
            raise TargetError("; ".join(problems))

    def _object_start(self, slab: _Slab, address: int) -> int | None:
        """The start of the object in whose room an address is; None after the last."""
        cache = slab.cache
        if not slab.slabs.is_slub:
            info = self._drgn_info(address)
            found: int | None = info.address if info is not None and info.address else None
            return found
        pages = pages_of(self._kernel)
        assert pages is not None
        count = slab.slabs.object_count(pages.raw(slab.head))
        number: int = (address - slab.base) // cache.size
        if number >= min(count, slab.size // cache.size):
            return None
        return slab.base + cache.left_pad + number * cache.size

    def _state(self, slab: _Slab, start: int) -> tuple[str | None, int | None]:
        """Whether an object is allocated, and whose list it is on. TargetError if memory cannot be read."""
        slabs, cache, base = slab.slabs, slab.cache, slab.base
        if not slabs.is_slub:
            return self._drgn_state(start), None
        pages = pages_of(self._kernel)
        assert pages is not None
        place, word = pages.base + slab.head * pages.size, self._kernel.word
        try:
            memory = self._kernel.read(base, min(slab.size, _MAX_SLAB))
            free = _free_objects(word, cache, memory, base, word.at(pages.raw(slab.head), slabs.freelist))
            if start in free:
                return FREE, None
            for cpu, cpu_slab in cache.per_cpu:
                data = self._kernel.read(cpu_slab, slabs.cpu_slab_size)
                if word.at(data, slabs.cpu_slab) == place:
                    free = _free_objects(word, cache, memory, base, word.at(data, slabs.cpu_freelist))
                    if start in free:
                        return CPU_FREE, cpu
            sheaves = slabs.in_sheaves(cache) if cache.has_sheaves else {}
        except FaultError as error:
            raise TargetError(f"whether the slab object at {start:#x} is allocated: {error}") from None
        except _CorruptedError:
            return CORRUPTED, None
        return (CPU_FREE, sheaves[start]) if start in sheaves else (ALLOCATED, None)

    def _unless_quarantined(self, cache: Cache, start: int) -> str | None:
        """The state of an object that is on no list of free ones: KASAN keeps freed ones for a while."""
        kasan = kasan_of(self._kernel)
        if kasan is None:
            return ALLOCATED
        freed = kasan.is_freed(start)
        # The shadow lets freed objects be accessed, too, if these may be read.
        if freed is False and not cache.is_typesafe_by_rcu:
            return ALLOCATED
        # It also says of unused objects of a mempool that they were freed.
        kept = kasan.is_quarantined(cache, start)
        return QUARANTINED if kept else ALLOCATED if kept is False else FREED if freed else None

    def _drgn_state(self, address: int) -> str | None:
        info = self._drgn_info(address)
        return None if info is None or info.allocated is None else ALLOCATED if info.allocated else FREE

    def _drgn_info(self, address: int) -> Any:
        with self._kernel.reading(f"the slab object at {address:#x}"):
            return helpers.slab_object_info(self._kernel.prog, address)


@remembered(UNTIL_RESUMED)
def _aliases_of(kernel: Kernel) -> dict[str, list[str]]:
    """The names that were merged into each cache, as far as sysfs's tree in memory has them."""
    found: dict[str, list[str]] = {}
    with suppress(TargetError), kernel.reading("the names of merged slab caches"):
        for name, target in helpers.get_slab_cache_aliases(kernel.prog).items():
            found.setdefault(target, []).append(name)
    return {target: sorted(names) for target, names in found.items()}


def _free_objects(word: WordFormat, cache: Cache, memory: bytes, base: int, first: int) -> set[int]:
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
