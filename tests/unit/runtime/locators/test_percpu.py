"""Per-CPU memory (kplug/runtime/locators/percpu.py): static variables, and what the allocator's chunks gave out.

What is expected is what was planted in the maps of the chunks: mm/percpu.c has a bit for each 4 bytes that are given
out, and one where an allocation begins and past its end.
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import CPU_AREA, CPUS, INIT_END, PERCPU, FakeKernel
from support.fake_machines import MACHINES, PAGE, X86_64, Machine
from support.fake_percpu import FIRST, RESERVED, FakePercpu

from kplug.errors import ExpressionError, TargetError
from kplug.image.placed import PlacedImage
from kplug.model import Layer
from kplug.runtime.locators.percpu import Percpu

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def locator(fake: FakeKernel) -> Percpu:
    assert fake.kernel.image is not None
    return Percpu(fake.kernel, fake.kernel.image)


def found(fake: FakeKernel, address: int) -> list[Layer]:
    return list(locator(fake).locate(address))


def shapes(fake: FakeKernel, address: int) -> list[tuple[str, str, int | None, int | None]]:
    return [(layer.kind, layer.name, layer.start, layer.end) for layer in found(fake, address)]


@each_machine
def test_a_static_variable_of_each_cpu(machine: Machine) -> None:
    fake = FakeKernel(machine)
    FakePercpu(fake)
    offset = fake.percpu("counters", "unsigned long [4]")
    for cpu in range(CPUS):
        area = fake.cpu_area(cpu)
        for address in (area + offset, area + offset + 31):
            assert shapes(fake, address) == [
                ("percpu", f"CPU {cpu}", area, area + PAGE),
                ("symbol", "counters", area + offset, area + offset + 32),
            ]
        assert found(fake, area + offset)[0].details == {
            "variable": "counters",
            "cpu": cpu,
            "kind": "static",
            "offset": hex(offset),
        }
        assert "counters" not in [layer.name for layer in found(fake, area + offset + 32)]
        assert found(fake, area + PAGE - 1)[0].name == f"CPU {cpu}"
    assert found(fake, fake.cpu_area(0) - 1) == []
    assert found(fake, fake.cpu_area(0) + PAGE) == []
    assert found(fake, machine.image + PERCPU + offset) == []  # the image's to answer


@each_machine
@pytest.mark.parametrize("old", [True, False])
def test_an_allocation_from_its_first_byte_to_its_last(machine: Machine, old: bool) -> None:
    fake = FakeKernel(machine)
    percpu = FakePercpu(fake, old=old)
    chunk = percpu.base + FIRST
    descriptor = percpu.chunk(chunk, 2, [(0, 0x20), (0x20, 0x8), (0x100, 0x40)])
    for cpu in range(CPUS):
        base = chunk + cpu * CPU_AREA
        area = ("percpu", f"CPU {cpu}", base, base + 2 * PAGE)
        for offset, name, start, end in (
            (0, "allocation", 0, 0x20),
            (0x1F, "allocation", 0, 0x20),
            (0x20, "allocation", 0x20, 0x28),
            (0x27, "allocation", 0x20, 0x28),
            (0x28, "free", 0x28, 0x100),
            (0xFF, "free", 0x28, 0x100),
            (0x100, "allocation", 0x100, 0x140),
            (0x13F, "allocation", 0x100, 0x140),
            (0x140, "free", 0x140, 2 * PAGE),
            (2 * PAGE - 1, "free", 0x140, 2 * PAGE),
        ):
            assert shapes(fake, base + offset) == [area, ("percpu", name, base + start, base + end)]
    details = found(fake, chunk + CPU_AREA + 0x101)[1].details
    assert details == {
        "variable": None,
        "cpu": 1,
        "kind": "dynamic",
        "offset": "0x101",
        "chunk": hex(descriptor),
        "pointer": hex(percpu.pointer(chunk + 0x101)),
        "allocated": True,
        "populated": True,
    }
    assert found(fake, chunk - 1) == []
    assert found(fake, chunk + 2 * PAGE) == []


def test_what_was_freed_keeps_its_bounds_and_is_one_with_its_neighbours() -> None:
    fake = FakeKernel()
    percpu = FakePercpu(fake)
    place = percpu.chunk(percpu.base + FIRST, 1, [(0x40, 0x10), (0x80, 0x10)])
    bounds = int.from_bytes(fake.prog.read(place + 48, 8), "little")
    fake.poke(bounds, (0xFFFFFFFFFFFFFFFF).to_bytes(8, "little"))  # of 4-byte pieces, all freed but two
    start = percpu.base + FIRST
    assert shapes(fake, start + 0x70)[1][1:] == ("free", start + 0x50, start + 0x80)
    assert shapes(fake, start)[1][1:] == ("free", start, start + 0x40)


@each_machine
def test_a_chunk_that_begins_and_ends_within_its_pages(machine: Machine) -> None:
    fake = FakeKernel(machine)
    percpu = FakePercpu(fake)
    start = percpu.base + FIRST
    percpu.chunk(start, 2, [(0x100, 0x10)], before=0x40, behind=0x80)
    area = ("percpu", "CPU 0", start + 0x40, start + 2 * PAGE - 0x80)
    assert shapes(fake, start + 0x40) == [area, ("percpu", "free", start + 0x40, start + 0x100)]
    last = start + 2 * PAGE - 0x80
    assert shapes(fake, last - 1) == [area, ("percpu", "free", start + 0x110, last)]
    assert found(fake, start + 0x3F) == []
    assert found(fake, last) == []


@each_machine
def test_a_chunk_in_vmalloc(machine: Machine) -> None:
    fake = FakeKernel(machine)
    percpu = FakePercpu(fake)
    percpu.chunk(machine.vmalloc, 3, [(2 * PAGE, PAGE)], slot=0)
    percpu.chunk(percpu.base + FIRST, 1)
    base = machine.vmalloc + CPU_AREA
    assert shapes(fake, base + 3 * PAGE - 1) == [
        ("percpu", "CPU 1", base, base + 3 * PAGE),
        ("percpu", "allocation", base + 2 * PAGE, base + 3 * PAGE),
    ]
    assert found(fake, base + 3 * PAGE) == []


def test_pages_of_a_chunk_that_are_not_there_yet() -> None:
    fake = FakeKernel()
    percpu = FakePercpu(fake)
    percpu.chunk(X86_64.vmalloc, 3, populated=0b101)
    populated = [found(fake, X86_64.vmalloc + number * PAGE)[0].details["populated"] for number in range(3)]
    assert populated == [True, False, True]


@each_machine
def test_a_percpu_pointer(machine: Machine) -> None:
    fake = FakeKernel(machine)
    percpu = FakePercpu(fake)
    start = percpu.base + FIRST
    percpu.chunk(start, 1, [(0x40, 0x20)])
    pointer = percpu.pointer(start)
    (layer,) = found(fake, pointer + 0x5F)
    assert (layer.kind, layer.name, layer.start, layer.end) == ("special", "per-CPU pointer", None, None)
    assert layer.details["meaning"].startswith("A __percpu pointer into an allocation of 0x20 bytes")
    assert (layer.details["offset"], layer.details["allocated"]) == ("0x5f", True)
    assert "that is free" in found(fake, pointer + 0x60)[0].details["meaning"]
    assert found(fake, pointer - 1) == []
    assert found(fake, pointer + PAGE) == []
    places = locator(fake).instances(pointer + 0x40, None)
    assert list(places) == [start + 0x40 + cpu * CPU_AREA for cpu in range(CPUS)]
    assert list(locator(fake).instances(pointer + PAGE, 0)) == []
    with pytest.raises(ExpressionError, match="CPU 2: this kernel has CPUs 0-1"):
        locator(fake).instances(pointer, 2)


def test_the_per_cpu_variables_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeKernel()
    percpu = FakePercpu(fake)
    start = percpu.base + RESERVED
    percpu.chunk(start, 2, [(0x40, 0x20), (0x100, 0x20)], reserved=True)
    module = fake.make("module", {"name": b"mod", "percpu": percpu.pointer(start + 0x40), "percpu_size": 0x20})
    fake.words(fake.modules, module + 8)
    fake.words(module + 8, fake.modules)
    kernels = {layer.kind: layer for layer in found(fake, start + CPU_AREA + 0x5F)}
    area = kernels["percpu"]
    assert (area.name, area.details["kind"], area.details["cpu"]) == ("CPU 1", "module", 1)
    held = kernels["module"]
    assert (held.name, held.start, held.end) == ("mod", start + CPU_AREA + 0x40, start + CPU_AREA + 0x60)
    assert "module" not in [layer.kind for layer in found(fake, start + CPU_AREA + 0x60)]
    assert shapes(fake, start + 0x100)[1][1] == "allocation"
    # Its __percpu pointers come after the image's own, where the image has its .bss.
    pointer = percpu.pointer(start + 0x40)
    assert pointer == fake.machine.image + INIT_END + 0x40
    for address in (pointer, pointer + 0x1F):
        (layer,) = found(fake, address)
        assert (layer.kind, layer.name, layer.details["what"]) == ("special", "per-CPU pointer", "percpu-pointer")
        assert layer.details["meaning"].startswith("Also a __percpu pointer to per-CPU data of module mod:")
    assert found(fake, pointer - 1) == found(fake, pointer + 0x20) == []
    # Other allocations do, too: of these it is told only where the image's memory is freed.
    one, piece = locator(fake), fake.kernel.image.piece(pointer)  # type: ignore[union-attr]
    assert piece is not None
    assert list(one.locate(pointer + 0xC0)) == []
    with monkeypatch.context() as freed:
        freed.setattr(PlacedImage, "piece", lambda self, place: piece._replace(freed_after_boot=True))
        (layer,) = one.locate(pointer + 0xC0)
        assert layer.details["meaning"].startswith("Also a __percpu pointer into an allocation of 0x20 bytes:")
        assert list(one.locate(pointer + 0xE0)) == []
    monkeypatch.setattr(Percpu, "_map", None)  # which reads all chunks: not for the rest of the image
    assert found(fake, pointer - 0x41) == found(fake, fake.machine.image + 0x10) == []


# -- what cannot be read -----------------------------------------------------------------------------------------------


def test_maps_that_cannot_be_read() -> None:
    fake = FakeKernel()
    percpu = FakePercpu(fake)
    start = percpu.base + FIRST
    place = percpu.chunk(start, 1, [(0x40, 0x20)])
    fake.put("pcpu_chunk", place, {"alloc_map": 0xFFFF123456789000})
    (layer,) = found(fake, start + 0x40)
    assert (layer.name, layer.start, layer.end) == ("CPU 0", start, start + PAGE)
    assert (layer.details["allocated"], layer.details["populated"]) == (None, True)
    (layer,) = found(fake, percpu.pointer(start + 0x40))
    assert "into a chunk whose records could not be read" in layer.details["meaning"]


@pytest.mark.parametrize("members", [{"nr_pages": 0}, {"nr_pages": -1}, {"start_offset": -4}, {"end_offset": PAGE + 4}])
def test_a_record_that_is_no_chunk(members: dict[str, int]) -> None:
    fake = FakeKernel()
    percpu = FakePercpu(fake)
    place = percpu.chunk(percpu.base + FIRST, 1)
    fake.put("pcpu_chunk", place, members)
    percpu.chunk(X86_64.vmalloc, 1)
    assert shapes(fake, X86_64.vmalloc)[0][1] == "CPU 0"
    with pytest.raises(TargetError, match=f"per-CPU chunks: what is at {place:#x} is not a chunk"):
        found(fake, percpu.base + FIRST)


def test_a_chunk_over_another_is_not_believed() -> None:
    fake = FakeKernel()
    percpu = FakePercpu(fake)
    place = percpu.chunk(fake.cpu_area(0), 1)
    offset = fake.percpu("counters", "unsigned long")
    assert shapes(fake, fake.cpu_area(0) + offset)[1][1] == "counters"
    with pytest.raises(TargetError, match=f"what is at {place:#x} overlaps something else"):
        found(fake, X86_64.vmalloc)


def test_a_list_of_chunks_that_loops() -> None:
    fake = FakeKernel()
    percpu = FakePercpu(fake)
    place = percpu.chunk(percpu.base + FIRST, 1)
    fake.words(place, place)
    assert shapes(fake, percpu.base + FIRST)[0][1] == "CPU 0"
    with pytest.raises(TargetError, match=f"the list loops at {place:#x}"):
        found(fake, X86_64.vmalloc)


def test_a_number_of_lists_that_cannot_be() -> None:
    fake = FakeKernel()
    FakePercpu(fake)
    fake.variable("pcpu_nr_slots", "int", 0)
    with pytest.raises(TargetError, match="per-CPU chunks: pcpu_nr_slots is 0"):
        found(fake, X86_64.vmalloc)
    assert found(fake, 0x1000) == []  # a user's address


def test_areas_that_are_not_set_up_yet() -> None:
    fake = FakeKernel()
    FakePercpu(fake)
    place = fake.prog["__per_cpu_offset"].address_
    assert place is not None
    fake.words(place, 0, 0)
    assert found(fake, fake.cpu_area(0)) == []
