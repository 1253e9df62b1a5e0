"""The address space of real kernels.

Truth: the page tables, walked here from swapper_pg_dir; the guest's own /proc/iomem, vmallocinfo, kallsyms and modules;
drgn's helpers; and the sizes in Documentation/arch/x86/x86_64/mm.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, cached_property
from typing import NamedTuple

import pytest
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import in_direct_map, pfn_to_page
from drgn.helpers.linux.percpu import per_cpu, per_cpu_ptr
from support.open_dumps import Dumped

from kplug import model
from kplug.arch.types.memory_map import KERNEL, AddressSpace, Area
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.model import Layer
from kplug.runtime.kernel.facts import space_of
from kplug.runtime.kernel.kernel import Kernel

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

TIB, PIB = 1 << 40, 1 << 50
START_KERNEL_MAP = 0xFFFFFFFF80000000
PRESENT, LARGE, FRAME = 1, 1 << 7, 0x000FFFFFFFFFF000

MACHINES = {
    "6.1": ("amd64-6.1", {}),
    "6.12": ("amd64-6.12", {}),
    "6.12, isolated": ("amd64-6.12", {"pti": True}),
    "6.1, 5 levels": ("amd64-6.1", {"la57": True}),
    "6.12, 5 levels": ("amd64-6.12", {"la57": True}),
    "6.1, nokaslr": ("amd64-6.1", {"kaslr": False}),
    "6.12, 5 levels, nokaslr": ("amd64-6.12", {"la57": True, "kaslr": False}),
}


class Mapping(NamedTuple):
    """A page of any size that the kernel's page tables map."""

    start: int
    end: int
    physical: int


class Machine(Dumped):
    """A dump, open, and the map of its kernel's address space."""

    @property
    def levels(self) -> int:
        return 5 if self.options.get("la57") else 4

    @property
    def kaslr(self) -> bool:
        return bool(self.options.get("kaslr", True))

    @property
    def space(self) -> AddressSpace:
        assert self.session.space is not None
        return self.session.space

    @cached_property
    def areas(self) -> dict[str, Area]:
        return {area.name: area for area in self.space.areas}

    def layers(self, address: int) -> list[Layer]:
        return [layer for layer in self.session.resolver.where(address).layers if layer.kind == model.AREA]

    @cached_property
    def vmcoreinfo(self) -> str:
        return self.prog["VMCOREINFO"].string_().decode()

    @cached_property
    def phys_base(self) -> int:
        match = re.search(r"^NUMBER\(phys_base\)=(-?\d+)$", self.vmcoreinfo, re.MULTILINE)
        assert match is not None
        return int(match.group(1))

    def image_physical(self, address: int) -> int:
        """The physical address of an address of the image, as __pa_symbol() has it."""
        return address - START_KERNEL_MAP + self.phys_base

    @cached_property
    def mappings(self) -> list[Mapping]:
        """Every page in the kernel's half of swapper_pg_dir."""
        root = self.image_physical(self.dumps.truth.address("init_top_pgt"))
        return list(self._walk(root, 12 + 9 * (self.levels - 1), 0))

    def _walk(self, table: int, shift: int, start: int) -> Iterator[Mapping]:
        entries = memoryview(self.prog.read(table, 4096, True)).cast("Q")
        for index, entry in enumerate(entries):
            top = shift == 12 + 9 * (self.levels - 1)
            if not entry & PRESENT or (top and index < 256):
                continue
            at = start + (index << shift)
            if top:
                at |= (1 << 64) - (1 << (shift + 9))
            if shift == 12 or entry & LARGE:
                yield Mapping(at, at + (1 << shift), entry & FRAME & ~((1 << shift) - 1))
            else:
                yield from self._walk(entry & FRAME, shift - 9, at)

    @cached_property
    def iomem(self) -> list[tuple[int, int, str]]:
        """(start, end, name) of each line of /proc/iomem, `end` exclusive."""
        found = []
        for line in self.dumps.truth.text("iomem").splitlines():
            span, _, name = line.strip().partition(" : ")
            start, _, end = span.partition("-")
            found.append((int(start, 16), int(end, 16) + 1, name))
        return found

    def physical(self, name: str) -> tuple[int, int]:
        return next((start, end) for start, end, called in self.iomem if called == name)


@cache
def machine_of(name: str) -> Machine:
    kernel, options = MACHINES[name]
    return Machine.open(kernel, **options)


@pytest.fixture(params=list(MACHINES))
def machine(request: pytest.FixtureRequest) -> Machine:
    return machine_of(request.param)


# The page tables know what is mapped.


def test_what_the_page_tables_map_is_in_an_area_and_in_no_hole(machine: Machine) -> None:
    assert len(machine.mappings) > 1000
    for mapping in machine.mappings:
        first, last = machine.space.area_at(mapping.start), machine.space.area_at(mapping.end - 1)
        assert (first is last, first.kind, first.hole) == (True, KERNEL, False), (hex(mapping.start), first.name)


