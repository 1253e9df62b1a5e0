"""What memory says of an address, on dumps of real kernels: freed init memory, rights, presence, the image's aliases.

Truth: what the guest's own /proc said (vmallocinfo), what the kernel wrote into its log, QEMU's walk of the page tables
(in the program headers of a paging dump), and drgn's helpers.
"""

from __future__ import annotations

import re
from collections import Counter

import drgn
import pytest
from drgn.helpers.linux.mm import PageReserved, find_vmap_area, pfn_to_page
from drgn.helpers.linux.pid import for_each_task
from elftools.elf.elffile import ELFFile
from support.answers import only
from support.memory_dumps import PAGE, MemoryDump, areas

from kplug import model
from kplug.render.text import TextRenderer
from kplug.summary import summarize

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# -- vmalloc -----------------------------------------------------------------------------------------------------------

FLAGS = {"VM_IOREMAP": "ioremap", "VM_ALLOC": "vmalloc", "VM_MAP": "vmap", "VM_USERMAP": "user"}


def test_every_vmalloc_area(dumped: MemoryDump) -> None:
    """Bounds, caller, pages and flags of each line of vmallocinfo, asked at its first, a middle and its last byte."""
    for area in areas(dumped):
        for address in (area.start, (area.start + area.end) // 2, area.end - 1):
            layer = only(dumped.where(address), "vmap")
            assert (layer.start, layer.end) == (area.start, area.end)
            if layer.name == "lazily freed area":
                # It was so already, or a program ended between the listing and the dump.
                assert not find_vmap_area(dumped.prog, address)
                continue
            details = layer.details
            assert (details["caller"] or "").partition("/")[0] == area.caller
            assert details["pages"] == area.pages
            assert {FLAGS[word] for word in details["flags"].split("|") if word in FLAGS} == area.words & {
                *FLAGS.values()
            }


def test_vmalloc_guard_pages(dumped: MemoryDump) -> None:
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


def test_holes_between_vmalloc_areas(dumped: MemoryDump) -> None:
    listed = sorted(areas(dumped), key=lambda area: area.start)
    holes = 0
    for before, after in zip(listed, listed[1:]):
        if before.end == after.start or after.start - before.end > 1 << 40 or before.end >> 32 == 0xFFFFFFFF:
            continue  # neighbours, or in two different spaces, or between modules
        for address in (before.end, after.start - 1):
            where = dumped.where(address)
            gap = next((layer for layer in where.layers if layer.kind == model.GAP), None)
            if gap is None:  # a program has begun since the listing, and may have ended
                name = only(where, "vmap").name
                assert bool(find_vmap_area(dumped.prog, address)) is (name != "lazily freed area")
                continue
            if (gap.start, gap.end) == (before.end, after.start):
                holes += 1
            assert hex(before.start) in gap.details["after"] or gap.start != before.end
            assert hex(after.start) in gap.details["before"] or gap.end != after.start
    assert holes > 20


# -- freed memory of the image -----------------------------------------------------------------------------------------


def freed_pages(dumped: MemoryDump, start: int, end: int) -> int:
    return sum(dumped.where(address).state.freed is True for address in range(-(-start // PAGE) * PAGE, end, PAGE))


def test_freed_memory_is_what_the_kernel_said_it_freed(dumped: MemoryDump) -> None:
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


def test_the_rest_of_the_image_is_not_freed(dumped: MemoryDump) -> None:
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


def test_isolated_kernels_unmap_what_they_freed(isolated: MemoryDump) -> None:
    for start, end in (("__init_begin", "__init_end"), ("__end_rodata", "_sdata")):
        first, last = -(-isolated.symbol(start) // PAGE) * PAGE, isolated.symbol(end)
        assert freed_pages(isolated, first, last) == (last - first) // PAGE
        for address in range(first, last, PAGE):
            assert isolated.where(address).state.mapped is False
            with pytest.raises(drgn.FaultError):
                isolated.physical(address)
            assert isolated.where(address).last("page") is not None


def test_freed_memory_has_its_new_owner(dumped: MemoryDump) -> None:
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


def test_aliases_of_the_image_both_ways(dumped: MemoryDump) -> None:
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


def test_vmalloc_pages_and_their_direct_map(dumped: MemoryDump) -> None:
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


# -- page tables -------------------------------------------------------------------------------------------------------


def test_page_table_pages(dumped: MemoryDump) -> None:
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


def test_mapped_and_physical_as_qemu_walked(dumped: MemoryDump) -> None:
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


@pytest.mark.parametrize("dumped", ["amd64-6.1", "amd64-6.12"], indirect=True)
def test_the_text_says_where_the_elf_file_has_other_rights(dumped: MemoryDump) -> None:
    text = TextRenderer()
    assert "mapped r-- by a page of 2 MiB; the ELF file says R E; not freed" in text.annotation(
        dumped.where(dumped.symbol("linux_banner"))
    )
    assert "mapped r-x by a page of 2 MiB; not freed" in text.annotation(dumped.where(dumped.symbol("schedule")))
