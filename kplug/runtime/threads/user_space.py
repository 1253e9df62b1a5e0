"""The user half of the address space: of the selected task, or of the one that a question names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import drgn

from kplug.arch.registry import named
from kplug.errors import TargetError, UsageError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import FaultError
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.threads.cpu_registers import CpuRegisters
from kplug.runtime.threads.selection import Selection, Thread, task_with_id


class _Program(NamedTuple):
    """The task that user addresses belong to, its mm_struct, and the physical address of its top page table."""

    tid: int
    comm: str
    mm: drgn.Object
    root: int


class Choice(Protocol):
    """Something that has selected a task, such as a `Selection`."""

    @property
    def thread(self) -> Thread: ...


@remembered(UNTIL_RESUMED)
def _program_of(kernel: Kernel, tid: int, comm: str, task: int) -> _Program | None:
    """The program of a task, by the address of its task_struct. TargetError if it cannot be read."""
    with kernel.reading(f"the memory of {tid} ({comm})"):
        mm = drgn.Object(kernel.prog, "struct task_struct *", task).mm.read_()
        if not mm:
            return None
        root = page_tables(kernel).linear_physical(mm.pgd.value_())
    return _Program(tid, comm, mm, root) if root is not None else None


class UserSpace:
    """The user addresses of the selected task; they mean nothing without one, or if it is a kernel thread."""

    def __init__(self, kernel: Kernel, selection: Choice | None, cpus: CpuRegisters | None = None) -> None:
        """`cpus` has registers of the CPUs, where the selection is no front end's."""
        self._kernel = kernel
        self._selection = selection
        self._asked: Thread | None = None
        # The threads of all CPUs: the front end's; else those that the kernel's memory shows.
        self.threads = selection if isinstance(selection, Selection) else Selection(kernel, cpus)

    @contextmanager
    def of(self, pid: int) -> Iterator[None]:
        """Inside, user addresses are those of the task with that ID in the init namespace.

        UsageError if there is none, or if it is a kernel thread; TargetError if it cannot be read.
        """
        if not self._kernel.has_types:
            raise TargetError(f"task {pid}: finding tasks needs the kernel's types, and there is neither DWARF nor BTF")
        with self._kernel.reading(f"task {pid}"):
            task = task_with_id(self._kernel, pid)
            comm = task.comm.string_().decode("utf-8", "backslashreplace")
            asked = Thread(pid, comm, None, False, task)
            if not task.mm:
                raise UsageError(f"{pid} ({comm}) has no user addresses: it is a kernel thread, or it has ended")
        before, self._asked = self._asked, asked
        try:
            yield
        finally:
            self._asked = before

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the program's memory. FaultError if it has no page there, or the dump lacks it."""
        data = bytearray()
        while len(data) < size:
            here = address + len(data)
            root = self.root(here)
            if root is None:
                raise TargetError(f"memory at {here:#x}: {self.problem() or 'the page tables are not known'}")
            page = page_tables(self._kernel).translate(here, root)
            if page is None:
                raise FaultError(f"the process has no page there: {here:#x}")
            data += self._kernel.read_physical(page.physical, min(page.room, size - len(data)))
        return bytes(data)

    @property
    def is_asked(self) -> bool:
        """Whether the question names the task."""
        return self._asked is not None

    @property
    def source(self) -> str:
        """Whose addresses they are, for an answer."""
        return "mappings of the task asked about" if self.is_asked else "mappings of the selected task"

    def program(self) -> _Program | None:
        """The task's program. None if there is none; TargetError if it cannot be read."""
        if not self._kernel.has_types or (self._asked is None and self._selection is None):
            return None
        thread = self._asked if self._asked is not None or self._selection is None else self._selection.thread
        if thread is None or thread.task is None:
            return None
        return _program_of(self._kernel, thread.tid, thread.comm, thread.task.value_())

    def problem(self) -> str | None:
        """Why user addresses are not any program's; None where they are, or where that cannot be said."""
        thread = self._asked or (self._selection.thread if self._selection is not None else None)
        if not self._kernel.has_types or self.program() is not None:
            return None
        if thread is None or thread.task is None:
            return "no process is selected whose address this could be (--pid PID)"
        return f"{thread.tid} ({thread.comm}), the selected task, has no user addresses (--pid PID asks about another)"

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
