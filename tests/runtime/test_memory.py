"""What memory says of an address, on dumps of real kernels: freed init memory, rights, presence, the image's aliases.

Truth: what the guest's own /proc said (vmallocinfo, ps), what the kernel wrote into its log, the page allocator's own
sums, QEMU's walk of the page tables (in the program headers of a paging dump), and drgn's helpers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import drgn
import pytest
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import (
    PageReserved,
    PageSlab,
    compound_head,
    decode_page_flags,
    follow_phys,
    pfn_to_page,
    virt_to_page,
)
from drgn.helpers.linux.mmzone import for_each_online_pgdat
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.slab import (
    find_slab_cache,
    for_each_slab_cache,
    slab_cache_for_each_allocated_object,
    slab_cache_pages_per_slab,
    slab_cache_usage,
)
from elftools.elf.elffile import ELFFile

from kplug import model
from kplug.model import Annotation, Layer
from kplug.render.text import TextRenderer
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.request import Request
from kplug.runtime.session import session_of
from kplug.summary import summarize

if TYPE_CHECKING:
    from vmimages import DumpSet

    from kplug.runtime.kernel.kernel import Kernel
    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

PAGE = 4096


@dataclass
class Dumped:
    """A dump, open: drgn's view of it, kplug's, and what the guest said."""

    dumps: DumpSet
    prog: drgn.Program
    session: Session

    def where(self, address: int) -> Annotation:
        return self.session.resolver.where(address)

    @property
    def kernel(self) -> Kernel:
        kernel: Kernel = self.session.target.kernel  # type: ignore[union-attr]
        return kernel

    def symbol(self, name: str) -> int:
        return self.dumps.truth.address(name)

    def physical(self, address: int) -> int:
        """drgn's walk of the kernel's page tables. FaultError where nothing is mapped."""
        value: int = follow_phys(self.prog["init_mm"].address_of_(), address).value_()
        return value

    @cached_property
    def direct_map(self) -> int:
        base: int = self.prog["page_offset_base"].value_()
        return base

    @cached_property
    def frames(self) -> range:
        """The frames of RAM above the first MiB, all of them with a struct page."""
        return range(0x100, self.prog["max_pfn"].value_())

    @cached_property
    def log(self) -> str:
        text: str = get_dmesg(self.prog).decode(errors="replace")
        return text


def opened(name: str, format: str = "elf", *, with_vmlinux: bool = True, **options: Any) -> Dumped:
    from vmimages import dumps

    found = dumps(name, (format,), quiet=True, **options)
    symbols = (str(found.files.vmlinux),) if with_vmlinux else ()
    kernel = open_kernel(Request(str(found.paths[format]), symbols=symbols))
    return Dumped(found, kernel.prog, session_of(kernel))


@pytest.fixture(scope="module", params=["amd64-6.1", "amd64-6.12", "amd64-6.12 alone"])
def dumped(request: pytest.FixtureRequest) -> Dumped:
    """With the vmlinux, and alone: by the symbols and types that the kernel has in its memory."""
    name, _, alone = request.param.partition(" ")
    return opened(name, with_vmlinux=not alone)


@pytest.fixture(scope="module")
def isolated() -> Dumped:
    """With page-table isolation, under which the kernel unmaps what it freed of its image."""
    return opened("amd64-6.12", pti=True)


def only(annotation: Annotation, kind: str) -> Layer:
    (layer,) = [layer for layer in annotation.layers if layer.kind == kind]
    return layer


def kinds(annotation: Annotation) -> list[str]:
    return [layer.kind for layer in annotation.layers]


# -- vmalloc -----------------------------------------------------------------------------------------------------------


@dataclass
class Area:
    """A line of /proc/vmallocinfo."""

    start: int
    end: int
    caller: str | None
    pages: int | None
    words: set[str]


def areas(dumped: Dumped) -> Iterator[Area]:
    for line in dumped.dumps.truth.text("vmallocinfo").splitlines():
        bounds, _size, *rest = line.split()
        start, end = (int(text, 16) for text in bounds.split("-"))
        caller = rest[0].partition("/")[0] if rest and "+0x" in rest[0] else None
        pages = next((int(word[6:]) for word in rest if word.startswith("pages=")), None)
        yield Area(start, end, caller, pages, set(rest))


FLAGS = {"VM_IOREMAP": "ioremap", "VM_ALLOC": "vmalloc", "VM_MAP": "vmap", "VM_USERMAP": "user"}


def test_every_vmalloc_area(dumped: Dumped) -> None:
    """Bounds, caller, pages and flags of each line of vmallocinfo, asked at its first, a middle and its last byte."""
    ended = 0
    for area in areas(dumped):
        for address in (area.start, (area.start + area.end) // 2, area.end - 1):
            layer = only(dumped.where(address), "vmap")
            assert (layer.start, layer.end) == (area.start, area.end)
            if layer.name == "lazily freed area":
                # It was so already, or a program ended between the listing and the dump.
                ended += "unpurged" not in area.words
                continue
            details = layer.details
            assert (details["caller"] or "").partition("/")[0] == area.caller
            assert details["pages"] == area.pages
            assert {FLAGS[word] for word in details["flags"].split("|") if word in FLAGS} == area.words & {
                *FLAGS.values()
            }
    assert ended <= 9


def test_vmalloc_guard_pages(dumped: Dumped) -> None:
    """A page is a guard if it is the last one of an area and QEMU, and drgn, find nothing mapped there."""
    for area in areas(dumped):
        where = dumped.where(area.end - 1)
        layer = only(where, "vmap")
        if layer.name == "lazily freed area":
            continue
        percpu = area.caller is not None and area.caller.startswith("pcpu_get_vm_areas")
        assert layer.details["guard"] is not percpu
        if area.start >> 32 != 0xFFFFFFFF:  # in the modules' space the gap between two says more
            # Behind the area, or below a stack; it can be both.
            assert summarize(where).head.startswith("guard page ") is not percpu
        assert only(dumped.where(area.start), "vmap").details["guard"] is False
        if not percpu:
            assert where.state.mapped is False
            with pytest.raises(drgn.FaultError):
                dumped.physical(area.end - 1)


def test_holes_between_vmalloc_areas(dumped: Dumped) -> None:
    listed = sorted(areas(dumped), key=lambda area: area.start)
    holes = 0
    for before, after in zip(listed, listed[1:]):
        if before.end == after.start or after.start - before.end > 1 << 40 or before.end >> 32 == 0xFFFFFFFF:
            continue  # neighbours, or in two different spaces, or between modules
        for address in (before.end, after.start - 1):
            gap = next((layer for layer in dumped.where(address).layers if layer.kind == model.GAP), None)
            assert gap is not None
            if (gap.start, gap.end) == (before.end, after.start):
                holes += 1
            assert hex(before.start) in gap.details["after"] or gap.start != before.end
            assert hex(after.start) in gap.details["before"] or gap.end != after.start
    assert holes > 20


# -- pages -------------------------------------------------------------------------------------------------------------


def pages(dumped: Dumped) -> Iterator[tuple[int, Layer]]:
    from kplug.runtime.locators.pages import PageLocator

    locator = PageLocator(dumped.kernel)
    for frame in dumped.frames:
        (layer,) = locator.locate(dumped.direct_map + frame * PAGE)
        yield frame, layer


@pytest.fixture(scope="module")
def by_state(dumped: Dumped) -> dict[str | None, list[tuple[int, Layer]]]:
    found: dict[str | None, list[tuple[int, Layer]]] = {}
    for frame, layer in pages(dumped):
        found.setdefault(layer.details["state"], []).append((frame, layer))
    return found


def test_every_page_against_drgn(dumped: Dumped, by_state: dict[str | None, list[tuple[int, Layer]]]) -> None:
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
    dumped: Dumped, by_state: dict[str | None, list[tuple[int, Layer]]]
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


def _state(dumped: Dumped, frame: int) -> str | None:
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


def test_a_struct_page_names_its_page(dumped: Dumped) -> None:
    for frame in range(0x100, dumped.frames.stop, 977):
        page = pfn_to_page(dumped.prog, frame).value_()
        for offset in (0, 8, 63):
            layer = only(dumped.where(page + offset), "page")
            assert layer.details["pfn"] == frame
            assert (layer.start, layer.end) == (page, page + 64)
            assert layer.name == f"struct page of pfn {frame:#x}"
            assert layer.details["describes"]


def test_file_pages_have_their_file(dumped: Dumped, by_state: dict[str | None, list[tuple[int, Layer]]]) -> None:
    paths = {layer.details.get("path") for _, layer in by_state["file"]}
    maps = dumped.dumps.truth.text("init-maps")
    mapped = {line.split()[5] for line in maps.splitlines() if len(line.split()) > 5 and "/" in line}
    assert mapped
    assert mapped <= paths


# -- freed memory of the image -----------------------------------------------------------------------------------------


def freed_pages(dumped: Dumped, start: int, end: int) -> int:
    return sum(dumped.where(address).state.freed is True for address in range(-(-start // PAGE) * PAGE, end, PAGE))


def test_freed_memory_is_what_the_kernel_said_it_freed(dumped: Dumped) -> None:
    """ "Freeing unused kernel image (initmem) memory: 1234K" and others of the kind, page for page."""
    said: dict[str, int] = {}
    for line in re.findall(r"Freeing (?:unused|SMP) .*memory: \d+K", dumped.log):
        what, _, size = line.rpartition(": ")
        said[what] = int(size[:-1]) * 1024 // PAGE
    expected = {
        "Freeing unused kernel image (initmem) memory": ("__init_begin", "__init_end"),
        "Freeing unused kernel image (text/rodata gap) memory": ("_etext", "__start_rodata"),
        "Freeing unused kernel image (rodata/data gap) memory": ("__end_rodata", "_sdata"),
        "Freeing unused decrypted memory": ("__start_bss_decrypted_unused", "__end_bss_decrypted"),
    }
    for what, (start, end) in expected.items():
        assert freed_pages(dumped, dumped.symbol(start), dumped.symbol(end)) == said.get(what, 0), what
    assert said["Freeing unused kernel image (initmem) memory"] > 500
    assert said["Freeing unused decrypted memory"] > 100


def test_the_rest_of_the_image_is_not_freed(dumped: Dumped) -> None:
    decrypted = range(dumped.symbol("__start_bss_decrypted_unused"), dumped.symbol("__end_bss_decrypted"))
    ranges = (
        ("_stext", "_etext"),
        ("__start_rodata", "__end_rodata"),
        ("_sdata", "_edata"),
        ("__bss_start", "__bss_stop"),
    )
    for start, end in ranges:
        for address in range(dumped.symbol(start), dumped.symbol(end), 16 * PAGE):
            if address not in decrypted:
                assert dumped.where(address).state.freed is False, hex(address)
                assert PageReserved(pfn_to_page(dumped.prog, dumped.physical(address) // PAGE))


def test_isolated_kernels_unmap_what_they_freed(isolated: Dumped) -> None:
    for start, end in (("__init_begin", "__init_end"), ("__end_rodata", "_sdata")):
        first, last = -(-isolated.symbol(start) // PAGE) * PAGE, isolated.symbol(end)
        assert freed_pages(isolated, first, last) == (last - first) // PAGE
        for address in range(first, last, PAGE):
            assert isolated.where(address).state.mapped is False
            with pytest.raises(drgn.FaultError):
                isolated.physical(address)
            assert isolated.where(address).last("page") is not None


def test_freed_memory_has_its_new_owner(dumped: Dumped) -> None:
    """An init address is answered as linked and as freed; who has the page is what its direct-map address has."""
    image_offset = dumped.symbol("_text") - dumped.physical(dumped.symbol("_text"))
    owners: Counter[tuple[str, str | None]] = Counter()
    for address in range(dumped.symbol("__init_begin"), dumped.symbol("__init_end"), PAGE):
        linked, direct = dumped.where(address + 64), dumped.where(address + 64 - image_offset + dumped.direct_map)
        assert linked.region_class == "init"
        assert linked.last(model.REGION) is not None
        for kind in ("page", "slab", "task"):
            one, other = linked.last(kind), direct.last(kind)
            assert (one is None) is (other is None)
            if one is not None and other is not None:
                assert (one.name, one.details) == (other.name, other.details)
                assert one.offset(linked.address) == other.offset(direct.address)
                owners[kind, one.details.get("state")] += 1
        assert "freed; now " in str(summarize(linked))
        alias = only(direct, "alias")
        assert (alias.start, int(alias.details["of"], 16)) == (None, linked.address)
    assert owners["page", "free"] + owners["page", "slab"] > 50


# -- aliases -----------------------------------------------------------------------------------------------------------


def test_aliases_of_the_image_both_ways(dumped: Dumped) -> None:
    """Image and direct map: drgn's walk leads both to one physical address, and each answer names the other."""
    names = ("schedule", "linux_banner", "init_task", "jiffies", "__per_cpu_offset", "_stext", "sys_call_table")
    for name in names:
        address = dumped.symbol(name) + 3
        alias = only(dumped.where(address), "alias")
        assert alias.details["why"] == "direct map"
        direct = int(alias.details["of"], 16)
        assert direct - dumped.direct_map == dumped.physical(direct) == dumped.physical(address)
        back = only(dumped.where(direct), "alias")
        assert back.details == {**back.details, "of": hex(address), "why": "direct map of the image"}
        symbol = dumped.where(address).last(model.SYMBOL)
        assert symbol is not None
        assert (back.name, back.offset(direct)) == (symbol.name, symbol.offset(address))
        regions = [layer.name for layer in dumped.where(address).layers if layer.kind == model.REGION]
        assert back.details["region"] == " > ".join(regions)


