"""Real arm64 kernels, booted under QEMU with KASLR on.

Two CPUs: `max` has 52-bit addresses (LPA2), pointer authentication and needs no page-table isolation; `cortex-a72` has
48 bits, which a kernel built for 52 runs with, no authentication, and is isolated.

Truth: the guest's own /proc and /sys, drgn's helpers, the page tables walked here with the figures of the Arm ARM, what
arch/arm64/mm/mmu.c sets for each part of the image, and QEMU's registers.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import drgn
import pytest
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import follow_phys, pfn_to_page
from drgn.helpers.linux.percpu import per_cpu, per_cpu_ptr
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.slab import find_slab_cache, slab_cache_for_each_allocated_object

from kplug import model
from kplug.arch.types.memory_map import KERNEL, AddressSpace
from kplug.commands.annotated import Annotator
from kplug.commands.stack import STACK
from kplug.errors import InputError
from kplug.model import Annotation, Layer
from kplug.runtime.modules.module_list import modules_of
from kplug.runtime.opening.opening import open_kernel
from kplug.runtime.opening.request import Request
from kplug.runtime.session import session_of
from kplug.runtime.threads.cpu_registers import NoteRegisters
from kplug.summary import summarize

if TYPE_CHECKING:
    from vmimages import DumpSet

    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

PAGE = 4096
CPUS = {"max": None, "cortex-a72": "cortex-a72"}
VALID, TABLE, READ_ONLY, NO_EXECUTE, DIRTY_MANAGED = 1, 2, 1 << 7, 1 << 53, 1 << 51
TABLE_NO_EXECUTE, TABLE_READ_ONLY = 1 << 59, 1 << 62


class Mapping(NamedTuple):
    """A page or block of the kernel's page tables."""

    start: int
    end: int
    physical: int
    permissions: str


@dataclass
class Machine:
    """A dump, open: drgn's view of it, kplug's, and what the guest said."""

    dumps: DumpSet
    prog: drgn.Program
    session: Session
    bits: int

    def where(self, address: int) -> Annotation:
        return self.session.resolver.where(address)

    def symbol(self, name: str) -> int:
        return self.dumps.truth.address(name)

    @property
    def space(self) -> AddressSpace:
        assert self.session.space is not None
        return self.session.space

    def area(self, name: str) -> tuple[int, int]:
        return next((area.start, area.end) for area in self.space.areas if area.name == name)

    @cached_property
    def vmcoreinfo(self) -> dict[str, int]:
        text = self.prog["VMCOREINFO"].string_().decode()
        found = re.findall(r"^NUMBER\((\w+)\)=(0x[0-9a-f]+|-?\d+)$", text, re.MULTILINE)
        return {name: int(value, 0) for name, value in found}

    def image_physical(self, address: int) -> int:
        """__kimg_to_phys()"""
        return (address - self.vmcoreinfo["kimage_voffset"]) & (1 << 64) - 1

    def linear(self, physical: int) -> int:
        """__phys_to_virt(), with the variable that PHYS_OFFSET reads."""
        start: int = self.prog["memstart_addr"].value_()
        return (physical - start + (1 << 64) - (1 << 52)) & (1 << 64) - 1

    def physical(self, address: int) -> int:
        """drgn's walk of the kernel's page tables. FaultError where nothing is mapped."""
        value: int = follow_phys(self.prog["init_mm"].address_of_(), address).value_()
        return value

    @cached_property
    def iomem(self) -> dict[str, tuple[int, int]]:
        """(start, end) of the first line with each name in /proc/iomem, `end` exclusive."""
        found: dict[str, tuple[int, int]] = {}
        for first, last, name in re.findall(r"([0-9a-f]+)-([0-9a-f]+) : (.*)", self.dumps.truth.text("iomem")):
            found.setdefault(name, (int(first, 16), int(last, 16) + 1))
        return found

    @cached_property
    def mappings(self) -> list[Mapping]:
        return list(self._walk(self.image_physical(self.symbol("swapper_pg_dir")), self._top, 0, True, True))

    @property
    def _top(self) -> int:
        return 48 if self.bits == 52 else 39

    def _walk(self, table: int, shift: int, start: int, writable: bool, executable: bool) -> Iterator[Mapping]:
        """D8.3: 4 KiB pages; bits 9:8 are 51:50 of an address with LPA2."""
        entries = memoryview(self.prog.read(table, PAGE, True)).cast("Q")
        count = 16 if shift == 48 else 512
        for index, entry in enumerate(entries[:count]):
            at = start + (index << shift)
            if shift == self._top:
                at |= (1 << 64) - (1 << self.bits)
            if not entry & VALID:
                continue
            out = entry & ((1 << 50) - PAGE if self.bits == 52 else (1 << 48) - PAGE)
            if self.bits == 52:
                out |= (entry >> 8 & 3) << 50
            if shift > 12 and entry & TABLE:
                yield from self._walk(
                    out, shift - 9, at, writable and not entry & TABLE_READ_ONLY,
                    executable and not entry & TABLE_NO_EXECUTE,
                )  # fmt: skip
            else:
                w = writable and (not entry & READ_ONLY or entry & DIRTY_MANAGED)
                x = executable and not entry & NO_EXECUTE
                yield Mapping(at, at + (1 << shift), out & -(1 << shift), f"r{'w' if w else '-'}{'x' if x else '-'}")


