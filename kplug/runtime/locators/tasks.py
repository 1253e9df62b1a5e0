"""Tasks: the task whose task_struct holds an address."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import drgn

from kplug import model
from kplug.errors import TargetError
from kplug.kinds import Kind, register
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.model import Layer
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.cpus import possible_cpus
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.locators.freed import owned_address
from kplug.runtime.locators.registry import locates
from kplug.runtime.tables.translation import page_tables

_MAX_TASKS = 1 << 22
_MAX_TASK_SIZE = 1 << 15
_INT = 4  # the bytes of an int

KIND = register(
    Kind(
        "task",
        1100,
        {"pid": "", "comm": "", "cpu": "", "task": "(the task_struct)"},
        phrase=lambda layer, offset: f"task {layer.name}+{offset:#x}",
        object_type=lambda layer: "struct task_struct",
    )
)


class Task(NamedTuple):
    """A task: its task_struct and stack, its thread ID and name, its CPU and mm (0: a kernel thread).

    `cpu` is the one that it runs on or last ran on, None if that is not known.
    """

    address: int
    stack: int
    pid: int
    comm: str
    cpu: int | None
    mm: int

    @property
    def name(self) -> str:
        return f"{self.pid} ({self.comm})"


class Tasks:
    """All tasks at one moment. `problem` says what could not be read, None if everything was."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._word = kernel.word
        self.problem: str | None = None
        prog = kernel.prog
        with kernel.reading("the tasks"):
            kind = prog.type("struct task_struct")
            self.size = self._struct_size(kind)
            self._pid, self._comm = drgn.offsetof(kind, "pid"), drgn.offsetof(kind, "comm")
            self._comm_size: int = drgn.sizeof(kind.member("comm").type)
            self._stack, self._mm = drgn.offsetof(kind, "stack"), drgn.offsetof(kind, "mm")
            self._cpu: int | None = None
            for member in ("thread_info.cpu", "cpu"):  # bcf9033e5449 (5.16) moved it
                try:
                    self._cpu = drgn.offsetof(kind, member)
                    break
                except LookupError:
                    continue
            pointers = max(self._stack, self._mm) + self._word.size
            self._room = max(self._pid + _INT, self._comm + self._comm_size, pointers, self.size // 2)
            self.tasks = sorted(self._read(prog))
        self._starts = [task.address for task in self.tasks]

    def _struct_size(self, kind: drgn.Type) -> int:
        """The size of a task_struct: less than the type's if the size of its end depends on the CPU (x86)."""
        size = kind.size or 0
        try:
            return min(size, int(self._kernel.prog["arch_task_struct_size"].value_()) or size)
        except LookupError:
            return size

    def _read(self, prog: drgn.Program) -> Iterator[Task]:
        seen: set[int] = set()
        for tasks in (self._idle(prog), helpers.for_each_task(prog)):
            try:
                for task in tasks:
                    address = task.value_()
                    if address in seen:
                        continue
                    seen.add(address)
                    if len(seen) > _MAX_TASKS:
                        raise TargetError("the list of tasks does not end")
                    yield self._task(address)
            except drgn.FaultError as error:
                self.problem = f"the tasks could not all be read: {self._kernel.fault_words(error)}"
            except (LookupError, ValueError, AttributeError) as error:
                self.problem = f"the tasks could not all be read: {error}"
            except TargetError as error:
                self.problem = str(error)

    def _idle(self, prog: drgn.Program) -> Iterator[drgn.Object]:
        """The idle tasks. drgn gives those of online CPUs alone; a panic takes the other CPUs offline as they are."""
        for cpu in possible_cpus(self._kernel):
            task = helpers.idle_task(prog, cpu)
            if task:
                yield task

    def _task(self, address: int) -> Task:
        data, word = self._kernel.prog.read(address, self._room), self._word
        comm = data[self._comm : self._comm + self._comm_size].partition(b"\0")[0].decode(errors="backslashreplace")
        pid = word.signed(data, self._pid, _INT)
        cpu = None if self._cpu is None else word.unsigned(data, self._cpu, _INT)
        return Task(address, word.at(data, self._stack), pid, comm, cpu, word.at(data, self._mm))

    def at(self, address: int) -> Task | None:
        """The task whose task_struct holds an address."""
        number = bisect_right(self._starts, address) - 1
        task = self.tasks[number] if number >= 0 else None
        return task if task is not None and address < task.address + self.size else None


class TaskLocator:
    """The task whose task_struct holds an address."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def locate(self, address: int) -> Iterable[Layer]:
        kernel, tables = self._kernel, page_tables(self._kernel)
        if not kernel.has_types:
            return
        place = owned_address(kernel, address)
        if place is None:
            if not tables.in_image(address) or not is_data(kernel, address):
                return
            first = kernel.symbol("init_task")
            if first is None or not first <= address < first + _MAX_TASK_SIZE:
                return
            place = address
        tasks = tasks_of(kernel)
        task = tasks.at(place)
        if task is None:
            return
        shift = address - place
        details = {"pid": task.pid, "comm": task.comm, "cpu": task.cpu, "task": hex(task.address)}
        start, end = task.address + shift, task.address + tasks.size + shift
        yield Layer(KIND.name, task.name, start, end, "tasks", details)


@remembered(UNTIL_RESUMED)
def tasks_of(kernel: Kernel) -> Tasks:
    """The tasks of a kernel with types. TargetError if they cannot be read at all."""
    return Tasks(kernel)


def is_data(kernel: Kernel, address: int) -> bool:
    """Whether an address of the image is in its data."""
    piece = kernel.image.piece(address) if kernel.image is not None else None
    return piece is not None and piece.region_class == model.DATA


locates(KIND, lambda kernel, user: TaskLocator(kernel))
