"""Stacks (kplug/runtime/locators/stacks.py): whose stack an address is in, and what has run off its end.

What is expected is where the fake kernel has its stacks: tasks' in vmalloc or in the direct map, the first one in the
image; x86's in the CPU entry areas (arch/x86/include/asm/cpu_entry_area.h) and arm64's per-CPU ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import CPUS, DATA, THREAD_SIZE, FakeKernel
from support.fake_machines import AARCH64, MACHINES, PAGE, X86_64, Machine
from support.fake_stacks import ESTACKS, IRQ_STACK, FakeArmStacks, FakeX86Stacks
from support.fake_tasks import FakeTasks

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.stacks import KIND, StackLocator, first_stack, stacks_of, thread_size_of
from kplug.runtime.threads.selection import Selection

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def made(machine: Machine) -> tuple[FakeKernel, FakeTasks, Any]:
    fake = FakeKernel(machine)
    tasks = FakeTasks(fake)
    return fake, tasks, FakeX86Stacks(fake) if machine is X86_64 else FakeArmStacks(fake)


def found(fake: FakeKernel, address: int) -> list[Layer]:
    return list(StackLocator(fake.kernel).locate(address))


def names(fake: FakeKernel, *addresses: int) -> list[Sequence[str]]:
    return [[layer.name for layer in found(fake, address)] for address in addresses]


@each_machine
def test_a_tasks_stack_in_vmalloc(machine: Machine) -> None:
    fake, tasks, _ = made(machine)
    start = machine.vmalloc + 0x10000
    tasks.on_vmap_stack(42, "shell", start)
    fake.words(start, 0x57AC6E9D)
    end = start + THREAD_SIZE
    for address in (start, start + 0x1238, end - 1):
        (layer,) = found(fake, address)
        assert (layer.kind, layer.name, layer.start, layer.end) == ("stack", "stack of 42 (shell)", start, end)
        assert layer.details == {
            "owner": "task",
            "cpu": 0,
            "pid": 42,
            "comm": "shell",
            "depth": end - address,
            "guard": False,
            **({"end_magic": True} if address == start else {}),
        }
    assert found(fake, start - PAGE - 1) == []


@each_machine
def test_the_lowest_word_of_a_stack_that_overflowed(machine: Machine) -> None:
    fake, tasks, _ = made(machine)
    start = machine.vmalloc + 0x10000
    tasks.on_vmap_stack(42, "shell", start)
    (layer,) = found(fake, start + 7)
    assert layer.details["end_magic"] is False
    assert "  STACK_END_MAGIC is overwritten: it overflowed  " in KIND.words(layer)[0]
    fake.kernel.is_zero_filled = lambda physical: True  # the dump does not have the page
    assert found(fake, start + 7)[0].details["end_magic"] is None


@each_machine
def test_the_guard_page_above_a_stack_in_vmalloc(machine: Machine) -> None:
    fake, tasks, _ = made(machine)
    start = machine.vmalloc + 0x10000
    tasks.on_vmap_stack(42, "shell", start)
    end = start + THREAD_SIZE
    for address in (end, end + PAGE - 1):
        (layer,) = found(fake, address)
        assert layer.name == f"guard page above the stack of 42 (shell), {address - end:#x} bytes past its top"
        assert (layer.start, layer.end, layer.details["guard"]) == (end, end + PAGE, True)
        assert (layer.details["depth"], layer.details["past"]) == (None, address - end)
    assert found(fake, end + PAGE) == []


def test_the_guard_page_below_an_irq_stack_in_vmalloc() -> None:
    """CPU 0's may be the first area of vmalloc, so that its guard page is below that."""
    fake, tasks, arm = made(AARCH64)
    tasks.vmap.area(arm.irq[0], 4, flags=4)
    (layer,) = found(fake, arm.irq[0] - 0x20)
    assert layer.name == "guard page of the IRQ stack of CPU 0, 0x20 bytes past its end"
    assert found(fake, arm.irq[1] - 0x20) == []  # which is in no area


