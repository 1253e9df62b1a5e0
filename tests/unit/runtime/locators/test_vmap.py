"""The vmap areas (kplug/runtime/locators/vmap.py): whose an address of vmalloc is, guard pages, and the holes between.

What is expected is what each test planted in the fake kernel; flags and their names are include/linux/vmalloc.h's.
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_code import FakeCode
from support.fake_kernel import FakeKernel
from support.fake_machines import AARCH64, MACHINES, PAGE, X86_64, Machine
from support.fake_vmap import VM_ALLOC, VM_IOREMAP, VM_MAP, VM_NO_GUARD, FakeVmap

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.vmap import KIND, VmapLocator, flag_words, vmap_areas

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def told(fake: FakeKernel, address: int) -> Layer:
    (layer,) = VmapLocator(fake.kernel).locate(address)
    return layer


def shape(layer: Layer) -> tuple[str, str, int | None, int | None]:
    return layer.kind, layer.name, layer.start, layer.end


@each_machine
@pytest.mark.parametrize("nodes", [True, False])
def test_an_area_from_its_first_byte_to_its_last(machine: Machine, nodes: bool) -> None:
    fake = FakeKernel(machine)
    vmap, start = FakeVmap(fake, nodes=nodes), machine.vmalloc
    vmap.area(start, 2, caller=machine.image + 0x29A)
    vmap.area(start + 0x10000, 1)
    name, end = "vmalloc of kernel_clone", start + 3 * PAGE
    for address in (start, start + 0x1234, end - PAGE - 1):
        layer = told(fake, address)
        assert shape(layer) == ("vmap", name, start, end)
        assert layer.details == {
            "caller": "kernel_clone+0x9a/0x440",
            "caller_address": hex(machine.image + 0x29A),
            "pages": 2,
            "flags": "VM_ALLOC",
            "guard": False,
        }
    for address in (end - PAGE, end - 1):
        assert shape(told(fake, address)) == ("vmap", name, start, end)
        layer = told(fake, address)
        past = address - (end - PAGE)
        assert (layer.details["guard"], layer.details["past"]) == (True, past)
        assert KIND.phrase(layer, address - start) == f"guard page after {name}, {past:#x} bytes past its end"


@each_machine
def test_the_hole_before_between_and_behind_areas(machine: Machine) -> None:
    fake = FakeKernel(machine)
    vmap, start = FakeVmap(fake), machine.vmalloc
    vmap.area(start, 1)
    vmap.area(start + 0x10000, 1)
    between = told(fake, start + 2 * PAGE)
    assert shape(between) == ("gap", "hole", start + 2 * PAGE, start + 0x10000)
    assert between.details == {
        "after": f"vmalloc area at {start:#x}",
        "before": f"vmalloc area at {start + 0x10000:#x}",
        "why": "no vmap area is here",
    }
    assert told(fake, start + 0xFFFF) == between
    before = told(fake, start - 1)
    assert (before.start, before.end) == (machine.vmalloc_start, start)
    assert before.details["after"] == "start of vmalloc"
    behind = told(fake, start + 0x12000)
    assert (behind.start, behind.details["before"]) == (start + 0x12000, "end of vmalloc")


@each_machine
def test_of_no_area_nothing_is_said_outside_vmalloc(machine: Machine) -> None:
    fake = FakeKernel(machine)
    FakeVmap(fake)
    locator = VmapLocator(fake.kernel)
    places = [machine.direct_map + 0x1000, machine.vmemmap, machine.image, 0x1000, machine.modules]
    assert [list(locator.locate(place)) for place in places] == [[]] * 5


def test_the_modules_area_has_vmap_areas_too() -> None:
    fake = FakeKernel()
    FakeVmap(fake).area(X86_64.modules, 1)
    assert shape(told(fake, X86_64.modules + 8))[1:3] == ("vmalloc area", X86_64.modules)


@pytest.mark.parametrize(
    ("flags", "name", "words"),
    [
        (VM_ALLOC, "vmalloc area", "VM_ALLOC"),
        (VM_MAP, "vmap area", "VM_MAP"),
        (VM_IOREMAP, "ioremap area", "VM_IOREMAP"),
        (0x1000, "sparse area", "VM_SPARSE"),
        (0x8, "vmap area", "VM_USERMAP"),
        (VM_ALLOC | 0x400, "vmalloc area", "VM_ALLOC|VM_ALLOW_HUGE_VMAP"),
        (VM_ALLOC | 0x2000, "vmalloc area", "VM_ALLOC|0x2000"),
    ],
)
def test_what_an_area_was_made_with(flags: int, name: str, words: str) -> None:
    fake = FakeKernel()
    FakeVmap(fake).area(X86_64.vmalloc, 1, flags=flags)
    layer = told(fake, X86_64.vmalloc)
    assert (layer.name, layer.details["flags"]) == (name, words)


def test_flags_without_a_name_are_a_number() -> None:
    assert flag_words(0x10000) == "0x10000"
    assert flag_words(0) == ""


def test_an_ioremap_says_what_it_maps() -> None:
    fake = FakeKernel()
    FakeVmap(fake).area(X86_64.vmalloc, 2, flags=VM_IOREMAP, physical=0xFED00000)
    layer = told(fake, X86_64.vmalloc + PAGE)
    assert (layer.details["physical"], layer.details["pages"]) == ("0xfed00000", None)


def test_vm_map_ram_and_lazily_freed_areas_have_no_guard_and_no_caller() -> None:
    fake, start = FakeKernel(), X86_64.vmalloc
    vmap = FakeVmap(fake)
    vmap.bare(start, start + 2 * PAGE)
    vmap.bare(start + 0x10000, start + 0x12000, lazy=True)
    for place, name in ((start, "vm_map_ram area"), (start + 0x10000, "lazily freed area")):
        layer = told(fake, place + 2 * PAGE - 1)
        assert shape(layer) == ("vmap", name, place, place + 2 * PAGE)
        assert layer.details == {"caller": None, "caller_address": None, "pages": None, "flags": None, "guard": False}


@pytest.mark.parametrize(
    ("flags", "caller"), [(VM_ALLOC | VM_NO_GUARD, 0), (VM_ALLOC, X86_64.image + 0x100)], ids=["VM_NO_GUARD", "per-CPU"]
)
def test_areas_without_a_guard_page(flags: int, caller: int) -> None:
    """VM_NO_GUARD; and pcpu_get_vm_areas(), which the image has at +0x100, makes areas without one and no flag."""
    fake = FakeKernel()
    FakeVmap(fake).area(X86_64.vmalloc, 2, flags=flags, caller=caller, guard=False)
    assert told(fake, X86_64.vmalloc + 2 * PAGE - 1).details["guard"] is False


@each_machine
def test_the_area_that_has_a_page(machine: Machine) -> None:
    fake = FakeKernel(machine)
    frames = FakeVmap(fake).area(machine.vmalloc, 3)
    areas = vmap_areas(fake.kernel)
    assert [areas.mapping(frame) for frame in frames] == [
        (areas.areas[0], machine.vmalloc + number * PAGE) for number in range(3)
    ]
    assert areas.mapping(frames[-1] + 1) is None


def test_an_area_that_claims_more_pages_than_it_has_room_for_owns_none() -> None:
    fake = FakeKernel()
    vmap = FakeVmap(fake)
    (frame,) = vmap.area(X86_64.vmalloc, 1)
    vm = vmap_areas(fake.kernel).areas[0].vm
    fake.put("vm_struct", vm, {"nr_pages": 0xFFFFFFFF})
    fake.kernel.resumed()
    assert vmap_areas(fake.kernel).mapping(frame) is None


def test_a_list_that_loops_is_told_of_and_what_was_read_stands() -> None:
    fake = FakeKernel()
    vmap, start = FakeVmap(fake, nodes=False), X86_64.vmalloc
    vmap.bare(start, start + PAGE)
    node = vmap.bare(start + 0x10000, start + 0x11000)
    following = int.from_bytes(fake.prog.read(node + 40, 8), "little")
    fake.words(following, node + 40)
    assert told(fake, start).name == "vm_map_ram area"
    with pytest.raises(TargetError, match=f"the list of vmap areas loops at {node + 40:#x}"):
        told(fake, start + 0x20000)


def test_a_list_that_cannot_be_read() -> None:
    fake = FakeKernel(AARCH64)
    vmap, start = FakeVmap(fake, nodes=False), AARCH64.vmalloc
    vmap.bare(start, start + PAGE)
    fake.words(vmap.heads[0], 0xFFFF123456789000)
    with pytest.raises(TargetError, match="the list of vmap areas could not be read at 0xffff123456789000"):
        told(fake, start)


def test_an_area_that_ends_before_it_starts() -> None:
    fake = FakeKernel()
    FakeVmap(fake).bare(X86_64.vmalloc, X86_64.vmalloc)
    with pytest.raises(TargetError, match="the list of vmap areas is invalid"):
        told(fake, X86_64.vmalloc)


def test_a_number_of_nodes_that_cannot_be() -> None:
    fake = FakeKernel()
    FakeVmap(fake)
    fake.variable("nr_vmap_nodes", "int", 0)
    with pytest.raises(TargetError, match="there are said to be 0 nodes of them"):
        told(fake, X86_64.vmalloc)


@pytest.mark.parametrize("caller", [0, X86_64.modules + 8])
def test_a_caller_that_cannot_be_told_leaves_the_area(caller: int) -> None:
    """Whose code called is in the list of modules, which cannot be read here; nobody's is at 0."""
    fake = FakeKernel()
    FakeVmap(fake).area(X86_64.vmalloc, 1, caller=caller)
    fake.words(fake.modules, 0xFFFF123456789000)
    layer = told(fake, X86_64.vmalloc)
    assert (layer.name, layer.details["caller"]) == ("vmalloc area", None)


