"""The image, the modules and the map of arm64 kernels, and special values.

Truth: the guest's own /proc and /sys, drgn's helpers, and the figures that the kernel has in its variables.
"""

from __future__ import annotations

import re
from collections import Counter

import drgn
import pytest
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import pfn_to_page
from drgn.helpers.linux.percpu import per_cpu, per_cpu_ptr
from support.answers import names, only
from support.arm64_dumps import PAGE, Machine

from kplug import model
from kplug.arch.types.memory_map import KERNEL
from kplug.errors import InputError
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.request import Request

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# -- the image and the modules -----------------------------------------------------------------------------------------


def test_the_kaslr_offset_is_the_guests(machine: Machine) -> None:
    main = machine.session.main
    assert main is not None
    kaslr_offset = machine.dumps.truth.kaslr_offset(machine.dumps.files)
    assert kaslr_offset != 0
    for name in ("_text", "schedule", "init_task", "swapper_pg_dir", "_end"):
        link = machine.symbol(name) - kaslr_offset
        assert main.placement.runtime(link) == machine.symbol(name)


def test_a_compressed_dump_of_qemus_is_refused_with_what_to_do(machine: Machine) -> None:
    paths, files = machine.dumps.paths, machine.dumps.files
    with pytest.raises(InputError, match=r"does not say its machine.*dump as ELF"):
        open_kernel(Request(str(paths["kdump-zlib"]), symbols=(str(files.vmlinux),)))


def test_a_link_address_is_pointed_out_unless_something_is_there(machine: Machine) -> None:
    """The image is linked where vmalloc begins, and so do the first stacks, once it was moved."""
    kaslr_offset = machine.dumps.truth.kaslr_offset(machine.dumps.files)
    (found,) = machine.session.where(hex(machine.symbol("schedule") - kaslr_offset))
    assert found.state.mapped is False
    assert any(hex(machine.symbol("schedule")) in warning for warning in found.warnings)
    stack = per_cpu(machine.prog["irq_stack_ptr"], 0).value_()
    assert machine.symbol("_text") - kaslr_offset <= stack < machine.symbol("_end") - kaslr_offset
    (found,) = machine.session.where(hex(stack))
    assert found.warnings == ()


def test_symbols_of_kallsyms(machine: Machine) -> None:
    chosen = [
        symbol
        for symbol in machine.dumps.truth.symbols
        if symbol.module is None and symbol.address >> 63 and symbol.kind not in "aA"
    ]
    for symbol in chosen[::211]:
        found = machine.where(symbol.address)
        assert symbol.name in names(found), symbol
        assert found.warnings == ()


def test_every_section_of_every_module(machine: Machine) -> None:
    checked = Counter[str]()
    for module, sections in machine.dumps.truth.module_sections.items():
        for name, address in sections.items():
            # sysfs goes on listing what was freed after loading; a per-CPU section is where its first instance is.
            if name.startswith((".init", ".symtab", ".strtab", ".data..percpu")):
                continue
            found = machine.where(address)
            assert only(found, model.MODULE).name.partition(" ")[0] == module
            assert name in [layer.name for layer in found.layers if layer.kind == model.SECTION], (module, name)
            checked[name] += 1
    assert len(checked) > 10
    assert checked[".plt"] > 5  # arm64's own: branches that reach too far


def test_symbols_of_every_module(machine: Machine) -> None:
    bounds = machine.dumps.truth.modules
    chosen = [
        symbol
        for symbol in machine.dumps.truth.symbols
        if symbol.module in bounds and symbol.kind in "tTrRdDbB" and not symbol.name.startswith((".", "$"))
    ]
    assert len(chosen) > 500
    for symbol in chosen[::7]:
        found = machine.where(symbol.address)
        assert symbol.name in names(found), symbol
        assert only(found, model.MODULE).name.partition(" ")[0] == symbol.module


def test_the_guard_page_behind_each_part_of_a_module(machine: Machine) -> None:
    """KASLR puts the modules near the image, into vmalloc's area: each part has a guard page there."""
    modules = modules_of(machine.session.target.kernel)  # type: ignore[union-attr]
    parts = [(module, part) for module in modules for part in module.memory]
    assert len(parts) > 20
    for module, part in parts:
        gap = machine.where(part.end).last(model.GAP)
        assert gap is not None
        assert (gap.start, gap.details["after"]) == (part.end, f"{module.name} ({part.type})")


def test_static_per_cpu_variables_on_every_cpu(machine: Machine) -> None:
    start, end = machine.symbol("__per_cpu_start"), machine.symbol("__per_cpu_end")
    variables = [symbol for symbol in machine.dumps.truth.symbols if start <= symbol.address < end]
    assert len(variables) > 200
    checked = 0
    for symbol in variables[::5]:
        if symbol.name.startswith("$"):
            continue
        for cpu in for_each_possible_cpu(machine.prog):
            instance = per_cpu_ptr(drgn.Object(machine.prog, "void *", symbol.address), cpu).value_()
            found = machine.where(instance)
            layer = found.first(model.PERCPU)
            assert layer is not None
            assert (layer.details["cpu"], layer.details["kind"]) == (cpu, "static")
            assert symbol.name in names(found) or symbol.name == "__per_cpu_start"
            checked += 1
    assert checked > 80