def test_the_direct_map_maps_ram_in_order_and_ends_where_ram_does(machine: Machine) -> None:
    area = machine.areas["direct map"]
    mapped = [mapping for mapping in machine.mappings if area.start <= mapping.start < area.end]
    assert all(mapping.physical == mapping.start - area.start for mapping in mapped)
    ram_end = max(end for _, end, name in machine.iomem if name == "System RAM")
    assert int(area.details["ram_end"], 16) == area.start + ram_end == max(mapping.end for mapping in mapped)


def test_fixmap_slots_map_what_their_names_say(machine: Machine) -> None:
    area = machine.areas["fixmap"]
    mapped = [mapping for mapping in machine.mappings if area.start <= mapping.start < area.end]
    devices = {machine.layers(mapping.start)[-1].name: mapping.physical for mapping in mapped}
    assert devices.pop("FIX_APIC_BASE") == 0xFEE00000  # where a PC has it; 6.12 leaves it out of /proc/iomem
    assert devices.pop("FIX_IO_APIC_BASE_0") == machine.physical("IOAPIC 0")[0]
    assert not [name for name in devices if not name.startswith("FIX_")]


def test_the_entry_areas_hold_what_is_mapped_there_each_for_its_own_cpu(machine: Machine) -> None:
    area = machine.areas["cpu_entry_area"]
    mapped = {mapping.start: mapping.physical for mapping in machine.mappings if area.start <= mapping.start < area.end}
    names = {address: [layer.name for layer in machine.layers(address)] for address in mapped}
    assert all(len(chain) > 1 for chain in names.values())
    idt = next(at for at, chain in names.items() if chain[-1] == "IDT")
    assert mapped[idt] == machine.image_physical(machine.dumps.truth.address("idt_table"))
    for cpu in for_each_possible_cpu(machine.prog):
        gdt = next(at for at, chain in names.items() if chain[1:] == [f"CPU {cpu}", f"gdt of CPU {cpu}"])
        page = per_cpu_ptr(machine.prog["gdt_page"].address_of_(), cpu).value_()
        assert mapped[gdt] == page - machine.areas["direct map"].start
        tss = machine.areas["cpu_entry_area"].part_at(gdt)
        assert tss is not None
        estacks = next(part for part in tss.parts if part.name.startswith("estacks"))
        assert estacks.start == per_cpu(machine.prog["cea_exception_stacks"], cpu).value_()


# The guest's own lists.


def test_every_range_of_vmallocinfo_is_in_vmalloc_or_modules(machine: Machine) -> None:
    spans = re.findall(r"^0x([0-9a-f]+)-0x([0-9a-f]+)", machine.dumps.truth.text("vmallocinfo"), re.MULTILINE)
    assert len(spans) > 50
    held = {
        (machine.space.area_at(int(start, 16)).name, machine.space.area_at(int(end, 16) - 1).name)
        for start, end in spans
    }
    assert held == {("vmalloc", "vmalloc"), ("modules", "modules")}


def test_every_symbol_of_kallsyms_is_in_the_image_or_among_the_modules(machine: Machine) -> None:
    image = machine.session.main
    assert image is not None
    root = image.image.regions.root
    assert root is not None
    start, end = (image.placement.runtime(bound) for bound in (root.start, root.end))
    assert (start, end) == (machine.dumps.truth.address("_text"), machine.dumps.truth.address("_end"))
    for symbol in machine.dumps.truth.symbols:
        name = machine.space.area_at(symbol.address).name
        if symbol.module == "bpf":
            assert name == "modules", symbol
        elif symbol.module:
            # A module's per-CPU variables and absolute symbols are no addresses of its memory.
            assert name == "modules" or symbol.kind in "dDbBaA", symbol
        elif symbol.address >= 1 << 63:
            assert name in ("kernel image mapping", "modules"), symbol
            # .init.scratch lies behind _end.
            scratch = symbol.name == "sme_workarea" or symbol.name.startswith("__init_scratch")
            assert name == "modules" or start <= symbol.address <= end or scratch, symbol


def test_every_module_is_in_the_modules_area(machine: Machine) -> None:
    assert machine.dumps.truth.modules
    for address, size in machine.dumps.truth.modules.values():
        assert machine.space.area_at(address).name == machine.space.area_at(address + size - 1).name == "modules"


def test_the_image_is_where_iomem_has_it(machine: Machine) -> None:
    (image,) = (part for part in listed(machine) if part["name"].startswith("vmlinux "))
    code, _ = machine.physical("Kernel code")
    assert image["physical"] == hex(code)
    assert image["start"] == machine.dumps.truth.address("_text")
    regions = {row["name"]: row for row in listed(machine) if row["depth"] == 2}
    delta = image["start"] - code
    for region, name in (("text", "Kernel code"), ("rodata", "Kernel rodata"), ("data", "Kernel data")):
        start, end = machine.physical(name)
        assert regions[region]["start"] == start + delta
        assert abs(regions[region]["end"] - (end + delta)) <= 4096  # iomem's bounds are of pages, some of them


def listed(machine: Machine) -> list[dict[str, object]]:
    import argparse

    from kplug.commands.map import MAP

    parser = argparse.ArgumentParser()
    MAP.add_arguments(parser)
    (table,) = MAP.run(machine.session, parser.parse_args([]))
    return [dict(row) for row in table.rows]  # type: ignore[union-attr]