def test_a_kernel_without_modules_has_areas_all_the_same() -> None:
    fake = FakeKernel()
    FakeVmap(fake).area(X86_64.vmalloc, 1, caller=X86_64.modules + 8)
    fake.forget("modules")
    fake.forget("module")
    assert told(fake, X86_64.vmalloc).name == "vmalloc area"


def test_a_caller_that_is_no_function() -> None:
    """Its address is kept, and that it is in memory that a module had while its init ran."""
    fake = FakeKernel()
    vmap, modules = FakeVmap(fake), X86_64.modules
    FakeCode(fake).module("loop", modules, PAGE, {".init.text": modules + 0x10000})
    vmap.area(X86_64.vmalloc, 1, caller=modules + 0x10020)
    vmap.area(X86_64.vmalloc + 0x10000, 1, flags=1, caller=modules + 0x20020, physical=0xFED00000)
    layer = told(fake, X86_64.vmalloc)
    assert (layer.name, layer.details["caller"]) == ("vmalloc area", None)
    assert layer.details["caller_address"] == hex(modules + 0x10020)
    assert layer.details["caller_words"] == f"caller {modules + 0x10020:#x} in freed .init.text of loop"
    assert layer.details["caller_words"] in KIND.words(layer)[0]
    layer = told(fake, X86_64.vmalloc + 0x10000)
    assert layer.details["caller_words"] == f"caller {modules + 0x20020:#x}"
    assert "  physical 0xfed00000 " in KIND.words(layer)[0]
