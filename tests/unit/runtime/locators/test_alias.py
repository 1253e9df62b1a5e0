"""Second addresses of one memory (kplug/runtime/locators/alias.py): image, vmalloc and direct map.

What is expected follows from where the fake kernel has its image in RAM, and which pages it gave to a vmap area.
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import DATA, IMAGE, IMAGE_SIZE, INIT_END, INIT_TEXT, RODATA, THREAD_SIZE, TOP_TABLE, FakeKernel
from support.fake_machines import MACHINES, PAGE, X86_64, Machine
from support.fake_tasks import FakeTasks
from support.fake_vmap import FakeVmap

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.alias import KIND, AliasLocator
from kplug.runtime.tables import mappings

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def found(fake: FakeKernel, address: int) -> list[Layer]:
    return list(AliasLocator(fake.kernel).locate(address))


def made(machine: Machine) -> FakeKernel:
    fake = FakeKernel(machine)
    FakeTasks(fake)
    return fake


@each_machine
@pytest.mark.parametrize("place", [0, 0x1234, INIT_TEXT, IMAGE_SIZE - 1])
def test_the_images_memory_in_the_direct_map(machine: Machine, place: int) -> None:
    fake = made(machine)
    (layer,) = found(fake, machine.image + place)
    assert (layer.kind, layer.name, layer.start, layer.end) == ("alias", "direct map", None, None)
    assert layer.details == {"of": hex(machine.direct_map + IMAGE + place), "why": "direct map"}


@each_machine
def test_outside_the_image_is_no_alias_of_it(machine: Machine) -> None:
    fake = made(machine)
    direct = machine.direct_map + IMAGE
    places = (machine.image - 1, machine.image + IMAGE_SIZE, direct - 1, direct + IMAGE_SIZE, 0x400000)
    assert [found(fake, place) for place in places] == [[]] * 5


@each_machine
@pytest.mark.parametrize(
    ("place", "name", "start", "end", "region"),
    [
        (0x10, "start_kernel", 0x10, 0x30, "text"),
        (0x2F, "start_kernel", 0x10, 0x30, "text"),
        (0x100, "pcpu_get_vm_areas", 0x100, 0x180, "text"),
        (RODATA + 0x13F, "words", RODATA + 0x100, RODATA + 0x140, "rodata"),
        (TOP_TABLE, "swapper_pg_dir", TOP_TABLE, TOP_TABLE + PAGE, "data"),
        (INIT_TEXT + 0x100, "setup", INIT_TEXT + 0x100, INIT_TEXT + 0x140, "init > init.text"),
    ],
)
def test_the_direct_map_of_the_image(
    machine: Machine, place: int, name: str, start: int, end: int, region: str
) -> None:
    direct = machine.direct_map + IMAGE
    (layer,) = found(made(machine), direct + place)
    assert (layer.name, layer.start, layer.end) == (name, direct + start, direct + end)
    assert layer.details == {
        "of": hex(machine.image + place),
        "why": "direct map of the image",
        "region": region,
    }


def test_the_direct_map_of_a_part_of_the_image_without_a_symbol() -> None:
    direct = X86_64.direct_map + IMAGE
    # Only symbols that mark the start are there: _text, _stext.
    (layer,) = found(made(X86_64), direct)
    assert (layer.name, layer.start, layer.end) == ("text", direct, direct + RODATA)
    (layer,) = found(made(X86_64), direct + INIT_END + 5)
    assert (layer.name, layer.start, layer.end) == ("bss", direct + INIT_END, direct + IMAGE_SIZE)
    (layer,) = found(made(X86_64), direct + IMAGE_SIZE - 1)
    assert layer.details["of"] == hex(X86_64.image + IMAGE_SIZE - 1)


@each_machine
def test_the_direct_map_of_what_the_image_had_before_it_was_freed(machine: Machine) -> None:
    fake = made(machine)
    for place in range(INIT_TEXT, INIT_END, PAGE):
        fake.page((fake.image_physical + place) // PAGE)
    (layer,) = found(fake, machine.direct_map + IMAGE + INIT_TEXT + 0x110)
    assert (layer.name, layer.start, layer.end) == ("setup", None, None)
    assert layer.details["why"] == "direct map of the image, freed since"
    assert layer.details["of"] == hex(machine.image + INIT_TEXT + 0x110)


@each_machine
def test_a_page_of_a_vmap_area_by_both_its_addresses(machine: Machine) -> None:
    fake = FakeKernel(machine)
    first, second = FakeTasks(fake).vmap.area(machine.vmalloc, 2, caller=machine.image + 0x210)
    for number, frame in enumerate((first, second)):
        direct, virtual = machine.direct_map + frame * PAGE - machine.ram, machine.vmalloc + number * PAGE
        for offset in (0, 0x123, PAGE - 1):
            (layer,) = found(fake, direct + offset)
            assert (layer.name, layer.start, layer.end) == ("vmalloc of kernel_clone", direct, direct + PAGE)
            there = f"vmalloc of kernel_clone+{number * PAGE + offset:#x}"
            expected = {"of": hex(virtual + offset), "why": "direct map of a vmap area", "there": there}
            expected.update(start=hex(machine.vmalloc), end=hex(machine.vmalloc + 3 * PAGE))
            assert layer.details == expected
            assert KIND.phrase(layer, offset) == f"alias of {there}"
            (layer,) = found(fake, virtual + offset)
            assert (layer.name, layer.details["of"]) == ("direct map", hex(direct + offset))
    assert found(fake, machine.vmalloc + 2 * PAGE) == []  # the guard page
    assert found(fake, machine.direct_map + (max(first, second) + 1) * PAGE - machine.ram) == []


@each_machine
def test_a_stack_in_vmalloc_by_its_other_address(machine: Machine) -> None:
    fake = FakeKernel(machine)
    tasks = FakeTasks(fake)
    start = machine.vmalloc + 0x10000
    frame = tasks.vmap.area(start, 4)[3]
    tasks.task(42, "shell", stack=start)
    direct = machine.direct_map + frame * PAGE - machine.ram
    (layer,) = found(fake, direct + PAGE - 1)
    assert layer.name == "stack of 42 (shell)"
    assert layer.details["of"] == hex(start + THREAD_SIZE - 1)
    assert layer.details["there"] == "stack of 42 (shell)+0x3fff"


def test_two_mappings_of_one_page() -> None:
    """vmap() of a page that another area has: the direct map's address tells both, each of them the direct map's."""
    fake = FakeKernel()
    vmap = FakeTasks(fake).vmap
    (frame,) = vmap.area(X86_64.vmalloc, 1)
    other = X86_64.vmalloc + 0x10000
    fake.map(other, frame * PAGE)
    vmap.bare(other, other + 2 * PAGE, vm=fake.make("vm_struct", {"addr": other, "size": 2 * PAGE, "flags": 4}))
    direct = X86_64.direct_map + frame * PAGE
    assert [found(fake, place)[0].details["of"] for place in (X86_64.vmalloc, other)] == [hex(direct)] * 2
    layers = found(fake, direct + 5)
    assert [layer.details["of"] for layer in layers] == [hex(X86_64.vmalloc + 5), hex(other + 5)]
    assert [layer.details["there"] for layer in layers] == ["vmalloc area+0x5", "vmap area+0x5"]


def test_a_mapping_outside_the_areas() -> None:
    """The fixmap and the CPUs' entry areas have pages of the image and of per-CPU memory."""
    fake = made(X86_64)
    place = 0xFFFFFE0000001000
    fake.map(place, fake.image_physical + DATA)
    direct = X86_64.direct_map + IMAGE + DATA
    of_image, mapped = found(fake, direct + 8)
    assert of_image.details["why"] == "direct map of the image"
    assert (mapped.details["of"], mapped.details["why"]) == (hex(place + 8), "also mapped in cpu_entry_area")


