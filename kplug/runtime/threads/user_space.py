"""The user half of the address space of the selected task: its page tables."""

from __future__ import annotations

from typing import NamedTuple

import drgn

from kplug.arch.registry import named
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.runtime.kernel.kernel import Kernel, reading
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.threads.selection import Selection


class _Program(NamedTuple):
    """The task that user addresses belong to, its mm_struct, and the physical address of its top page table."""

    tid: int
    comm: str
    mm: drgn.Object
    root: int


@remembered(UNTIL_RESUMED)
def _program_of(kernel: Kernel, tid: int, comm: str, task: int) -> _Program | None:
    """The program of a task, by the address of its task_struct. TargetError if it cannot be read."""
    with reading(f"the memory of {tid} ({comm})"):
        mm = drgn.Object(kernel.prog, "struct task_struct *", task).mm.read_()
        if not mm:
            return None
        root = page_tables(kernel).linear_physical(mm.pgd.value_())
    return _Program(tid, comm, mm, root) if root is not None else None


class UserSpace:
    """The user addresses of the selected task; they mean nothing without one, or if it is a kernel thread."""

    def __init__(self, kernel: Kernel, selection: Selection | None) -> None:
        self._kernel = kernel
        self._selection = selection

    def program(self) -> _Program | None:
        """The selected task's program. None if there is none; TargetError if it cannot be read."""
        if self._selection is None or not self._kernel.has_types:
            return None
        thread = self._selection.thread
        if thread.task is None:
            return None
        return _program_of(self._kernel, thread.tid, thread.comm, thread.task.value_())

    def root(self, address: int) -> int | None:
        """The physical address of the page tables that the program itself uses for one of its addresses."""
        program, tables = self.program(), page_tables(self._kernel)
        paging = tables.paging
        if program is None or paging is None:
            return None
        user_root = named(self._kernel.machine).user_root
        if user_root is None:
            return program.root
        return user_root(program.root, address, paging.address_bits, paging.page_size, tables.entry)
