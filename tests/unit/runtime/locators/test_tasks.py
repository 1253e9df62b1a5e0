"""Tasks (kplug/runtime/locators/tasks.py): whose task_struct an address is in.

What is expected is what was planted: idle tasks of two CPUs, of which the first is init_task in the image, and others
in init_pid_ns.
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import IMAGE, INIT_TASK, INIT_TEXT, PERCPU, FakeKernel
from support.fake_machines import MACHINES, X86_64, Machine
from support.fake_tasks import TASK_SIZE, FakeTasks

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.tasks import TaskLocator, tasks_of

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def found(fake: FakeKernel, address: int) -> list[Layer]:
    return list(TaskLocator(fake.kernel).locate(address))


@each_machine
def test_a_task_from_its_first_byte_to_its_last(machine: Machine) -> None:
    fake = FakeKernel(machine)
    tasks = FakeTasks(fake)
    place = tasks.task(42, "shell", cpu=1)
    for offset in (0, 0x38, TASK_SIZE - 1):
        (layer,) = found(fake, place + offset)
        assert (layer.kind, layer.name, layer.start, layer.end) == ("task", "42 (shell)", place, place + TASK_SIZE)
        assert layer.details == {"pid": 42, "comm": "shell", "cpu": 1, "task": hex(place)}
    assert found(fake, place - 1) == []
    assert found(fake, place + TASK_SIZE) == []


@each_machine
def test_two_tasks_side_by_side(machine: Machine) -> None:
    fake = FakeKernel(machine)
    tasks = FakeTasks(fake)
    first = tasks.task(7, "first")
    second = tasks.task(3, "second", at=first + TASK_SIZE)
    assert [layer.name for layer in found(fake, first + TASK_SIZE - 1)] == ["7 (first)"]
    assert [layer.name for layer in found(fake, second)] == ["3 (second)"]


@each_machine
def test_the_first_task_is_in_the_image(machine: Machine) -> None:
    fake = FakeKernel(machine)
    FakeTasks(fake)
    start = machine.image + INIT_TASK
    for address in (start, start + TASK_SIZE - 1):
        (layer,) = found(fake, address)
        assert (layer.name, layer.start, layer.end) == ("0 (swapper/0)", start, start + TASK_SIZE)
    assert found(fake, start - 1) == []
    assert found(fake, start + TASK_SIZE) == []
    assert found(fake, machine.image) == []


@each_machine
@pytest.mark.parametrize("online", [0b11, 0b01])  # a panic takes the other CPUs offline
def test_the_idle_task_of_another_cpu(machine: Machine, online: int) -> None:
    fake = FakeKernel(machine)
    fake.words(fake.prog["__cpu_online_mask"].address_ or 0, online)
    tasks = FakeTasks(fake)
    (layer,) = found(fake, tasks.idle[1] + 8)
    assert (layer.name, layer.details["cpu"]) == ("0 (swapper/1)", 1)


def test_a_task_in_freed_memory_of_the_image() -> None:
    fake = FakeKernel()
    tasks = FakeTasks(fake)
    direct = X86_64.direct_map + IMAGE + INIT_TEXT
    for place in range(INIT_TEXT, PERCPU, 0x1000):
        fake.page((fake.image_physical + place) // 0x1000)
    tasks.task(9, "late", at=direct + 0x100)
    (layer,) = found(fake, X86_64.image + INIT_TEXT + 0x123)
    start = X86_64.image + INIT_TEXT + 0x100
    assert (layer.name, layer.start, layer.end) == ("9 (late)", start, start + TASK_SIZE)
    assert layer.details["task"] == hex(direct + 0x100)


def test_a_size_that_the_cpu_decides() -> None:
    """arch_task_struct_size (x86): the end of a task_struct is as long as the CPU's registers take."""
    fake = FakeKernel()
    tasks = FakeTasks(fake)
    fake.variable("arch_task_struct_size", "int", 0x180)
    place = tasks.task(42, "shell")
    assert [layer.end for layer in found(fake, place + 0x17F)] == [place + 0x180]
    assert found(fake, place + 0x180) == []


def test_the_members_as_before_5_16() -> None:
    """The CPU is in task_struct itself; without SMP it is nowhere."""
    fake = FakeKernel()
    place = FakeTasks(fake).task(42, "shell", cpu=1)
    links = ("struct hlist_node [2]", 72)
    members = {"stack": ("void *", 32), "mm": ("void *", 40), "pid": ("int", 48), "comm": ("char [16]", 56)}
    fake.struct("task_struct", TASK_SIZE, pid_links=links, **members)  # type: ignore[arg-type]
    assert found(fake, place)[0].details["cpu"] is None
    fake.struct("task_struct", TASK_SIZE, cpu=("unsigned int", 16), pid_links=links, **members)  # type: ignore[arg-type]
    fake.kernel.resumed()
    assert found(fake, place)[0].details["cpu"] == 1


def test_a_name_that_is_no_text() -> None:
    fake = FakeKernel()
    place = FakeTasks(fake).task(42, "x")
    fake.put("task_struct", place, {"comm": b"a\xff\x01bcdefghijklmno"[:16]})
    assert found(fake, place)[0].details["comm"] == "a\\xff\x01bcdefghijklmn"


@each_machine
def test_tasks_that_cannot_be_read(machine: Machine) -> None:
    fake = FakeKernel(machine)
    tasks = FakeTasks(fake)
    first, lost = tasks.task(5, "first"), tasks.task(42, "shell")
    fake.lose(lost, TASK_SIZE)
    assert [layer.name for layer in found(fake, first)] == ["5 (first)"]
    assert found(fake, lost) == []
    problem = tasks_of(fake.kernel).problem
    assert problem is not None
    assert problem.startswith("the tasks could not all be read: address is not mapped: 0x")


def test_ids_that_cannot_be_read() -> None:
    fake = FakeKernel()
    tasks = FakeTasks(fake)
    tasks.task(5, "first")
    fake.lose(tasks.slots, 8)
    assert [task.name for task in tasks_of(fake.kernel).tasks] == ["0 (swapper/1)", "0 (swapper/0)"]
    assert tasks_of(fake.kernel).problem is not None


def test_a_kernel_without_tasks() -> None:
    fake = FakeKernel()
    with pytest.raises(TargetError, match="the tasks: could not find 'struct task_struct'"):
        found(fake, X86_64.direct_map)
