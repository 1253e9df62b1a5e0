"""Who allocated and freed an object, in words: what SLUB and KFENCE recorded, as JSON and as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.symbol_words import symbol_words

ALLOCATED_BY, FREED_BY = "allocated_by", "freed_by"

# Functions of the allocators, by the starts of their names: their caller is the one that allocated or freed.
ALLOCATORS = (
    "kfence_", "__kfence_", "kmem_cache_alloc", "kmem_cache_free", "__kmem_cache_free", "__kmalloc", "kfree",
    "kmalloc_noprof", "kmalloc_trace", "kmalloc_large", "slab_alloc", "__slab_alloc", "___slab_alloc", "slab_free",
    "__slab_free",
)  # fmt: skip


def stack_words(kernel: Kernel, stack: Iterable[int]) -> list[str]:
    """Return addresses in the kernel's own words; as numbers where no symbol holds them."""
    return [symbol_words(kernel, entry) or hex(entry) for entry in stack]


def track_words(track: Mapping[str, Any]) -> str:
    """Who it was, in a few words."""
    caller = f" in {track['caller']}" if track["caller"] else ""
    return f"by task {track['pid']}{caller}"


def track_lines(layer: Layer) -> Iterator[str]:
    """The lines for who allocated and who freed an object, each with the stack."""
    freed = "freed before" if layer.details.get("state") == "allocated" else "freed"
    for key, words in ((ALLOCATED_BY, "allocated"), (FREED_BY, freed)):
        track = layer.details.get(key)
        if track is not None:
            caller = f" in {track['caller']}" if track["caller"] else ""
            yield f"{words}{caller} by task {track['pid']}{_where_and_when(track)}"
            yield from (f"  {entry}" for entry in track["stack"])


def _where_and_when(track: Mapping[str, Any]) -> str:
    words = f", CPU {track['cpu']}" if track["cpu"] is not None else ""
    if track["seconds"] is not None:
        words += f", {track['seconds']:.2f} s after boot"
    return words + (f" ({track['age']:.2f} s ago)" if track.get("age") is not None else "")
