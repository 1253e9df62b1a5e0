"""Pages of arm64 kernels: their rights, their aliases, and what memory that was allocated is.

Truth: the page tables walked with the figures of the Arm ARM, drgn's helpers, what arch/arm64/mm/mmu.c sets for each
part of the image, and the guest's /proc/vmallocinfo and /proc/1/maps.
"""

from __future__ import annotations

import re
from collections import Counter

import drgn
import pytest
from drgn.helpers.linux.mm import find_vmap_area, pfn_to_page
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.slab import find_slab_cache, slab_cache_for_each_allocated_object
from support.answers import only
from support.arm64_dumps import PAGE, Machine

from kplug.summary import summarize

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# -- page tables -------------------------------------------------------------------------------------------------------


def test_pages_and_their_rights_are_those_of_the_page_tables(machine: Machine) -> None:
    """Of each thing that is mapped: its first and last byte."""
    checked = Counter[str]()
    for mapping in machine.mappings[:: max(1, len(machine.mappings) // 400)]:
        for address in (mapping.start, mapping.end - 1):
            state = machine.where(address).state
            assert (state.mapped, state.permissions) == (True, mapping.permissions), hex(address)
        checked[mapping.permissions] += 1
    assert set(checked) >= {"rw-", "r--", "r-x"}


def test_drgn_walks_to_the_same_pages(machine: Machine) -> None:
    from kplug.runtime.tables.translation import page_tables

    tables = page_tables(machine.session.target.kernel)  # type: ignore[union-attr]
    for mapping in machine.mappings[:: max(1, len(machine.mappings) // 400)]:
        found = tables.translate(mapping.start + 0x123)
        assert found is not None
        assert found.physical == mapping.physical + 0x123 == machine.physical(mapping.start + 0x123)
        assert found.page_size == mapping.end - mapping.start


# arch/arm64/mm/mmu.c: map_kernel(), mark_rodata_ro(), and what fixup of the linear map does.
RIGHTS = {
    "schedule": "r-x",
    "_stext": "r-x",
    "linux_banner": "r--",
    "sys_call_table": "r--",
    "swapper_pg_dir": "r--",
    "init_task": "rw-",
    "jiffies": "rw-",
    "__bss_start": "rw-",
}


def test_rights_of_the_parts_of_the_image(machine: Machine) -> None:
    for name, rights in RIGHTS.items():
        address = machine.symbol(name)
        assert machine.where(address).state.permissions == rights, name
        linear = machine.linear(machine.image_physical(address))
        # Nothing is executed, nor text or read-only data written, by way of the linear map.
        assert machine.where(linear).state.permissions == ("rw-" if rights == "rw-" else "r--"), name


def test_freed_init_is_not_mapped_and_its_memory_is_somebody_elses(machine: Machine) -> None:
    log = get_dmesg(machine.prog).decode()
    said = re.search(r"Freeing unused kernel memory: (\d+)K", log)
    assert said is not None
    start, end = machine.symbol("__init_begin"), machine.symbol("__init_end")
    assert end - start == int(said.group(1)) * 1024
    for address in range(start, end, PAGE * 7):
        found = machine.where(address)
        # The vmap area that the image's init part was in is still listed: it is not who has the memory now.
        assert " freed" in str(summarize(found))
        assert "now vmap" not in str(summarize(found))
        assert (found.state.freed, found.state.mapped) == (True, False), hex(address)
        with pytest.raises(drgn.FaultError):
            machine.physical(address)
        page = only(found, "page") if found.first("page") else None
        assert page is None or page.details["state"] != "reserved"
        alias = only(machine.where(machine.linear(machine.image_physical(address))), "page")
        assert alias.details["state"] != "reserved"
    for name in ("schedule", "init_task", "linux_banner"):
        assert machine.where(machine.symbol(name)).state.freed is False


def test_aliases_both_ways(machine: Machine) -> None:
    for name in ("_text", "schedule", "linux_banner", "swapper_pg_dir", "init_task", "init_uts_ns", "__bss_start"):
        address = machine.symbol(name) + 8
        linear = machine.linear(machine.image_physical(address))
        alias = only(machine.where(address), "alias")
        assert (alias.details["of"], alias.details["why"]) == (hex(linear), "direct map")
        back = only(machine.where(linear), "alias")
        assert back.details["of"] == hex(address)
        assert back.details["why"] == "direct map of the image"
        assert machine.physical(address) == machine.physical(linear)
        assert machine.prog.read(address, 8) == machine.prog.read(linear, 8)


def test_a_struct_page_names_its_page(machine: Machine) -> None:
    start, end = machine.iomem["System RAM"]
    for frame in range(start // PAGE, end // PAGE, 977):
        page = pfn_to_page(machine.prog, frame).value_()
        of_struct = only(machine.where(page), "page")
        assert (of_struct.details["pfn"], of_struct.start) == (frame, page)
        of_memory = only(machine.where(machine.linear(frame * PAGE)), "page")
        assert of_memory.details["struct_page"] == hex(page)
        assert of_memory.details["physical"] == hex(frame * PAGE)


# -- memory that was allocated -----------------------------------------------------------------------------------------


def test_every_vmalloc_area(machine: Machine) -> None:
    count = 0
    for line in machine.dumps.truth.text("vmallocinfo").splitlines():
        bounds, _size, *rest = line.split()
        start, end = (int(text, 16) for text in bounds.split("-"))
        caller = rest[0].partition("+")[0] if rest and "+0x" in rest[0] else None
        for address in (start, (start + end) // 2, end - 1):
            layer = only(machine.where(address), "vmap")
            if layer.name == "lazily freed area" or (layer.start, layer.end) != (start, end):
                # It was so already, or a program ended between the listing and the dump.
                now = find_vmap_area(machine.prog, address)
                assert bool(now) is (layer.name != "lazily freed area")
                assert not now or (now.va_start.value_(), now.va_end.value_()) == (layer.start, layer.end)
                continue
            assert (layer.details["caller"] or "").partition("+")[0] == (caller or "")
            count += 1
    assert count > 200


@pytest.mark.parametrize("name", ["task_struct", "dentry", "kmalloc-64"])
def test_slab_objects(machine: Machine, name: str) -> None:
    cache = find_slab_cache(machine.prog, name)
    objects = [item.value_() for item in slab_cache_for_each_allocated_object(cache, "void")]
    size = cache.object_size.value_()
    assert objects
    for address in objects[::23]:
        layer = only(machine.where(address + size // 2), "slab")
        assert (layer.details["cache"], layer.details["state"]) == (cache.name.string_().decode(), "allocated")
        assert int(layer.details["object"], 16) == address


# -- user programs -----------------------------------------------------------------------------------------------------


def test_the_mappings_of_init(machine: Machine) -> None:
    target = machine.session.target
    target.selection.select_thread(1)  # type: ignore[union-attr]
    present = 0
    lines = machine.dumps.truth.text("init-maps").splitlines()
    assert {"[vdso]", "[vvar]"} <= {line.split()[-1] for line in lines}
    for line in lines:
        bounds, rights, _offset, _device, _inode, *path = line.split()
        start, end = (int(text, 16) for text in bounds.split("-"))
        for address in range(start, end, PAGE):
            where = machine.where(address)
            layer = only(where, "vma")
            assert (layer.start, layer.end, layer.details["flags"]) == (start, end, rights)
            assert layer.details["path"] == (path[0] if path else None)
            if where.state.mapped:
                present += 1
                # A page that is still shared with others is read-only until it is written to.
                assert where.state.permissions in (rights[:3], rights[:3].replace("w", "-"))
    assert present > 10
    target.selection.select_cpu(0)  # type: ignore[union-attr]


def test_the_program_that_a_cpu_runs(machine: Machine) -> None:
    """CPU 1 was in user mode: its program counter is in busybox's code."""
    target = machine.session.target
    target.selection.select_cpu(1)  # type: ignore[union-attr]
    (place,) = machine.session.places("$pc")
    layer = only(machine.where(place.address), "vma")
    assert (layer.details["path"], layer.details["flags"]) == ("/bin/busybox", "r-xp")
    target.selection.select_cpu(0)  # type: ignore[union-attr]