# drgn's own constants, and the sizes that the documentation has.


def test_the_bases_are_drgns(machine: Machine) -> None:
    prog, areas = machine.prog, machine.areas
    direct_map = areas["direct map"]
    assert direct_map.start == prog["page_offset_base"].value_()
    assert in_direct_map(prog, direct_map.start)
    assert not in_direct_map(prog, direct_map.start - 1)
    assert areas["vmalloc"].start == prog["vmalloc_base"].value_()
    assert areas["vmemmap"].start == pfn_to_page(prog, 0).value_()
    assert areas["modules"].start == START_KERNEL_MAP + (1 << 30)  # CONFIG_RANDOMIZE_BASE
    assert areas["modules"].end == 0xFFFFFFFFFF000000
    permanent = dict(machine.space.facts.fixed_addresses)["__end_of_permanent_fixed_addresses"]
    assert areas["fixmap"].start == 0xFFFFFFFFFF7FF000 - 4096 * permanent
    assert not any(area.nominal for area in machine.space.areas)
    assert machine.space.facts.kaslr_disabled is not machine.kaslr
    assert machine.space.warnings == ()


def test_without_a_vmlinux_vmcoreinfo_and_the_page_tables_tell(machine: Machine) -> None:
    kernel = Kernel(machine.prog, None, vmcoreinfo=VmcoreInfo(machine.vmcoreinfo))
    assert space_of(kernel) is not None
    areas = {area.name: area for area in space_of(kernel).areas}
    assert areas["direct map"].start == machine.prog["page_offset_base"].value_()
    if "VMALLOC_START" in machine.vmcoreinfo:
        assert areas["vmalloc"].start == machine.prog["vmalloc_base"].value_()
        assert areas["vmemmap"].start == machine.prog["vmemmap_base"].value_()
    for mapping in machine.mappings:
        assert not space_of(kernel).area_at(mapping.start).hole


def test_the_sizes_are_those_of_the_documentation(machine: Machine) -> None:
    four = machine.levels == 4
    sizes = {name: area.end - area.start for name, area in machine.areas.items()}
    assert sizes["vmalloc"] == (32 * TIB if four else 12800 * TIB)
    # MAX_PHYSMEM_BITS: 46 and 52. mm/kaslr.c gives vmemmap what that needs; without it, it has what is compiled in.
    assert sizes["direct map"] == (64 * TIB if four else 4 * PIB)
    assert sizes["vmemmap"] == (TIB if four else 64 * TIB if machine.kaslr else 512 * TIB)
    assert sizes["user"] == (1 << 47 if four else 1 << 56) - 4096


def test_moved_bases_are_told_from_those_as_compiled(machine: Machine) -> None:
    rows = {row["name"]: row for row in listed(machine)}
    moved = {name: rows[name]["moved"] for name in ("direct map", "vmalloc", "vmemmap")}
    compiled = (
        (0xFFFF888000000000, 0xFFFFC90000000000, 0xFFFFEA0000000000)
        if machine.levels == 4
        else (0xFF11000000000000, 0xFFA0000000000000, 0xFFD4000000000000)
    )
    assert [rows[name]["start"] - by for name, by in moved.items()] == list(compiled)  # type: ignore[operator]
    assert all(moved.values()) if machine.kaslr else not any(moved.values())
    image = next(row for row in listed(machine) if str(row["name"]).startswith("vmlinux "))
    assert image["moved"] == machine.dumps.truth.kaslr_offset(machine.dumps.files)


# Every address.


def test_each_bound_and_its_neighbours_are_in_the_area_that_holds_them(machine: Machine) -> None:
    cursor = 0
    for area in machine.space.areas:
        assert area.start == cursor < area.end
        for address in {area.start, area.start + 1, area.end - 2, area.end - 1}:
            layer = machine.layers(address)[0]
            assert (layer.name, layer.start, layer.end) == (area.name, area.start, area.end)
        for part in area.parts:
            for address in (part.start, part.end - 1):
                names = [layer.name for layer in machine.layers(address)]
                assert names[0] == area.name
                assert part.name.startswith(names[1].partition("[")[0]) or "slot" in part.details
            assert area.start <= part.start < part.end <= area.end
        cursor = area.end
    assert cursor == 1 << 64


def test_every_slot_of_the_fixmap_has_its_index_and_page(machine: Machine) -> None:
    enumerators = machine.prog.type("enum fixed_addresses").enumerators
    assert enumerators
    for enumerator in enumerators:
        if enumerator.name.startswith("__"):
            continue
        start = 0xFFFFFFFFFF7FF000 - 4096 * enumerator.value  # __fix_to_virt()
        for address in (start, start + 4095):
            layer = machine.layers(address)[-1]
            assert (layer.start, layer.end, layer.details["slot"]) == (start, start + 4096, enumerator.value)
            stem = enumerator.name.removesuffix("_END").removesuffix("_BEGIN")
            assert layer.name.startswith(stem)