_opened: dict[str, Machine] = {}


@pytest.fixture(params=list(CPUS))
def machine(request: pytest.FixtureRequest) -> Machine:
    from vmimages import dumps

    name = request.param
    if name not in _opened:
        made = dumps("arm64-6.12", ("elf", "kdump-zlib"), quiet=True, cpu=CPUS[name])
        opened = open_kernel(
            Request(
                str(made.paths["elf"]),
                symbols=(str(made.files.vmlinux),),
                module_directories=(str(made.files.debug_modules),),
            )
        )
        _opened[name] = Machine(made, opened.prog, session_of(opened), 52 if name == "max" else 48)
    return _opened[name]


def names(annotation: Annotation) -> set[str]:
    layer = annotation.last(model.SYMBOL)
    return {layer.name, *layer.details["aliases"]} if layer is not None else set()


def only(annotation: Annotation, kind: str) -> Layer:
    (layer,) = [layer for layer in annotation.layers if layer.kind == kind]
    return layer


# -- the image and the modules -----------------------------------------------------------------------------------------


def test_the_slide_is_the_guests(machine: Machine) -> None:
    main = machine.session.main
    assert main is not None
    slide = machine.dumps.truth.slide(machine.dumps.files)
    assert slide != 0
    for name in ("_text", "schedule", "init_task", "swapper_pg_dir", "_end"):
        link = machine.symbol(name) - slide
        assert main.placement.runtime(link) == machine.symbol(name)


def test_a_compressed_dump_of_qemus_is_refused_with_what_to_do(machine: Machine) -> None:
    paths, files = machine.dumps.paths, machine.dumps.files
    with pytest.raises(InputError, match=r"does not say its machine.*dump as ELF"):
        open_kernel(Request(str(paths["kdump-zlib"]), symbols=(str(files.vmlinux),)))


