"""Tasks, their stacks, and the programs that they run.

Truth: what the guest's own /proc said (ps, maps of init), QEMU's registers, and drgn's helpers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import drgn
import pytest
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.pid import for_each_task
from support.answers import kinds, only
from support.memory_dumps import PAGE, MemoryDump

from kplug.errors import TargetError, UsageError
from kplug.summary import summarize

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# -- stacks and tasks --------------------------------------------------------------------------------------------------


def test_every_task(dumped: MemoryDump) -> None:
    listed = {}
    for line in dumped.dumps.truth.text("tasks").splitlines()[1:]:
        pid, _, comm = line.split(None, 2)
        listed[int(pid)] = comm
    named = 0
    for task in for_each_task(dumped.prog):
        pid, comm = task.pid.value_(), task.comm.string_().decode()
        layer = only(dumped.where(task.value_() + 8), "task")
        assert (layer.details["pid"], layer.details["comm"]) == (pid, comm)
        assert layer.name == f"{pid} ({comm})"
        assert layer.start == task.value_()
        slab = only(dumped.where(task.value_() + 8), "slab")
        assert (slab.start, slab.name, slab.details["state"]) == (task.value_(), "task_struct", "allocated")
        if pid in listed:
            named += comm.startswith(listed[pid][:15]) or listed[pid].startswith(comm)
        stack = task.stack.value_()
        for offset in (0, 8, 0x2000, 0x3FFF):
            where = dumped.where(stack + offset)
            layer = only(where, "stack")
            assert (layer.start, layer.end) == (stack, stack + 0x4000)
            assert layer.details["pid"] == pid
            assert layer.details["owner"] == "task"
            assert layer.details["guard"] is False
            assert layer.details["depth"] == 0x4000 - offset
            assert where.state.permissions == "rw-"
        assert only(dumped.where(stack + 0x4000), "stack").details["guard"] is True
    assert named >= len(listed) - 2  # ps itself has ended


def test_below_a_stack(dumped: MemoryDump) -> None:
    """The page below a stack is its guard page, unless another area has memory there."""
    guarded = 0
    for task in for_each_task(dumped.prog):
        address = task.stack.value_() - 0x123
        where = dumped.where(address)
        if where.state.mapped:
            assert "stack" not in kinds(where)
            continue
        layer = only(where, "stack")
        guarded += 1
        assert layer.details["guard"] is True
        words = (
            f"guard page of the stack of {task.pid.value_()} ({task.comm.string_().decode()}), 0x123 bytes past its end"
        )
        assert layer.name == summarize(where).head == words
        below = dumped.where(task.stack.value_() - PAGE - 1)  # may be the next stack
        assert all(layer.details["pid"] != task.pid.value_() for layer in below.layers if layer.kind == "stack")
    assert guarded > 20


def test_per_cpu_stacks(dumped: MemoryDump) -> None:
    prog = dumped.prog
    for cpu in for_each_possible_cpu(prog):
        try:
            top = per_cpu_ptr(prog["hardirq_stack_ptr"].address_of_(), cpu)[0].value_()
        except KeyError:
            top = per_cpu_ptr(prog["pcpu_hot"].address_of_(), cpu).hardirq_stack_ptr.value_()
        layer = only(dumped.where(top), "stack")
        assert (layer.details["owner"], layer.details["cpu"], layer.details["depth"]) == ("irq", cpu, 8)
        assert layer.end == top + 8
        stacks = per_cpu_ptr(prog["cea_exception_stacks"].address_of_(), cpu)[0]
        for member, owner in (("DF_stack", "DF"), ("NMI_stack", "NMI"), ("DB_stack", "DB"), ("MCE_stack", "MCE")):
            place = stacks.member_(member)
            start, size = place.address_, drgn.sizeof(place)
            assert start is not None
            layer = only(dumped.where(start + 16), "stack")
            assert (layer.details["owner"], layer.details["cpu"]) == (owner, cpu)
            assert (layer.start, layer.end) == (start, start + size)
            where = dumped.where(start - 1)
            assert only(where, "stack").details["guard"] is True
            assert where.state.mapped is False


def test_the_registers_stacks(dumped: MemoryDump) -> None:
    """Each CPU's stack pointer at the moment of the dump, where that was in the kernel."""
    for block in dumped.dumps.truth.text("registers").split("CPU#")[1:]:
        match = re.search(r"RSP=([0-9a-f]{16})", block)
        assert match is not None
        pointer = int(match[1], 16)
        if pointer >> 63:
            layer = only(dumped.where(pointer), "stack")
            assert layer.details["cpu"] == int(block.split()[0])


