"""Who allocated and freed a slab object, by SLUB's tracks (slub_debug=U) and by KASAN, as details of its layer."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kplug.errors import TargetError
from kplug.memory.reading import FaultError
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.tracks import (
    ALLOCATED_BY,
    ALLOCATORS,
    FREED_BY,
    WORK_CREATED,
    first_outside,
    stack_words,
)
from kplug.runtime.tables.kasan import KasanTrack, kasan_of
from kplug.runtime.tables.slab_caches import ALLOCATION_TRACK, FREE_TRACK, REQUESTED_SIZE, Cache, slabs_of
from kplug.runtime.tables.slab_tracks import Track, slab_tracks

ALLOCATED, QUARANTINED = "allocated", "quarantined"

_QUARANTINE = ("kasan_quarantine_", "quarantine_", "qlist_", "qlink_")  # functions of mm/kasan/quarantine.c
# Functions that are given an object for later, by the starts of their names.
_WORK_GIVERS = (
    "kasan_", "__kasan_", "__call_rcu", "call_rcu", "kvfree_call_rcu", "kfree_call_rcu", "insert_work", "__queue_work",
    "queue_work_on", "task_work_add", "irq_work_queue", "slab_free", "kmem_cache_free",
)  # fmt: skip


def add_owners(kernel: Kernel, cache: Cache, start: int, details: dict[str, Any]) -> list[str]:
    """Add who allocated and freed an object to its details. Returns what could not be read, and why."""
    problems = _add_tracks(kernel, cache, start, details) if cache.tracks_users else []
    try:
        is_recorded, more = _add_kasan(kernel, cache, start, details)
    except TargetError as error:
        return [*problems, f"KASAN's records of the object are not known: {error}"]
    if not cache.tracks_users and not is_recorded and slabs_of(kernel).can_track(cache):
        details["record_with"] = f"slub_debug=U,{cache.name}"
    return problems + more


def _add_tracks(kernel: Kernel, cache: Cache, start: int, details: dict[str, Any]) -> list[str]:
    """Add what SLUB's tracks tell."""
    problems = []
    for name, key in ((ALLOCATION_TRACK, ALLOCATED_BY), (FREE_TRACK, FREED_BY)):
        part = cache.part(name)
        assert part is not None
        details[key] = None
        try:
            track = slab_tracks(kernel).read(start + part.start)
        except TargetError as error:
            problems.append(f"who {key.replace('_by', '')} the object is not known: {error}")
            continue
        if track is not None:
            details[key] = _of_slub(kernel, track)
            problems += [track.problem] if track.problem is not None else []
    requested = cache.part(REQUESTED_SIZE)
    if requested is not None and details["state"] == ALLOCATED:
        with suppress(FaultError):
            size = kernel.read_unsigned(start + requested.start, requested.end - requested.start)
            details["requested"] = size if 0 < size <= cache.object_size else None
    return problems


def _of_slub(kernel: Kernel, track: Track) -> dict[str, Any]:
    (caller,) = stack_words(kernel, (track.caller,))
    return {
        "pid": track.pid,
        "cpu": track.cpu,
        "seconds": track.seconds,
        "age": track.age,
        "caller": caller,
        "stack": stack_words(kernel, track.stack),
    }


def _add_kasan(kernel: Kernel, cache: Cache, start: int, details: dict[str, Any]) -> tuple[bool, list[str]]:
    """Add what KASAN recorded. Returns whether it records the cache's objects, and what could not be read.

    SLUB frees an object when it leaves KASAN's quarantine: such a track does not tell who freed it.
    """
    kasan = kasan_of(kernel)
    if kasan is None or not kasan.records(cache):
        return False, []
    freed = details.get(FREED_BY)
    if freed is not None:
        words = (freed["caller"], *freed["stack"])
        if details["state"] == QUARANTINED or any(each.startswith(_QUARANTINE) for each in words):
            details[FREED_BY] = None
    record = kasan.record(cache, start, is_linked=details["state"] not in (ALLOCATED, QUARANTINED))
    for key, track in ((ALLOCATED_BY, record.allocated), (FREED_BY, record.freed)):
        # SLUB's track of the same allocation tells more.
        if details.get(key) is None or (key == FREED_BY and track is not None):
            details[key] = _of_kasan(kernel, track) if track is not None else None
    if record.created:
        stacks = [stack_words(kernel, stack) for stack in record.created]
        details[WORK_CREATED] = [{"caller": first_outside(stack, _WORK_GIVERS), "stack": stack} for stack in stacks]
    return True, record.problems


def _of_kasan(kernel: Kernel, track: KasanTrack) -> dict[str, Any]:
    stack = stack_words(kernel, track.stack)
    return {
        "pid": track.pid,
        "cpu": track.cpu,
        "seconds": track.seconds,
        "age": track.age,
        "caller": first_outside(stack, ALLOCATORS),
        "stack": stack,
    }
