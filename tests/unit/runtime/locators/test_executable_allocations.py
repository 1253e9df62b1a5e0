"""Code of no module (kplug/runtime/locators/executable_allocations.py), and the gaps between modules.

What is expected is what was planted on the kernel's own lists: BPF programs, ftrace trampolines, pages of kprobe slots.
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_code import SLOT, FakeCode
from support.fake_kernel import FakeKernel
from support.fake_machines import AARCH64, MACHINES, PAGE, X86_64, Machine
from support.fake_vmap import FakeVmap

from kplug.model import Layer
from kplug.runtime.locators.address_state import MemoryState
from kplug.runtime.locators.executable_allocations import ExecutableAllocationLocator, executable_allocations
from kplug.runtime.locators.tracks import stack_words
from kplug.runtime.locators.vmap import VmapLocator
from kplug.runtime.modules.freed_init import freed_section_at
from kplug.runtime.records import records_of

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def made(machine: Machine = X86_64) -> tuple[FakeKernel, FakeVmap, FakeCode]:
    fake = FakeKernel(machine)
    return fake, FakeVmap(fake), FakeCode(fake)


def found(fake: FakeKernel, address: int) -> list[Layer]:
    return list(ExecutableAllocationLocator(fake.kernel).locate(address))


def shapes(fake: FakeKernel, address: int) -> list[tuple[str, str, int | None, int | None]]:
    return [(layer.kind, layer.name, layer.start, layer.end) for layer in found(fake, address)]


@each_machine
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("bpf_prog_0123456789abcdef_filter", "BPF program"),
        ("bpf_trampoline_6442", "BPF trampoline"),
        ("bpf_dispatcher_xdp", "BPF dispatcher"),
        ("bpf_struct_ops_x", "made by the BPF compiler"),
    ],
)
def test_bpf_code_from_its_first_byte_to_its_last(machine: Machine, name: str, what: str) -> None:
    fake, _, code = made(machine)
    start = machine.modules
    code.bpf_program(name, start + 0x40, start + 0x80)
    for address in (start + 0x40, start + 0x7F):
        assert shapes(fake, address) == [("module", "bpf", None, None), ("symbol", name, start + 0x40, start + 0x80)]
    module, symbol = found(fake, start + 0x40)
    assert (module.details["what"], module.source) == (what, "bpf_kallsyms")
    assert (symbol.details["size"], symbol.details["type"]) == (0x40, "t")
    assert [shapes(fake, address)[0][0] for address in (start + 0x3F, start + 0x80)] == ["gap", "gap"]


@each_machine
def test_an_ftrace_trampoline_says_what_it_calls(machine: Machine) -> None:
    fake, _, code = made(machine)
    start = machine.modules
    code.trampoline(start, 0x100, machine.image + 0x200)
    assert shapes(fake, start + 0xFF) == [
        ("module", "__builtin__ftrace", None, None),
        ("symbol", "ftrace_trampoline", start, start + 0x100),
    ]
    assert found(fake, start)[0].details["what"] == "ftrace trampoline that calls kernel_clone"
    assert shapes(fake, start + 0x100)[0][0] == "gap"


def test_kprobe_slots_say_whose_instruction_they_have() -> None:
    fake, _, code = made()
    page = X86_64.modules
    code.slots(page)
    code.probe(X86_64.image + 0x210, page + 2 * SLOT)
    whole = [("module", "__builtin__kprobes", None, None), ("symbol", "kprobe_insn_page", page, page + PAGE)]
    slot = ("symbol", "kprobe_insn_slot", page + 2 * SLOT, page + 3 * SLOT)
    for address, more in (
        (page, []),
        (page + 2 * SLOT - 1, []),
        (page + 2 * SLOT, [slot]),
        (page + 3 * SLOT - 1, [slot]),
        (page + 3 * SLOT, []),
        (page + PAGE - 1, []),
    ):
        assert shapes(fake, address) == whole + more
    assert found(fake, page + 2 * SLOT)[-1].details["probe"] == "kernel_clone+0x10"


def test_the_gap_between_two_things_of_the_modules_area() -> None:
    fake, _, code = made()
    start = X86_64.modules
    code.module("first", start, 2 * PAGE)
    code.bpf_program("bpf_prog_1", start + 0x10000, start + 0x10040)
    assert found(fake, start + PAGE) == []  # the module's
    for address in (start + 2 * PAGE, start + 0xFFFF):
        (gap,) = found(fake, address)
        assert (gap.kind, gap.start, gap.end) == ("gap", start + 2 * PAGE, start + 0x10000)
        assert (gap.details["after"], gap.details["before"]) == ("first (text)", "bpf_prog_1 [bpf]")
        assert gap.details["why"] == "no module, BPF program or trampoline is here"
    (gap,) = found(fake, start - 1)
    assert (gap.start, gap.end) == (0xFFFFFFFFC0000000, start)
    assert (gap.details["after"], gap.details["before"]) == ("start of modules", "first (text)")
    (gap,) = found(fake, start + 0x10040)
    assert (gap.end, gap.details["before"]) == (0xFFFFFFFFFF000000, "end of modules")


def test_memory_for_code_of_which_not_all_is_used() -> None:
    fake, vmap, code = made()
    start = X86_64.modules
    vmap.area(start, 4)
    assert found(fake, start) == []  # nothing of it is known to be code
    code.bpf_program("bpf_prog_1", start + 0x40, start + 0x80)
    fake.kernel.resumed()
    (gap,) = found(fake, start + 0x80)
    assert (gap.start, gap.end) == (start + 0x80, start + 5 * PAGE)
    assert gap.details["before"] == "end of this memory"
    assert gap.details["why"] == "memory for code, of which this is not used"
    (gap,) = found(fake, start)
    assert (gap.start, gap.details["after"], gap.details["before"]) == (
        start,
        "start of this memory",
        "bpf_prog_1 [bpf]",
    )


def test_code_at_the_very_start_of_its_memory() -> None:
    fake, vmap, code = made()
    start = X86_64.modules
    vmap.area(start, 4)
    vmap.area(start - 0x10000, 1)
    code.bpf_program("bpf_prog_0", start - 0x10000, start - 0x10000 + 0x40)
    code.bpf_program("bpf_prog_1", start, start + 0x40)
    (gap,) = found(fake, start + 0x40)
    assert (gap.start, gap.end, gap.details["after"]) == (start + 0x40, start + 5 * PAGE, "bpf_prog_1 [bpf]")


def test_memory_of_a_module_that_is_gone() -> None:
    fake, vmap, _ = made()
    start = X86_64.modules
    vmap.bare(start, start + PAGE, lazy=True)
    assert "not yet given back" in found(fake, start)[0].details["why"]


def test_the_guard_page_of_a_module_in_vmalloc() -> None:
    """arm64 puts modules where there is room: between them and what else is in vmalloc lies a guard page."""
    fake, vmap, code = made(AARCH64)
    start = AARCH64.vmalloc
    vmap.area(start, 2)
    assert found(fake, start + 2 * PAGE) == []
    code.module("mod", start, 2 * PAGE)
    fake.kernel.resumed()
    (gap,) = found(fake, start + 2 * PAGE)
    assert (gap.kind, gap.details["after"]) == ("gap", "mod (text)")


@each_machine
def test_other_areas_are_not_asked_about(machine: Machine) -> None:
    fake, _, code = made(machine)
    code.bpf_program("bpf_prog_1", machine.direct_map, machine.direct_map + PAGE)
    places = (machine.direct_map, machine.image, machine.vmemmap, 0x1000)
    assert [found(fake, place) for place in places] == [[]] * 4


# -- what cannot be read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", ["loops", "is lost", "is a user's"])
def test_a_list_that_leads_astray(lead: str) -> None:
    fake, _, code = made()
    start = X86_64.modules
    code.bpf_program("bpf_prog_1", start, start + 0x40)
    place = code.bpf_program("bpf_prog_2", start + 0x100, start + 0x140)
    code.trampoline(start + 0x200, 0x40, 0)
    following = {"loops": place + 528, "is lost": 0xFFFF123456789000, "is a user's": 0x1000}[lead]
    fake.words(place + 528, following)
    assert shapes(fake, start + 0x100)[1][1] == "bpf_prog_2"
    assert shapes(fake, start + 0x200)[1][1] == "ftrace_trampoline"
    (gap,) = found(fake, start + 0x1000)
    words = {
        "loops": "it loops",
        "is lost": "address is not mapped: 0xffff1234567",
        "is a user's": "0x1000, which is not a kernel address",
    }
    assert "the list of BPF programs could not be read to its end" in gap.details["why"]
    assert words[lead] in gap.details["why"]


def test_code_that_ends_before_it_starts_is_left_out() -> None:
    fake, _, code = made()
    code.bpf_program("bpf_prog_1", X86_64.modules, X86_64.modules)
    code.bpf_program("bpf_prog_2", X86_64.modules + 1, X86_64.modules)
    assert executable_allocations(fake.kernel).codes == []


def test_kprobes_that_cannot_be_read_leave_the_page() -> None:
    fake, _, code = made()
    code.slots(X86_64.modules)
    fake.words(code.table, 0xFFFF123456789000)
    assert len(found(fake, X86_64.modules)) == 2
    fake.words(code.table, code.table + 0)  # a probe whose next is itself
    fake.kernel.resumed()
    assert len(found(fake, X86_64.modules)) == 2


@pytest.mark.parametrize("size", [0, PAGE + 1])
def test_kprobe_slots_of_a_size_that_cannot_be(size: int) -> None:
    fake, _, code = made()
    page = X86_64.modules
    code.slots(page)
    code.probe(X86_64.image + 0x210, page + PAGE - 1)
    fake.put("kprobe_insn_cache", code.slot_pages - 16, {"insn_size": size})
    assert len(found(fake, page + PAGE - 1)) == 2


def test_a_kernel_that_keeps_no_such_lists() -> None:
    fake = FakeKernel()
    FakeVmap(fake)
    assert executable_allocations(fake.kernel).codes == []
    assert executable_allocations(fake.kernel).problems == []
    assert [layer.kind for layer in found(fake, X86_64.modules)] == ["gap"]


def test_a_kernel_without_modules() -> None:
    """CONFIG_MODULES=n: neither the list nor the type is there, and that is no fault."""
    fake, _, code = made()
    code.bpf_program("bpf_prog_1", X86_64.modules, X86_64.modules + 0x40)
    fake.forget("module")
    fake.forget("modules")
    assert shapes(fake, X86_64.modules)[1][1] == "bpf_prog_1"
    assert [layer.kind for layer in found(fake, X86_64.modules + 0x40)] == ["gap"]


@each_machine
def test_the_init_memory_that_a_module_had(machine: Machine) -> None:
    """The last module's that had it there, as far as its sections and their pages go; then it is a gap."""
    fake, vmap, code = made(machine)
    text, start = machine.modules, machine.modules + 0x10000
    sections = {".text": text, ".init.text": start, ".init.data": start + 0x200, ".init.rodata": start + 0x5000}
    code.module("earlier", text + 2 * PAGE, PAGE, {".init.text": start + 0x100})
    code.module("loop", text, PAGE, sections)
    for address, name, end in (
        (start, ".init.text", start + 0x200),
        (start + 0x1FF, ".init.text", start + 0x200),
        (start + 0x200, ".init.data", start + PAGE),
        (start + 0x5FFF, ".init.rodata", start + 0x6000),
    ):
        module, section = found(fake, address)
        assert (module.name, module.details["freed"], module.details["class"]) == ("loop", True, "init")
        assert (section.kind, section.name, section.end) == ("section", name, end)
        assert freed_section_at(fake.kernel, address) is not None
        assert MemoryState(fake.kernel).state(address).freed is True
        assert records_of(fake.kernel).freed(address) is True  # asked where gdb sees what is mapped
    assert found(fake, start + 0x100)[0].details["before"] == ["earlier"]
    assert found(fake, start + 0x10)[0].details["before"] is None
    assert [shapes(fake, place)[0][0] for place in (start - 1, start + PAGE, start + 0x6000)] == ["gap"] * 3
    called = ["[loop] .init.text+0x7f", "[loop] .init.text+0x17f (or in earlier)", hex(start - 1)]
    assert stack_words(fake.kernel, [start + 0x7F, start + 0x17F, start - 1]) == called
    assert MemoryState(fake.kernel).state(start - 1).freed is None
    vmap.area(start, 1)  # somebody else's memory now
    fake.kernel.resumed()
    assert not any(layer.name == "loop" for layer in found(fake, start))
    assert MemoryState(fake.kernel).state(start).freed is None


