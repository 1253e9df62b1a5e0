"""Who allocated and freed an object or a page, in words: what SLUB, KASAN, KFENCE and page_owner recorded, as JSON and
as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kplug.model import Layer
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.freed_init import freed_init_words
from kplug.runtime.modules.symbol_words import symbol_words

ALLOCATED_BY, FREED_BY, WORK_CREATED = "allocated_by", "freed_by", "work_created"

# Functions of the allocators, by the starts of their names: their caller is the one that allocated or freed.
ALLOCATORS = (
    "kfence_", "__kfence_", "kmem_cache_alloc", "kmem_cache_free", "__kmem_cache_free", "__kmalloc", "kfree",
    "kmalloc_noprof", "kmalloc_trace", "kmalloc_large", "slab_alloc", "__slab_alloc", "___slab_alloc", "slab_free",
    "__slab_free", "slab_post_alloc_hook", "kasan_", "__kasan_", "____kasan_", "poison_slab_object",
    "unpoison_slab_object", "poison_kmalloc_redzone", "save_stack", "set_track",
)  # fmt: skip
PAGE_ALLOCATORS = (
    "post_alloc_hook", "prep_new_page", "get_page_from_freelist", "__alloc_pages", "alloc_pages",
    "__alloc_frozen_pages", "alloc_frozen_pages", "__folio_alloc", "folio_alloc", "vma_alloc_folio",
    "__get_free_pages", "get_free_pages", "get_zeroed_page", "free_pages_prepare", "free_pcp_prepare", "free_unref",
    "__free_unref", "__free_pages", "___free_pages", "free_pages", "free_frozen_pages", "__free_frozen_pages",
    "set_page_owner", "__set_page_owner", "reset_page_owner", "__reset_page_owner",
)  # fmt: skip


def stack_words(kernel: Kernel, stack: Iterable[int]) -> list[str]:
    """Return addresses in the kernel's own words; as numbers where no symbol holds them, nor a module's freed init."""
    return [symbol_words(kernel, entry) or freed_init_words(kernel, entry) or hex(entry) for entry in stack]


def first_outside(stack: Iterable[str], allocators: tuple[str, ...]) -> str | None:
    """The function of a stack that called the allocator."""
    return next((words for words in stack if not words.startswith(allocators)), None)


def track_words(track: Mapping[str, Any]) -> str:
    """Who it was, in a few words."""
    return f"by task {track['pid']}{_in(track)}"


def track_lines(layer: Layer) -> Iterator[str]:
    """The lines for who allocated and who freed an object or a page, each with the stack."""
    is_allocated = "allocated" in (layer.details.get("state"), layer.details.get("recorded_as"))
    for key, words in ((ALLOCATED_BY, "allocated"), (FREED_BY, "freed before" if is_allocated else "freed")):
        track = layer.details.get(key)
        if track is not None:
            yield f"{words}{_in(track)}{_by(track)}{_where_and_when(track)}"
            yield from (f"  {entry}" for entry in track["stack"])
            if track.get("no_stack"):
                yield f"  no stack: {track['no_stack']}"
    for number, work in enumerate(layer.details.get(WORK_CREATED, ())):
        yield f"{'before that, ' if number else ''}work with it created{_in(work)}"
        yield from (f"  {entry}" for entry in work["stack"])
    if layer.details.get("record_with"):
        yield f"who allocated and freed it is not recorded ({layer.details['record_with']} would)"


def _in(track: Mapping[str, Any]) -> str:
    return f" in {track['caller']}" if track["caller"] else ""


def _by(track: Mapping[str, Any]) -> str:
    if track["pid"] is None:
        return ""
    comm = f" ({track['comm']})" if track.get("comm") else ""
    return f" by task {track['pid']}{comm}" + (f" of process {track['tgid']}" if track.get("tgid") else "")


def _where_and_when(track: Mapping[str, Any]) -> str:
    words = f", CPU {track['cpu']}" if track["cpu"] is not None else ""
    if track["seconds"] is not None:
        words += f", {track['seconds']:.2f} s after boot"
    words += f" ({track['age']:.2f} s ago)" if track.get("age") is not None else ""
    return words + (f", order {track['order']}, gfp {track['gfp']}" if track.get("gfp") else "")