# -- user programs -----------------------------------------------------------------------------------------------------


def user_mappings(dumped: MemoryDump) -> Iterator[tuple[int, int, str, str | None, int]]:
    """(start, end, rights, path, offset in the file) of each line of init's /proc/1/maps."""
    for line in dumped.dumps.truth.text("init-maps").splitlines():
        bounds, rights, offset, _device, _inode, *path = line.split()
        start, end = (int(text, 16) for text in bounds.split("-"))
        yield start, end, rights, path[0] if path else None, int(offset, 16)


def check_user_mappings(dumped: MemoryDump) -> None:
    dumped.session.target.selection.select_thread(1)  # type: ignore[union-attr]
    present = 0
    for start, end, rights, path, offset in user_mappings(dumped):
        for address in (start, end - 1):
            where = dumped.where(address)
            layer = only(where, "vma")
            assert (layer.start, layer.end) == (start, end)
            details = layer.details
            assert (details["pid"], details["comm"], details["path"]) == (1, "init", path)
            assert details["flags"] == rights
            assert details["file_offset"] == (hex(offset) if path and path[0] == "/" else None)
        for address in range(start, end, PAGE):
            where = dumped.where(address)
            if where.state.mapped and where.state.permissions is not None:
                present += 1
                # A page that is still shared with others is read-only until it is written to.
                assert where.state.permissions in (rights[:3], rights[:3].replace("w", "-"))
    assert present > 10
    starts = [start for start, *_ in user_mappings(dumped)]
    assert "vma" not in kinds(dumped.where(min(starts) - 1))


def test_user_mappings(dumped: MemoryDump) -> None:
    """Those of the selected task: init's, as it read them itself."""
    check_user_mappings(dumped)


def test_user_mappings_under_isolation(isolated: MemoryDump) -> None:
    """The kernel's copy of a program's table forbids to execute; the rights are those that the program has."""
    check_user_mappings(isolated)


def test_user_addresses_of_a_process_that_the_question_names(dumped: MemoryDump) -> None:
    session = dumped.session
    session.target.selection.select_thread(2)  # type: ignore[union-attr]
    mappings = list(user_mappings(dumped))
    with session.program(1):
        for start, end, _, path, _ in mappings:
            (answer,) = session.where(hex(end - 1))
            layer = only(answer, "vma")
            assert (layer.start, layer.end, layer.details["pid"], layer.details["path"]) == (start, end, 1, path)
        # A small number is an address as well, and no per-CPU variable's offset.
        (answer,) = session.where("0x18")
        assert {layer.kind for layer in answer.layers} == {"area", "gap"}
        first = f"{mappings[0][3]} at {mappings[0][0]:#x}"
        assert summarize(answer).head == f"between the first address and {first}"
        ends = {end: start for (_, end, *_), (start, *_) in zip(mappings, mappings[1:]) if end < start}
        assert ends
        for start, end in ends.items():
            (answer,) = session.where(hex(start))
            layer = only(answer, "gap")
            assert (layer.start, layer.end) == (start, end)
        (answer,) = session.where("init_task")  # the kernel's half is as it is
        assert only(answer, "symbol").name == "init_task"
        assert session.read(mappings[0][0], 4) == b"\x7fELF"
        with pytest.raises(TargetError, match="the process has no page there: 0x18"):
            session.read(0x18, 4)
        assert session.read(answer.address, 16) == dumped.prog.read(answer.address, 16)
    assert "vma" not in kinds(dumped.where(mappings[0][0]))
    for pid, message in ((2, "kthreadd"), (99999, "no task has the ID 99999")):
        with pytest.raises(UsageError, match=message), session.program(pid):
            pass


def test_user_addresses_of_a_kernel_thread(dumped: MemoryDump) -> None:
    dumped.session.target.selection.select_thread(2)  # type: ignore[union-attr]
    where = dumped.where(0x400000)
    assert where.state.mapped is None
    assert {"vma", "page"}.isdisjoint(kinds(where))