def test_the_init_memory_that_a_module_in_vmalloc_had() -> None:
    """The hole that is there now is not told."""
    fake, vmap, code = made(AARCH64)
    text, start = AARCH64.vmalloc, AARCH64.vmalloc + 0x10000
    vmap.area(text, 2)
    code.module("loop", text, PAGE, {".text": text, ".init.text": start})
    assert [layer.name for layer in found(fake, start + 8)] == ["loop", ".init.text"]
    assert list(VmapLocator(fake.kernel).locate(start + 8)) == []
    assert found(fake, start + PAGE) == []
    assert [layer.name for layer in VmapLocator(fake.kernel).locate(start + PAGE)] == ["hole"]


@each_machine
def test_the_init_memory_that_a_module_had_among_others(machine: Machine) -> None:
    """Since "execmem: add support for cache of large ROX pages" (6.13) the area stays, for other code."""
    fake, vmap, code = made(machine)
    text, start = machine.modules, machine.modules + 4 * PAGE
    vmap.area(text, 8)
    code.module("loop", text, PAGE, {".text": text, ".init.text": start})
    module, section = found(fake, start)
    assert (module.name, module.details["freed"], section.name) == ("loop", True, ".init.text")
    assert MemoryState(fake.kernel).state(start).freed is True
    code.bpf_program("bpf_prog_1", start, start + 0x40)
    fake.kernel.resumed()
    assert [layer.name for layer in found(fake, start)] == ["bpf", "bpf_prog_1"]
    assert MemoryState(fake.kernel).state(start).freed is None
