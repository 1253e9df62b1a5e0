"""Which side of the stack pointer an address on a stack is: among live frames, or in what is left of ended calls."""

from __future__ import annotations

import drgn

from kplug.arch.registry import named
from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.threads.frame import Frame
from kplug.runtime.threads.selection import Selection


class Side(NamedTuple):
    """`live`: whether frames in use are there, None if that is not known. `pointer`: the stack pointer that says so,
    None if the task runs in user mode, where nothing of its kernel stack is in use. `frame`: the one that has the
    address, None if the unwinder knows none that is certain."""

    live: bool | None = None
    pointer: int | None = None
    frame: Frame | None = None


_UNKNOWN = Side()


def side_on_task_stack(selection: Selection, kernel: Kernel, task: int, stack: range, address: int) -> Side:
    """The side of an address on a task's stack; `task` is its task_struct."""
    try:
        cpu = selection.cpu_of(task)
        pointer = _saved_pointer(kernel, task) if cpu is None else selection.stack_pointer_on(cpu)
    except TargetError:
        return _UNKNOWN
    paging = page_tables(kernel).paging
    if pointer is None or paging is None:
        return _UNKNOWN
    if cpu is not None and paging.is_user(pointer):
        return Side(False)
    if pointer not in stack:  # on an interrupt's or exception's stack: where it left this one is not known
        return _UNKNOWN
    if address < pointer:
        return Side(False, pointer)
    return Side(True, pointer, _frame_at(selection, task, stack, address))


def side_on_cpu_stack(selection: Selection, cpu: int, stack: range, address: int) -> Side:
    """The side of an address on a stack of a CPU's own; known while the CPU is on that stack."""
    try:
        pointer = selection.stack_pointer_on(cpu)
    except TargetError:
        return _UNKNOWN
    return Side(address >= pointer, pointer) if pointer is not None and pointer in stack else _UNKNOWN


@remembered(UNTIL_RESUMED)
def _saved_pointer(kernel: Kernel, task: int) -> int | None:
    """The stack pointer with which a task that does not run left its CPU."""
    member = named(kernel.machine).saved_stack_pointer
    if member is None:
        return None
    with kernel.reading("the stack pointer of a task"):
        found = drgn.Object(kernel.prog, "struct task_struct *", task)
        for name in member.split("."):
            found = found.member_(name)
        return int(found.value_())


def _frame_at(selection: Selection, task: int, stack: range, address: int) -> Frame | None:
    """The frame whose part of the stack holds the address: from its stack pointer to its caller's."""
    try:
        frames = [frame for frame in selection.frames_of(task) if not frame.is_inline]
    except TargetError:
        return None
    for frame, caller in zip(frames, frames[1:]):
        if frame.sp in stack and frame.sp <= address < caller.sp and caller.sp in stack:
            certain = not (frame.guessed or frame.alone or frame.lost or caller.guessed)
            return frame if certain else None
    return None