def test_vmalloc_pages_and_their_direct_map(dumped: Dumped) -> None:
    checked = 0
    for area in areas(dumped):
        if not area.pages or "vmalloc" not in area.words:
            continue
        where = dumped.where(area.start + 5)
        if only(where, "vmap").name == "lazily freed area":
            continue
        direct = int(only(where, "alias").details["of"], 16)
        assert direct - dumped.direct_map == dumped.physical(area.start + 5)
        back = only(dumped.where(direct), "alias")
        assert int(back.details["of"], 16) == area.start + 5
        checked += 1
    assert checked > 50


# -- slab --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["task_struct", "dentry", "kmalloc-64", "vm_area_struct"])
def test_slab_objects(dumped: Dumped, name: str) -> None:
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


def test_behind_the_last_object_of_a_slab(dumped: Dumped) -> None:
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


# -- stacks and tasks --------------------------------------------------------------------------------------------------


def test_every_task(dumped: Dumped) -> None:
    listed = {}
    for line in dumped.dumps.truth.text("tasks").splitlines()[1:]:
        pid, _, comm = line.split(None, 2)
        listed[int(pid)] = comm
    named = 0
    for task in for_each_task(dumped.prog):
        pid, comm = task.pid.value_(), task.comm.string_().decode()
        layer = only(dumped.where(task.value_() + 8), "task")
        assert (layer.details["pid"], layer.details["comm"]) == (pid, comm)
        assert layer.name == f"{pid} ({comm})"
        assert layer.start == task.value_()
        slab = only(dumped.where(task.value_() + 8), "slab")
        assert (slab.start, slab.name, slab.details["state"]) == (task.value_(), "task_struct", "allocated")
        if pid in listed:
            named += comm.startswith(listed[pid][:15]) or listed[pid].startswith(comm)
        stack = task.stack.value_()
        for offset in (0, 8, 0x2000, 0x3FFF):
            where = dumped.where(stack + offset)
            layer = only(where, "stack")
            assert (layer.start, layer.end) == (stack, stack + 0x4000)
            assert layer.details["pid"] == pid
            assert layer.details["owner"] == "task"
            assert layer.details["guard"] is False
            assert layer.details["depth"] == 0x4000 - offset
            assert where.state.permissions == "rw-"
        assert "stack" not in kinds(dumped.where(stack + 0x4000))
    assert named >= len(listed) - 2  # ps itself has ended


