"""All locators together (kplug/runtime/locators/registry.py), over a kernel that has some of everything.

That memory is broken is no reason for a traceback: whatever its bytes are, a locator answers or raises TargetError.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

pytest.importorskip("drgn")

from support.fake_code import FakeCode
from support.fake_kernel import IMAGE, IMAGE_SIZE, PERCPU, PGTY_SLAB, RAM, FakeKernel
from support.fake_kfence import FakeKfence
from support.fake_machines import MACHINES, PAGE, X86_64, Machine
from support.fake_percpu import FIRST, FakePercpu
from support.fake_slab import FakeSlab
from support.fake_stacks import X86_ENTRY_AREAS, FakeArmStacks, FakeX86Stacks
from support.fake_user import FakeProgram

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.address_state import MemoryState
from kplug.runtime.locators.registry import locators

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
USER = 0x7F0000400000


class Everything:
    """A kernel with some of each kind of thing, and addresses in and around them."""

    def __init__(self, machine: Machine) -> None:
        fake = self.fake = FakeKernel(machine)
        self.slab = FakeSlab(fake, free=(2, 0), cpu_free=(1,))
        self.program = FakeProgram(fake)
        vmap = self.program.tasks.vmap
        stacks = FakeX86Stacks(fake) if machine is X86_64 else FakeArmStacks(fake)
        vmap.area(machine.vmalloc, 2, caller=machine.image + 0x210)
        self.program.tasks.on_vmap_stack(7, "thread", machine.vmalloc + 0x10000)
        self.program.mapping(USER, USER + PAGE, vm_file=self.program.file("bin", "true"))
        fake.map(USER, fake.physical(fake.take(PAGE)), root=self.program.root)
        self.kfence = FakeKfence(fake)
        self.kfenced = self.kfence.object(0, 0x800, 0x100)
        percpu = FakePercpu(fake)
        percpu.chunk(percpu.base + FIRST, 2, [(0x40, 0x20)])
        code = FakeCode(fake)
        code.bpf_program("bpf_prog_1", machine.modules, machine.modules + 0x40)
        code.module("mod", machine.modules + PAGE, PAGE)
        places = [
            self.slab.base, self.slab.cache, self.program.task, self.program.root, self.kfence.pool, self.kfenced,
            stacks.irq[0], machine.vmalloc, machine.vmalloc + 0x10000, machine.vmalloc + 2 * PAGE,
            machine.modules, machine.modules + PAGE, percpu.base + FIRST + 0x40, percpu.base, machine.image,
            machine.image + PERCPU, machine.direct_map + IMAGE, machine.image + IMAGE_SIZE, machine.vmemmap,
            machine.direct_map, machine.direct_map + RAM, machine.image + IMAGE_SIZE + 0x2040, USER, USER + PAGE,
            0, 1 << 47, 1 << 62, 1 << 63, X86_ENTRY_AREAS + 0x5000,
        ]  # fmt: skip
        self.problems: list[str] = []
        self.places = sorted({(place + by) % (1 << 64) for place in places for by in (-1, 0, 8)})

    def answers(self) -> Iterator[tuple[int, Layer]]:
        """What all locators say of all places; TargetErrors are part of an answer, and become `problems`."""
        user = self.program.user()
        asked = locators(self.fake.kernel, user)
        state = MemoryState(self.fake.kernel, user)
        for place in self.places:
            for locator in asked:
                try:
                    for layer in locator.locate(place):
                        yield place, layer
                except TargetError as error:
                    self.problems.append(str(error))
            try:
                state.state(place)
            except TargetError as error:
                self.problems.append(str(error))


def holds(layer: Layer, place: int) -> bool:
    """Whether a layer is about that address: it has no range, or one that holds it, or marks just this place."""
    if layer.start is None or layer.end is None:
        return True
    return layer.start <= place < layer.end or (layer.kind == "symbol" and layer.start == place == layer.end)


@each_machine
def test_every_kind_is_found_and_holds_what_was_asked_for(machine: Machine) -> None:
    every = Everything(machine)
    kinds = set()
    for place, layer in every.answers():
        kinds.add(layer.kind)
        assert holds(layer, place), (hex(place), layer)
    assert kinds >= {
        "alias", "page", "slab", "task", "stack", "vmap", "vma", "kfence", "percpu", "pagetable", "module", "special",
        "gap",
    }  # fmt: skip
    assert every.problems == []


@each_machine
def test_an_object_of_kfences_is_none_of_a_slab(machine: Machine) -> None:
    """Its page has the slab's type, and the slab locator would take it for a slab of the cache."""
    every = Everything(machine)
    fake, page = every.fake, every.kfence.page(0)
    fake.page(fake.pfn(page), mapcount=PGTY_SLAB, slab_cache=every.slab.cache, counters=4 << 16)
    kinds = [layer.kind for asked in locators(fake.kernel) for layer in asked.locate(every.kfenced)]
    assert "kfence" in kinds
    assert "slab" not in kinds
    fake.put("kfence_metadata", every.kfence.records, {"addr": 0})
    fake.kernel.resumed()
    kinds = [layer.kind for asked in locators(fake.kernel) for layer in asked.locate(every.kfenced)]
    assert "kfence" not in kinds
    assert "slab" in kinds


@each_machine
def test_a_kernel_without_types_has_what_symbols_and_page_tables_tell(machine: Machine) -> None:
    every = Everything(machine)
    every.fake.forget("page")
    found = {(layer.kind, layer.details.get("kind")) for _, layer in every.answers()}
    assert found == {("alias", None), ("percpu", "static"), ("symbol", None), ("gap", None)}
    assert every.problems == []


@each_machine
@pytest.mark.parametrize("seed", range(8))
def test_broken_memory_gives_no_traceback(machine: Machine, seed: int) -> None:
    every = Everything(machine)
    corrupt(every, random.Random(seed))
    for place, layer in every.answers():
        assert holds(layer, place), (hex(place), layer)
    assert [problem for problem in every.problems if "\n" in problem] == []


def corrupt(every: Everything, chance: random.Random) -> None:
    """Other words in some places: what is there, bits of it changed, or anything at all."""
    fake = every.fake
    used = [place for place in range(0, RAM, 8) if any(fake.ram[place : place + 8])]
    for place in chance.sample(used, max(len(used) // chance.choice((3, 20, 200, 1000)), 1)):
        word = int.from_bytes(fake.ram[place : place + 8], "little")
        other = int.from_bytes(fake.ram[(at := chance.choice(used)) : at + 8], "little")
        word = chance.choice((other, word ^ 1 << chance.randrange(64), chance.getrandbits(64), 0, (1 << 64) - 1))
        fake.ram[place : place + 8] = word.to_bytes(8, "little")
    for _ in range(chance.choice((0, 20))):
        place = chance.randrange(len(fake.pages) // 8) * 8
        fake.pages[place : place + 8] = chance.getrandbits(64).to_bytes(8, "little")
    for _ in range(chance.choice((0, 3))):
        start = every.fake.machine.ram + chance.randrange(RAM // PAGE) * PAGE
        fake.lost[start] = start + PAGE, "not present"
