"""Stacks and registers of arm64 kernels. Truth: QEMU's registers, drgn's tasks, and the frame records on the stacks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import drgn
import pytest
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu, per_cpu_ptr
from drgn.helpers.linux.pid import for_each_task
from support.answers import names, only
from support.arm64_dumps import Machine

from kplug.commands.annotated import Annotator
from kplug.commands.stack import STACK
from kplug.runtime.threads.cpu_registers import NoteRegisters

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


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