def test_below_a_stack(dumped: Dumped) -> None:
    """The page below a stack is its guard page, unless another area has memory there."""
    guarded = 0
    for task in for_each_task(dumped.prog):
        address = task.stack.value_() - 0x123
        where = dumped.where(address)
        if where.state.mapped:
            assert "stack" not in kinds(where)
            continue
        layer = only(where, "stack")
        guarded += 1
        assert layer.details["guard"] is True
        words = (
            f"guard page of the stack of {task.pid.value_()} ({task.comm.string_().decode()}), 0x123 bytes past its end"
        )
        assert layer.name == summarize(where).head == words
        below = dumped.where(task.stack.value_() - PAGE - 1)  # may be the next stack
        assert all(layer.details["pid"] != task.pid.value_() for layer in below.layers if layer.kind == "stack")
    assert guarded > 20


def test_per_cpu_stacks(dumped: Dumped) -> None:
    prog = dumped.prog
    for cpu in for_each_possible_cpu(prog):
        try:
            top = per_cpu_ptr(prog["hardirq_stack_ptr"].address_of_(), cpu)[0].value_()
        except KeyError:
            top = per_cpu_ptr(prog["pcpu_hot"].address_of_(), cpu).hardirq_stack_ptr.value_()
        layer = only(dumped.where(top), "stack")
        assert (layer.details["owner"], layer.details["cpu"], layer.details["depth"]) == ("irq", cpu, 8)
        assert layer.end == top + 8
        stacks = per_cpu_ptr(prog["cea_exception_stacks"].address_of_(), cpu)[0]
        for member, owner in (("DF_stack", "DF"), ("NMI_stack", "NMI"), ("DB_stack", "DB"), ("MCE_stack", "MCE")):
            place = stacks.member_(member)
            start, size = place.address_, drgn.sizeof(place)
            assert start is not None
            layer = only(dumped.where(start + 16), "stack")
            assert (layer.details["owner"], layer.details["cpu"]) == (owner, cpu)
            assert (layer.start, layer.end) == (start, start + size)
            where = dumped.where(start - 1)
            assert only(where, "stack").details["guard"] is True
            assert where.state.mapped is False