@each_machine
def test_freed_memory_of_the_image_that_is_mapped_elsewhere_now(machine: Machine) -> None:
    fake = FakeKernel(machine)
    vmap = FakeTasks(fake).vmap
    vmap.area(machine.vmalloc, 1)
    physical = fake.image_physical + INIT_TEXT
    fake.page(physical // PAGE)
    fake.map(machine.vmalloc, physical)
    direct, now = found(fake, machine.image + INIT_TEXT + 0x10)
    assert (direct.name, now.details["there"]) == ("direct map", "vmalloc area+0x10")


def test_tables_that_are_lost_leave_the_areas_list() -> None:
    fake = FakeKernel()
    (frame,) = FakeTasks(fake).vmap.area(X86_64.vmalloc, 1)
    fake.unmap(X86_64.vmalloc)
    (layer,) = found(fake, X86_64.direct_map + frame * PAGE)
    assert layer.details["of"] == hex(X86_64.vmalloc)


def test_an_ioremap_of_what_is_no_ram_has_no_other_address() -> None:
    fake = FakeKernel()
    FakeTasks(fake).vmap.area(X86_64.vmalloc, 1, flags=1, physical=0xFED00000)
    assert found(fake, X86_64.vmalloc) == []


def test_a_page_that_is_not_the_kernels_is_no_areas() -> None:
    fake = FakeKernel()
    (frame,) = FakeTasks(fake).vmap.area(X86_64.vmalloc, 1)
    fake.page(frame, mapping=X86_64.direct_map | 1)  # anonymous memory now: the area's list is stale
    fake.unmap(X86_64.vmalloc)
    assert found(fake, X86_64.direct_map + frame * PAGE) == []


def test_page_tables_that_cannot_be_read() -> None:
    fake = FakeKernel()
    FakeTasks(fake).vmap.area(X86_64.vmalloc, 1)
    fake.lose(X86_64.direct_map + IMAGE + TOP_TABLE, PAGE)
    with pytest.raises(TargetError, match="the page table entry at physical 0x10bc90 cannot be read"):
        found(fake, X86_64.vmalloc)
    # The image and the direct map take no walk.
    assert found(fake, X86_64.image + DATA)[0].details["of"] == hex(X86_64.direct_map + IMAGE + DATA)


def test_vmap_areas_that_cannot_be_read_are_told_of() -> None:
    fake = FakeKernel()
    vmap = FakeVmap(fake)
    FakeTasks(fake, vmap)
    fake.variable("nr_vmap_nodes", "int", 0)
    with pytest.raises(TargetError, match="the vmap areas"):
        found(fake, fake.take(PAGE))


def test_what_the_images_last_large_page_maps_beyond_it() -> None:
    """It is another address of the page, and says nothing of whose the page is; nor does a slot of the fixmap."""
    fake = made(X86_64)
    direct = fake.take(PAGE)
    for place, why in (
        (X86_64.image + 0x200000, "also mapped in kernel image mapping"),
        (0xFFFFFFFFFF5FD000, "also mapped in fixmap or the hole below it"),
    ):
        fake.map(place, fake.physical(direct))
        fake.kernel.resumed()
        layer = found(fake, direct + 5)[-1]
        assert (layer.details["of"], layer.details["why"]) == (hex(place + 5), why)
        assert (layer.start, layer.end) == (None, None)


def test_a_gap_has_no_name() -> None:
    details = {"of": "0x1000", "why": "", "there": "between one and two [thing]", "start": "0x1000", "end": None}
    layer = Layer(KIND.name, "gap", 0x5000, 0x6000, "", details)
    assert KIND.phrase(layer, 0) == "alias of what is between one and two [thing]"
    assert KIND.words is not None
    assert KIND.words(layer) == ("0x1000  between one and two [thing]  ()", False)


def test_tables_that_were_not_searched_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a page that nothing else maps, as far as is known."""
    fake = made(X86_64)
    monkeypatch.setattr(mappings, "_MAX_TABLES", 1)
    with pytest.raises(
        TargetError, match="other mappings of the page may be missing: the kernel has over 1 page tables"
    ):
        found(fake, X86_64.direct_map + 0x30000)