def test_a_link_address_is_pointed_out_unless_something_is_there(machine: Machine) -> None:
    """The image is linked where vmalloc begins, and so do the first stacks, once it was moved."""
    slide = machine.dumps.truth.slide(machine.dumps.files)
    (found,) = machine.session.where(hex(machine.symbol("schedule") - slide))
    assert found.state.mapped is False
    assert any(hex(machine.symbol("schedule")) in warning for warning in found.warnings)
    stack = per_cpu(machine.prog["irq_stack_ptr"], 0).value_()
    assert machine.symbol("_text") - slide <= stack < machine.symbol("_end") - slide
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
    ended = count = 0  # `ended`: a program did so between the listing and the dump
    for line in machine.dumps.truth.text("vmallocinfo").splitlines():
        bounds, _size, *rest = line.split()
        start, end = (int(text, 16) for text in bounds.split("-"))
        caller = rest[0].partition("+")[0] if rest and "+0x" in rest[0] else None
        for address in (start, (start + end) // 2, end - 1):
            layer = only(machine.where(address), "vmap")
            if layer.name == "lazily freed area" or (layer.start, layer.end) != (start, end):
                ended += "unpurged" not in rest
                continue
            assert (layer.details["caller"] or "").partition("+")[0] == (caller or "")
            count += 1
    assert ended <= 9
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


# -- stacks and registers ----------------------------------------------------------------------------------------------


def test_every_tasks_stack_and_the_irq_stacks(machine: Machine) -> None:
    for task in for_each_task(machine.prog):
        stack = task.stack.value_()
        layer = only(machine.where(stack + 0x3000), "stack")
        assert (layer.details["owner"], layer.details["pid"]) == ("task", task.pid.value_())
        assert (layer.start, layer.end) == (stack, stack + 0x4000)
    for cpu in for_each_possible_cpu(machine.prog):
        start = per_cpu(machine.prog["irq_stack_ptr"], cpu).value_()
        layer = only(machine.where(start + 0x10), "stack")
        assert (layer.start, layer.details["owner"], layer.details["cpu"]) == (start, "irq", cpu)
        # By the guest's own kallsyms: KVM has a variable of that name too, and drgn finds one or the other.
        variable = drgn.Object(machine.prog, "void *", machine.symbol("overflow_stack"))
        overflow = per_cpu_ptr(variable, cpu).value_()
        for address in (overflow, overflow + 0xFFF):
            layer = only(machine.where(address), "stack")
            assert (layer.start, layer.details["owner"], layer.details["cpu"]) == (overflow, "overflow", cpu)


def qemu_registers(machine: Machine, cpu: int) -> dict[str, int]:
    parts = re.split(r"^CPU#\d+", machine.dumps.truth.text("registers"), flags=re.MULTILINE)
    found = re.findall(r"\b(PC|SP|X\d\d|PSTATE)=([0-9a-f]+)", parts[cpu + 1])
    return {re.sub(r"^x0(?=\d)", "x", name.lower()): int(value, 16) for name, value in found}


def test_registers_of_the_cpus(machine: Machine) -> None:
    target = machine.session.target
    assert target is not None
    for cpu in (0, 1):
        target.selection.select_cpu(cpu)  # type: ignore[attr-defined]
        registers = {register.name: register.value for register in target.registers()}
        assert registers == qemu_registers(machine, cpu)
    target.selection.select_cpu(0)  # type: ignore[attr-defined]


def test_registers_in_the_notes(machine: Machine) -> None:
    """What is there without debug information."""
    path = str(machine.dumps.paths["elf"])
    for cpu in (0, 1):
        assert NoteRegisters(path, "aarch64").of(cpu) == qemu_registers(machine, cpu)
    assert NoteRegisters(path, "s390x").of(0) == {}


def test_the_program_counter_in_an_expression(machine: Machine) -> None:
    for name in ("$pc", "pc", "$sp", "x29"):
        expected = qemu_registers(machine, 0)[name.lstrip("$")]
        assert [place.address for place in machine.session.places(name)] == [expected]


def test_a_signed_link_register(machine: Machine) -> None:
    annotator = Annotator(machine.session)
    code, data = machine.symbol("schedule") + 8, machine.symbol("init_task")
    signed = [value & ~(0x7F00 << 48) | 0x2500 << 48 for value in (code, data)]
    if machine.bits == 52:
        assert annotator.plain_return("x30", signed[0]) == code
    assert annotator.plain_return("x30", signed[1]) == signed[1]  # no code: nobody returns there
    assert annotator.plain_return("x29", signed[0]) == signed[0]
    assert annotator.plain_return("x30", code) == code


def frame_records(machine: Machine, task: drgn.Object) -> Iterator[tuple[int, int]]:
    """(where, value) of each return address on a sleeping task's stack: the chain of x29 (arm64's AAPCS)."""
    frame = task.thread.cpu_context.fp.value_()
    stack = task.stack.value_()
    while stack <= frame < stack + 0x4000 - 16:
        value = machine.prog.read_u64(frame + 8)
        if value == 0:
            return
        yield frame + 8, value
        frame = machine.prog.read_u64(frame)


def test_return_addresses_on_the_stacks_of_sleeping_tasks(machine: Machine) -> None:
    target = machine.session.target
    tasks = [task for task in for_each_task(machine.prog) if task.pid.value_() in (1, 2)]
    tasks += [task for task in for_each_task(machine.prog) if task.comm.string_() == b"kswapd0"]
    assert len(tasks) == 3
    signed = 0
    for task in tasks:
        target.selection.select_task(task)  # type: ignore[union-attr]
        parser = argparse.ArgumentParser()
        STACK.add_arguments(parser)
        table = next(iter(STACK.run(machine.session, parser.parse_args([]))))
        rows = {row["address"]: row for row in table.rows}  # type: ignore[union-attr]
        chain = list(frame_records(machine, task))
        assert len(chain) >= 3
        for address, value in chain:
            plain = value | 0xFF7F << 48 if machine.bits == 48 else value | 0xFF70 << 48
            signed += plain != value
            row = rows[address]
            assert (row["kind"], row["stale"]) == ("ret", False), hex(address)
            assert row["annotation"].address == plain
            assert names(row["annotation"]) == names(machine.where(plain - 1))
    assert bool(signed) is (machine.bits == 52)  # Cortex-A72 cannot sign
    target.selection.select_cpu(0)  # type: ignore[union-attr]


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