def test_the_registers_stacks(dumped: Dumped) -> None:
    """Each CPU's stack pointer at the moment of the dump, where that was in the kernel."""
    for block in dumped.dumps.truth.text("registers").split("CPU#")[1:]:
        match = re.search(r"RSP=([0-9a-f]{16})", block)
        assert match is not None
        pointer = int(match[1], 16)
        if pointer >> 63:
            layer = only(dumped.where(pointer), "stack")
            assert layer.details["cpu"] == int(block.split()[0])


# -- page tables -------------------------------------------------------------------------------------------------------


def test_page_table_pages(dumped: Dumped) -> None:
    """Each program's top table, and the tables on the way to an address, by drgn's objects."""
    prog = dumped.prog
    for task in for_each_task(prog):
        if not task.mm:
            continue
        layer = only(dumped.where(task.mm.pgd.value_() + 16), "pagetable")
        assert (layer.details["level"], layer.details["mm"]) == ("pgd", hex(task.mm.value_()))
        assert layer.details["pid"] == min(other.pid.value_() for other in for_each_task(prog) if other.mm == task.mm)
    layer = only(dumped.where(dumped.symbol("init_top_pgt") + 8), "pagetable")
    assert (layer.details["level"], layer.details["mm"]) == ("pgd", "init_mm")
    init = next(task for task in for_each_task(prog) if task.pid.value_() == 1)
    entry = prog.read_u64(init.mm.pgd.value_())  # of the lowest 512 GiB, where a static program is
    below = only(dumped.where(dumped.direct_map + (entry & 0x000FFFFFFFFFF000)), "pagetable")
    assert (below.details["level"], below.details["pid"]) == ("pud", 1)
    assert int(below.details["maps_from"], 16) == 0