# -- the map -----------------------------------------------------------------------------------------------------------


def test_what_the_page_tables_map_is_in_an_area_and_in_no_hole(machine: Machine) -> None:
    assert len(machine.mappings) > 1000
    for mapping in machine.mappings:
        first, last = machine.space.area_at(mapping.start), machine.space.area_at(mapping.end - 1)
        assert (first is last, first.kind, first.hole) == (True, KERNEL, False), (hex(mapping.start), first.name)
    assert machine.space.warnings == ()


def test_the_areas_are_those_of_the_kernels_own_figures(machine: Machine) -> None:
    told = machine.vmcoreinfo
    assert told["TCR_EL1_T1SZ"] == 64 - machine.bits
    assert machine.area("user") == (0, 1 << machine.bits)
    assert machine.area("direct map") == ((1 << 64) - (1 << machine.bits), 0xFFFF800000000000)
    assert machine.area("modules") == (told["MODULES_VADDR"], told["MODULES_END"])
    assert machine.area("vmalloc") == (told["VMALLOC_START"], told["VMALLOC_END"])
    page = pfn_to_page(machine.prog, machine.iomem["System RAM"][0] // PAGE).value_()
    assert machine.space.area_at(page).name == "vmemmap"
    assert machine.area("vmemmap")[1] == told["VMEMMAP_END"]


def test_ram_is_in_the_direct_map_in_order(machine: Machine) -> None:
    start, end = machine.area("direct map")
    mapped = [mapping for mapping in machine.mappings if start <= mapping.start < end]
    assert all(mapping.start == machine.linear(mapping.physical) for mapping in mapped)
    assert max(mapping.end for mapping in mapped) == machine.linear(machine.iomem["System RAM"][1])


def test_ranges_of_vmallocinfo_and_modules_are_in_their_areas(machine: Machine) -> None:
    spans = re.findall(r"^0x([0-9a-f]+)-0x([0-9a-f]+)", machine.dumps.truth.text("vmallocinfo"), re.MULTILINE)
    assert len(spans) > 50
    for start, end in spans:
        held = {machine.space.area_at(int(start, 16)).name, machine.space.area_at(int(end, 16) - 1).name}
        assert held <= {"vmalloc"} or held <= {"modules"} or held <= {"PCI I/O"}
    for address, size in machine.dumps.truth.modules.values():
        assert machine.space.area_at(address) is machine.space.area_at(address + size - 1)
        assert machine.space.area_at(address).name in ("vmalloc", "modules")


def test_fixmap_slots_map_what_their_names_say(machine: Machine) -> None:
    start, end = machine.area("fixmap")
    mapped = [mapping for mapping in machine.mappings if start <= mapping.start < end]
    trampolines = [mapping for mapping in mapped if mapping.permissions.endswith("x")]
    # Only an isolated kernel has the vectors by which user mode comes in mapped there too.
    assert bool(trampolines) is (machine.bits == 48)
    for mapping in trampolines:
        assert machine.where(mapping.start).layers[1].name.startswith("FIX_ENTRY_TRAMP")
        assert mapping.physical in range(
            machine.image_physical(machine.symbol("__entry_tramp_text_start")),
            machine.image_physical(machine.symbol("__entry_tramp_text_end")),
        )


def test_the_image_is_where_iomem_has_it(machine: Machine) -> None:
    code, data = machine.iomem["Kernel code"], machine.iomem["Kernel data"]
    for name, physical in (("_text", code[0]), ("__init_begin", code[1]), ("_sdata", data[0]), ("_end", data[1])):
        assert machine.image_physical(machine.symbol(name)) == physical


# -- special values ----------------------------------------------------------------------------------------------------


def test_tags_and_authentication_codes(machine: Machine) -> None:
    schedule = machine.symbol("schedule")
    tagged = machine.where(schedule & ~(0xFF << 56) | 0xF4 << 56)
    specials = {layer.name: layer for layer in tagged.layers if layer.kind == model.SPECIAL}
    assert hex(schedule) in specials["tag 0xf4"].details["meaning"]
    # What a CPU that signs made of it is told first; bits that are no tag can only be that.
    signed = machine.where(schedule & ~(0xFF70 << 48) | 0x2530 << 48) if machine.bits == 52 else None
    if signed is not None:
        first = signed.first(model.SPECIAL)
        assert first is not None
        assert first.name == "pointer authentication code"
        assert hex(schedule) in first.details["meaning"]
    user = machine.where(0xB400000000412340)
    specials = {layer.name: layer for layer in user.layers if layer.kind == model.SPECIAL}
    assert "0x412340" in specials["tag 0xb4"].details["meaning"]
    assert machine.where(0xFFF0000000000000).layers[0].name == ("direct map" if machine.bits == 52 else "non-canonical")