@each_machine
def test_the_side_of_the_stack_pointer(machine: Machine) -> None:
    """A task's own pointer where it left its CPU, else the CPU's; in user mode nothing of the stack is in use."""
    fake, tasks, cpu_stacks = made(machine)
    start = machine.vmalloc + 0x10000
    end = start + THREAD_SIZE
    asleep = tasks.on_vmap_stack(42, "shell", start)
    fake.put("task_struct", asleep, {tasks.saved_pointer: start + 0x3000})
    runs: dict[int, int] = {}
    pointers = {0: cpu_stacks.irq[0] + 0x800}
    frames = [
        SimpleNamespace(number=number, sp=start + sp, function=name, is_inline=inline, guessed=sp > 0x3C00,
                        alone=False, lost=False)
        for number, sp, name, inline in (
            (0, 0x3000, "inlined", True), (1, 0x3000, "schedule", False), (2, 0x3100, "msleep", False),
            (3, 0x3800, "worker", False), (4, 0x3F00, "guessed", False),
        )
    ]  # fmt: skip
    selection = SimpleNamespace(
        cpu_of=runs.get, stack_pointer_on=pointers.get, frames_of=lambda task: frames if task == asleep else []
    )
    locator = StackLocator(fake.kernel, cast(Selection, selection))

    def side(address: int) -> tuple[object, object, object]:
        (layer,) = locator.locate(address)
        frame = layer.details.get("frame")
        return layer.details.get("side"), layer.details.get("sp"), frame and frame["function"]

    pointer = hex(start + 0x3000)
    assert side(start + 0x2FFF) == ("dead", pointer, None)
    assert side(start + 0x3000) == ("live", pointer, "schedule")
    assert side(start + 0x37FF) == ("live", pointer, "msleep")
    assert side(start + 0x3800) == ("live", pointer, None)  # its caller is guessed
    assert side(end - 1) == ("live", pointer, None)
    runs[asleep] = 0  # on its CPU's IRQ stack now
    assert side(start + 0x3800) == (None, None, None)
    assert side(cpu_stacks.irq[0] + 0x7FF) == ("dead", hex(cpu_stacks.irq[0] + 0x800), None)
    assert side(cpu_stacks.irq[0] + 0x800) == ("live", hex(cpu_stacks.irq[0] + 0x800), None)
    assert side(cpu_stacks.irq[1]) == (None, None, None)
    pointers[0] = 0x7FFC00000000
    assert side(end - 1) == ("dead", None, None)
    (layer,) = locator.locate(end - 1)
    assert "  dead (the task runs in user mode)  " in KIND.words(layer)[0]


@each_machine
def test_the_guard_page_below_a_stack_in_vmalloc(machine: Machine) -> None:
    fake, tasks, _ = made(machine)
    start = machine.vmalloc + 0x10000
    tasks.on_vmap_stack(42, "shell", start)
    for address in (start - PAGE, start - 1):
        (layer,) = found(fake, address)
        past = start - address
        assert layer.name == f"guard page of the stack of 42 (shell), {past:#x} bytes past its end"
        assert (layer.start, layer.end, layer.details["guard"]) == (start - PAGE, start, True)
        assert layer.details["depth"] == THREAD_SIZE + past


def test_a_page_below_a_stack_that_another_area_has() -> None:
    fake, tasks, _ = made(X86_64)
    start = X86_64.vmalloc + 0x10000
    tasks.on_vmap_stack(42, "shell", start)
    tasks.vmap.area(start - 2 * PAGE, 2, guard=False, flags=0x42)  # VM_ALLOC|VM_NO_GUARD
    assert found(fake, start - 1) == []
    assert names(fake, start) == [["stack of 42 (shell)"]]


@each_machine
def test_a_tasks_stack_in_the_direct_map_has_no_guard(machine: Machine) -> None:
    fake, tasks, _ = made(machine)
    start = fake.take(THREAD_SIZE, THREAD_SIZE)
    tasks.task(42, "shell", stack=start)
    name = ["stack of 42 (shell)"]
    assert names(fake, start - 1, start, start + THREAD_SIZE - 1, start + THREAD_SIZE) == [[], name, name, []]


@each_machine
def test_the_first_stack_is_in_the_image(machine: Machine) -> None:
    fake, _, _ = made(machine)
    start = machine.image + DATA
    end = start + THREAD_SIZE
    assert first_stack(fake.kernel) == range(start, end)
    name = ["stack of 0 (swapper/0)"]
    assert names(fake, start - 1, start, end - 1, end) == [[], name, name, []]


@each_machine
def test_the_size_of_a_stack_by_the_type_where_no_symbol_tells(machine: Machine) -> None:
    fake, _, _ = made(machine)
    assert thread_size_of(fake.kernel) == THREAD_SIZE
    image, fake.kernel.image = fake.kernel.image, None
    with pytest.raises(TargetError, match="the size of a stack: could not find 'union thread_union'"):
        thread_size_of(fake.kernel)
    fake.kernel.image = image


@each_machine
def test_the_irq_stacks(machine: Machine) -> None:
    fake, _, stacks = made(machine)
    for cpu, start in enumerate(stacks.irq):
        end = start + IRQ_STACK
        (layer,) = found(fake, end - 1)
        assert (layer.name, layer.start, layer.end) == (f"IRQ stack of CPU {cpu}", start, end)
        assert (layer.details["owner"], layer.details["cpu"], layer.details["pid"]) == ("irq", cpu, None)
        assert (found(fake, start)[0].details["depth"], layer.details["depth"]) == (IRQ_STACK, 1)
        assert found(fake, end) == []
        assert found(fake, start - 1) == []