def test_mapped_and_physical_as_qemu_walked(dumped: Dumped) -> None:
    """A paging dump's program headers are QEMU's own walk: virtual and physical address of each run of pages."""
    from vmimages import dumps

    paging = dumps(dumped.dumps.files.name, ("elf-paging",), quiet=True).paths["elf-paging"]
    checked = 0
    with paging.open("rb") as file:
        headers = [segment.header for segment in ELFFile(file).iter_segments("PT_LOAD")]
    for virtual, physical, size in ((header.p_vaddr, header.p_paddr, header.p_memsz) for header in headers):
        if virtual < 0xFFFF800000000000 or not size:  # QEMU extends users' addresses with ones, too
            continue
        for offset in (0, size // 2, size - 1):
            where = dumped.where(virtual + offset)
            assert where.state.mapped is True, hex(virtual + offset)
            page = where.last("page")
            if page is not None and not page.name.startswith("struct page"):
                assert page.details["pfn"] == (physical + offset) // PAGE
                checked += 1
    assert checked > 100


# -- user programs -----------------------------------------------------------------------------------------------------


def user_mappings(dumped: Dumped) -> Iterator[tuple[int, int, str, str | None, int]]:
    """(start, end, rights, path, offset in the file) of each line of init's /proc/1/maps."""
    for line in dumped.dumps.truth.text("init-maps").splitlines():
        bounds, rights, offset, _device, _inode, *path = line.split()
        start, end = (int(text, 16) for text in bounds.split("-"))
        yield start, end, rights, path[0] if path else None, int(offset, 16)


def check_user_mappings(dumped: Dumped) -> None:
    dumped.session.target.selection.select_thread(1)  # type: ignore[union-attr]
    present = 0
    for start, end, rights, path, offset in user_mappings(dumped):
        for address in (start, end - 1):
            where = dumped.where(address)
            layer = only(where, "vma")
            assert (layer.start, layer.end) == (start, end)
            details = layer.details
            assert (details["pid"], details["comm"], details["path"]) == (1, "init", path)
            assert details["flags"] == rights
            assert details["file_offset"] == (hex(offset) if path and path[0] == "/" else None)
        for address in range(start, end, PAGE):
            where = dumped.where(address)
            if where.state.mapped and where.state.permissions is not None:
                present += 1
                # A page that is still shared with others is read-only until it is written to.
                assert where.state.permissions in (rights[:3], rights[:3].replace("w", "-"))
    assert present > 10
    starts = [start for start, *_ in user_mappings(dumped)]
    assert "vma" not in kinds(dumped.where(min(starts) - 1))


def test_user_mappings(dumped: Dumped) -> None:
    """Those of the selected task: init's, as it read them itself."""
    check_user_mappings(dumped)


def test_user_mappings_under_isolation(isolated: Dumped) -> None:
    """The kernel's copy of a program's table forbids to execute; the rights are those that the program has."""
    check_user_mappings(isolated)


def test_user_addresses_of_a_kernel_thread(dumped: Dumped) -> None:
    dumped.session.target.selection.select_thread(2)  # type: ignore[union-attr]
    where = dumped.where(0x400000)
    assert where.state.mapped is None
    assert {"vma", "page"}.isdisjoint(kinds(where))


def test_the_text_says_where_the_elf_file_has_other_rights(dumped: Dumped) -> None:
    if not dumped.kernel.image.image.segments:  # type: ignore[union-attr]
        pytest.skip("there is no ELF file")
    text = TextRenderer()
    assert "mapped r-- by a page of 2 MiB; the ELF file says R E; not freed" in text.annotation(
        dumped.where(dumped.symbol("linux_banner"))
    )
    assert "mapped r-x by a page of 2 MiB; not freed" in text.annotation(dumped.where(dumped.symbol("schedule")))
