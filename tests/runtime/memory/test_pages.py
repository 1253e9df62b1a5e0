"""The state of every page, and slab objects. Truth: drgn's helpers and the page allocator's own sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import drgn
import pytest
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import PageReserved, PageSlab, compound_head, decode_page_flags, pfn_to_page, virt_to_page
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.slab import (
    find_slab_cache,
    for_each_slab_cache,
    slab_cache_for_each_allocated_object,
    slab_cache_pages_per_slab,
    slab_cache_usage,
)
from support.answers import only
from support.memory_dumps import PAGE, MemoryDump

from kplug.model import Layer

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# -- pages -------------------------------------------------------------------------------------------------------------


def pages(dumped: MemoryDump) -> Iterator[tuple[int, Layer]]:
    from kplug.runtime.locators.pages import PageLocator

    locator = PageLocator(dumped.kernel)
    for frame in dumped.frames:
        (layer,) = locator.locate(dumped.direct_map + frame * PAGE)
        yield frame, layer


@pytest.fixture(scope="module")
def by_state(dumped: MemoryDump) -> dict[str | None, list[tuple[int, Layer]]]:
    found: dict[str | None, list[tuple[int, Layer]]] = {}
    for frame, layer in pages(dumped):
        found.setdefault(layer.details["state"], []).append((frame, layer))
    return found


def test_every_page_against_drgn(dumped: MemoryDump, by_state: dict[str | None, list[tuple[int, Layer]]]) -> None:
    for state, found in by_state.items():
        for frame, layer in found[:: max(1, len(found) // 300)]:
            page = pfn_to_page(dumped.prog, frame)
            head = compound_head(page)
            assert layer.details["pfn"] == frame
            assert layer.details["physical"] == hex(frame * PAGE)
            assert layer.details["struct_page"] == hex(page.value_())
            assert layer.details["refcount"] == head._refcount.counter.value_()
            assert (state == "slab") is PageSlab(head)
            assert (state == "reserved") is PageReserved(page)
            # Those of a tail page are other fields of the head, whatever they read as.
            names = set(filter(None, layer.details["flags"].split("|")))
            assert names <= {word[3:] for word in decode_page_flags(head).split("|")}
            assert len(names) == bin(head.flags.value_() & (1 << dumped.prog["__NR_PAGEFLAGS"].value_()) - 1).count("1")


def test_page_states_against_the_allocators_own_sums(
    dumped: MemoryDump, by_state: dict[str | None, list[tuple[int, Layer]]]
) -> None:
    prog = dumped.prog
    lists = Counter(layer.details["free_list"] for _, layer in by_state["free"])
    low = [frame for frame in range(1, 0x100) if _state(dumped, frame) == "free"]
    free = held = 0
    for node in for_each_online_pgdat(prog):
        for zone in node.node_zones[: node.nr_zones]:
            free += zone.vm_stat[prog["NR_FREE_PAGES"]].counter.value_()
            for cpu in for_each_possible_cpu(prog):
                # What the CPU has not added yet.
                free += per_cpu_ptr(zone.per_cpu_zonestats, cpu).vm_stat_diff[prog["NR_FREE_PAGES"]].value_()
                held += per_cpu_ptr(zone.per_cpu_pageset, cpu).count.value_()
    assert lists["buddy"] + len(low) == free
    assert lists["per-CPU list"] == held
    slabs = sum(
        slab_cache_usage(cache).num_slabs * slab_cache_pages_per_slab(cache) for cache in for_each_slab_cache(prog)
    )
    assert len(by_state["slab"]) == slabs
    assert len(by_state["anon"]) >= global_node_pages(prog, "NR_ANON_MAPPED") > 0
    assert len(by_state["pagetable"]) == global_node_pages(prog, "NR_PAGETABLE")
    # In a block of several pages that was allocated as such (without __GFP_COMP) nothing tells of the later ones.
    unknown = by_state.get(None, [])
    assert len(unknown) < 1000
    assert all(pfn_to_page(prog, frame)._refcount.counter.value_() == 0 for frame, _ in unknown)


def _state(dumped: MemoryDump, frame: int) -> str | None:
    layer = dumped.where(dumped.direct_map + frame * PAGE).last("page")
    return layer.details["state"] if layer is not None else None


def global_node_pages(prog: drgn.Program, name: str) -> int:
    """A counter of the nodes, with what the CPUs have not added yet."""
    total = 0
    for node in for_each_online_pgdat(prog):
        total += node.vm_stat[prog[name]].counter.value_()
        for cpu in for_each_possible_cpu(prog):
            total += per_cpu_ptr(node.per_cpu_nodestats, cpu).vm_node_stat_diff[prog[name]].value_()
    return total


def test_a_struct_page_names_its_page(dumped: MemoryDump) -> None:
    for frame in range(0x100, dumped.frames.stop, 977):
        page = pfn_to_page(dumped.prog, frame).value_()
        for offset in (0, 8, 63):
            layer = only(dumped.where(page + offset), "page")
            assert layer.details["pfn"] == frame
            assert (layer.start, layer.end) == (page, page + 64)
            assert layer.name == f"struct page of pfn {frame:#x}"
            assert layer.details["describes"]


def test_file_pages_have_their_file(dumped: MemoryDump, by_state: dict[str | None, list[tuple[int, Layer]]]) -> None:
    paths = {layer.details.get("path") for _, layer in by_state["file"]}
    maps = dumped.dumps.truth.text("init-maps")
    mapped = {line.split()[5] for line in maps.splitlines() if len(line.split()) > 5 and "/" in line}
    assert mapped
    assert mapped <= paths


# -- slab --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["task_struct", "dentry", "kmalloc-64", "vm_area_struct"])
def test_slab_objects(dumped: MemoryDump, name: str) -> None:
    """Every object of every slab of a cache: what drgn lists as allocated is, and nothing else."""
    prog = dumped.prog
    cache = find_slab_cache(prog, name)
    assert cache is not None
    allocated = {obj.value_() for obj in slab_cache_for_each_allocated_object(cache, "void")}
    assert allocated
    size, object_size = cache.size.value_(), cache.object_size.value_()
    order_pages = slab_cache_pages_per_slab(cache)
    slabs = sorted({compound_head(virt_to_page(prog, address)).value_() for address in allocated})[:100]
    states: Counter[str] = Counter()
    page0 = pfn_to_page(prog, 0).value_()
    for slab in slabs:
        base = dumped.direct_map + (slab - page0) // 64 * PAGE
        for start in range(base, base + order_pages * PAGE - size + 1, size):
            layer = only(dumped.where(start + object_size // 2), "slab")
            assert (layer.start, layer.end, layer.name) == (start, start + size, name)
            assert layer.details["object"] == hex(start)
            assert layer.details["object_size"] == object_size
            assert (layer.details["state"] == "allocated") is (start in allocated)
            states[layer.details["state"]] += 1
            if size > object_size:
                assert only(dumped.where(start + object_size), "slab").details["padding"] is True
    assert states["allocated"] == len(allocated) or len(slabs) == 100
    assert set(states) <= {"allocated", "free", "cpu-free"}


def test_behind_the_last_object_of_a_slab(dumped: MemoryDump) -> None:
    cache = find_slab_cache(dumped.prog, "task_struct")
    assert cache is not None
    task = next(iter(slab_cache_for_each_allocated_object(cache, "struct task_struct")))
    head = compound_head(virt_to_page(dumped.prog, task))
    base = dumped.direct_map + (head.value_() - pfn_to_page(dumped.prog, 0).value_()) // 64 * PAGE
    end = base + slab_cache_pages_per_slab(cache) * PAGE
    layer = only(dumped.where(end - 1), "slab")
    assert (end - base) % cache.size.value_()
    assert layer.details["object"] is None
    assert (layer.start, layer.end) == (base, end)