def test_the_stacks_in_x86s_cpu_entry_areas() -> None:
    fake, _, stacks = made(X86_64)
    for cpu, area in enumerate(stacks.areas):
        first = area + ESTACKS
        for owner, name, start in (
            ("DF", "double fault", first + PAGE),
            ("NMI", "NMI", first + 3 * PAGE),
            ("entry", "entry", area + PAGE),
        ):
            for address in (start, start + PAGE - 1):
                (layer,) = found(fake, address)
                assert (layer.name, layer.start, layer.end) == (f"{name} stack of CPU {cpu}", start, start + PAGE)
                assert (layer.details["owner"], layer.details["cpu"]) == (owner, cpu)
        assert found(fake, area) == []
        assert found(fake, area + 2 * PAGE) == []


def test_the_guard_pages_in_x86s_cpu_entry_areas() -> None:
    fake, _, stacks = made(X86_64)
    nmi = stacks.areas[1] + ESTACKS + 3 * PAGE
    (layer,) = found(fake, nmi - 1)
    assert layer.name == "guard page of the NMI stack of CPU 1, 0x1 bytes past its end"
    assert (layer.start, layer.end) == (nmi - PAGE, nmi)
    (layer,) = found(fake, nmi - 2 * PAGE - PAGE)
    assert layer.name == "guard page of the double fault stack of CPU 1, 0x1000 bytes past its end"


def test_the_overflow_stacks_of_arm64() -> None:
    fake, _, stacks = made(AARCH64)
    for cpu in range(CPUS):
        start = fake.cpu_area(cpu) + stacks.overflow_offset
        name = [f"overflow stack of CPU {cpu}"]
        assert names(fake, start - 1, start, start + 0x1FF, start + 0x200) == [[], name, name, []]


def test_the_sdei_stacks_of_arm64() -> None:
    fake, _, _ = made(AARCH64)
    pointer = fake.percpu("sdei_stack_normal_ptr", "void *")
    start = AARCH64.vmalloc + 0x800000
    fake.words(fake.cpu_area(1) + pointer, start)  # CPU 0 has none
    assert names(fake, start, start + THREAD_SIZE - 1, start + THREAD_SIZE) == [
        ["SDEI stack of CPU 1"], ["SDEI stack of CPU 1"], [],
    ]  # fmt: skip


def test_a_variable_of_el2_with_the_name_of_a_stack() -> None:
    """KVM has an overflow_stack of its own in the debug information; the kernel's is where the symbol is."""
    fake, _, stacks = made(AARCH64)
    assert fake.kernel.symbol("overflow_stack") is not None
    fake.known("overflow_stack", "unsigned long [64]", AARCH64.image + DATA, None)
    assert names(fake, fake.cpu_area(0) + stacks.overflow_offset) == [["overflow stack of CPU 0"]]


@each_machine
def test_the_stacks_that_a_cpu_keeps_for_the_next_task(machine: Machine) -> None:
    fake, tasks, _ = made(machine)
    start = machine.vmalloc + 0x20000
    cached = fake.percpu("cached_stacks", "struct vm_struct *[2]")
    tasks.vmap.area(start, 4)
    fake.words(fake.cpu_area(1) + cached + 8, fake.make("vm_struct", {"addr": start}))
    name = ["unused stack, kept by CPU 1"]
    assert names(fake, start, start + THREAD_SIZE - 1, start + THREAD_SIZE) == [name, name, []]


def test_user_addresses_are_on_no_stack_of_the_kernels() -> None:
    fake, tasks, _ = made(X86_64)
    tasks.task(42, "shell", stack=0x7F0000000000)
    assert found(fake, 0x7F0000000000) == []


@each_machine
def test_stacks_that_cannot_be_read(machine: Machine) -> None:
    """What may be a stack is not said to be none."""
    fake, tasks, _ = made(machine)
    start, other = machine.vmalloc + 0x10000, machine.vmalloc + 0x20000
    lost = tasks.on_vmap_stack(42, "shell", start)
    tasks.vmap.area(other, 2)
    fake.lose(lost, 8)
    with pytest.raises(TargetError, match="the tasks could not all be read"):
        found(fake, start + 8)
    assert found(fake, other) == []  # of another size
    assert stacks_of(fake.kernel).problem is not None


def test_irq_stacks_whose_pointer_cannot_be_read() -> None:
    fake, tasks, stacks = made(X86_64)
    tasks.on_vmap_stack(42, "shell", X86_64.vmalloc)
    fake.lose(fake.cpu_area(1), PAGE)
    assert names(fake, stacks.irq[0], stacks.irq[1]) == [["IRQ stack of CPU 0"], []]
    problem = stacks_of(fake.kernel).problem
    assert problem is not None
