"""Threads of a drgn target, their frames and registers, and which of them is selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import Any

import drgn

from kplug.arch.registers import canonical, ordered
from kplug.errors import TargetError, UsageError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.thread_size import thread_size
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.cpus import online_cpus, present_cpus
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.threads.cpu_registers import CpuRegisters
from kplug.runtime.threads.frame import Frame
from kplug.runtime.threads.unwinder import StackAt, Unwinder, symbol_name

# Attempts to read the stack of a running CPU without a change in between.
_ATTEMPTS = 10
_MAX_PID = 1 << 22  # PID_MAX_LIMIT


class Thread(NamedTuple):
    """A task. `cpu` is the CPU on which it runs, None if it does not run; `task` drgn's `struct task_struct *`.

    Without debug information, or if memory cannot be read, it is not known which task a CPU runs: then `tid` is -1,
    `comm` empty and `task` None. `problem` says what could not be read.
    """

    tid: int
    comm: str
    cpu: int | None
    crashed: bool
    task: Any
    problem: str | None = None

    def __str__(self) -> str:
        crashed = ", crashed" if self.crashed else ""
        if self.task is None:
            return f"the task on CPU {self.cpu}{crashed}"
        where = f" on CPU {self.cpu}" if self.cpu is not None else ""
        return f"{self.tid} ({self.comm}){where}{crashed}"


class Selection:
    """The selected thread and frame; the defaults are chosen at the first question about them.

    All methods raise TargetError, worded for the user, if memory or debug information is missing.
    """

    def __init__(self, kernel: Kernel, cpus: CpuRegisters | None = None, stack_at: StackAt | None = None) -> None:
        """`cpus` has registers of the CPUs that drgn does not give, `stack_at` the stack that holds an address."""
        self._stack_at = stack_at
        self._kernel = kernel
        self._cpus = cpus
        self.memo = kernel.memo
        self._thread: Thread | None = None
        self._generation: object = None
        self._frame = 0

    # -- threads -------------------------------------------------------------------------------------------------------

    def threads(self) -> Sequence[Thread]:
        """The crashed thread first, then the tasks on the CPUs, in the CPUs' order."""
        return self._find_threads()

    @property
    def thread(self) -> Thread:
        """The selected thread: at first the crashed one, else CPU 0's task in a dump, or init on a live kernel."""
        if self._thread is None:
            return self._select(self._first())
        # If the kernel ran, the task may be on another CPU now, or have ended.
        if self._generation != self.memo.generation:
            self._select(self._again(self._thread))
        return self._thread

    def select_thread(self, tid: int) -> Thread:
        """Select a task by its ID in the init namespace, and its innermost frame. UsageError if there is none."""
        for thread in self.threads():
            if thread.tid == tid:
                return self._select(thread)
        if not self._kernel.has_types:
            raise TargetError(f"task {tid}: finding tasks needs the kernel's types, and there is neither DWARF nor BTF")
        with self._kernel.reading(f"task {tid}"):
            return self._select(self._thread_of(task_with_id(self._kernel, tid)))

    def select_cpu(self, cpu: int) -> Thread:
        """Select the task on a CPU, and its innermost frame. UsageError if there is no such CPU."""
        for thread in self.threads():
            if thread.cpu == cpu:
                return self._select(thread)
        cpus = sorted(thread.cpu for thread in self.threads() if thread.cpu is not None)
        raise UsageError(f"there is no CPU {cpu}; there are {', '.join(map(str, cpus))}")

    @property
    def selected(self) -> tuple[Thread, int]:
        """The selected thread and the number of its frame, for `select`."""
        return self.thread, self._frame

    def select(self, selected: tuple[Thread, int]) -> None:
        """Restore an earlier selection."""
        self._select(selected[0])
        self._frame = selected[1]

    def select_task(self, task: Any) -> Thread:
        """Select the task of a drgn `struct task_struct *`."""
        with self._kernel.reading("the task"):
            return self._select(self._thread_of(task))

    def _select(self, thread: Thread) -> Thread:
        self._thread, self._frame, self._generation = thread, 0, self.memo.generation
        return thread

    def _again(self, thread: Thread) -> Thread:
        """A thread that was selected before the kernel ran."""
        if thread.tid <= 0:
            return next((each for each in self.threads() if each.cpu == thread.cpu), thread)
        with self._kernel.reading(str(thread)):
            task = helpers.find_task(self._kernel.prog, thread.tid)
            if not task or task.value_() != thread.task.value_():
                self._thread = None
                raise TargetError(f"the selected task, {thread}, has ended")
            return self._thread_of(task)

    def _first(self) -> Thread:
        threads = self.threads()
        if threads and (not self._kernel.live or self._cpus is not None):
            return threads[0]
        # A task that runs cannot be unwound without its CPU's registers.
        with self._kernel.reading("the tasks"):
            return self._thread_of(helpers.find_task(self._kernel.prog, 1))

    @remembered(UNTIL_RESUMED)
    def _find_threads(self) -> Sequence[Thread]:
        if not self._kernel.has_types:
            return self._nameless()
        with self._kernel.reading("the tasks on the CPUs"):
            crashed = self._crashed_cpu()
            # A panic takes the other CPUs offline as they are.
            cpus = online_cpus(self._kernel) if crashed is None else present_cpus(self._kernel)
            threads = [self._thread_on(cpu, cpu == crashed) for cpu in cpus]
        return tuple(sorted(threads, key=lambda thread: not thread.crashed))

    def _thread_on(self, cpu: int, crashed: bool) -> Thread:
        """The task on a CPU. A dump's notes have its registers even if the dump does not contain its task's memory."""
        try:
            return self._thread_of(helpers.cpu_curr(self._kernel.prog, cpu), cpu=cpu, crashed=crashed)
        except drgn.FaultError as error:
            if self._kernel.live or self._cpus is None or not self._cpus.of(cpu):
                raise
            why = f"its task_struct cannot be read: {self._kernel.fault_words(error)}"
            return Thread(-1, "", cpu, crashed, None, why)

    def _nameless(self) -> Sequence[Thread]:
        """A thread for each CPU whose registers are known, if there is no debug information to find the tasks."""
        cpus = self._cpus.numbers() if self._cpus is not None else ()
        threads = tuple(Thread(-1, "", cpu, False, None) for cpu in cpus)
        if not threads:
            raise TargetError(
                "finding tasks and their registers needs the kernel's types, and there is neither DWARF nor BTF"
            )
        return threads

    def _crashed_cpu(self) -> int | None:
        """The CPU that panicked, or that started the crash kernel; None if none did."""
        if self._kernel.live:
            return None
        for name in ("panic_cpu", "crashing_cpu"):
            try:
                value = self._kernel.prog[name]
            except LookupError:
                continue
            with suppress(AttributeError):
                value = value.counter  # an atomic_t
            cpu: int = value.value_()
            if cpu >= 0:  # PANIC_CPU_INVALID is -1
                return cpu
        return None

    def _thread_of(self, task: Any, *, cpu: int | None = None, crashed: bool = False) -> Thread:
        if cpu is None and helpers.task_on_cpu(task):
            cpu = helpers.task_cpu(task)
        comm = task.comm.string_().decode("utf-8", "backslashreplace")
        return Thread(task.pid.value_(), comm, cpu, crashed, task)

    # -- frames --------------------------------------------------------------------------------------------------------

    def frames(self) -> Sequence[Frame]:
        """The frames of the selected thread, innermost first; at least one."""
        thread = self.thread
        return self._frames(thread.task.value_() if thread.task is not None else None, thread.cpu)

    @remembered(UNTIL_RESUMED)
    def _frames(self, task: int | None, cpu: int | None) -> Sequence[Frame]:
        """The frames of the selected thread, keyed by its task_struct's address and its CPU."""
        return self._unwind(self.thread)

    @property
    def frame(self) -> Frame:
        """The selected frame."""
        frames = self.frames()
        return frames[min(self._frame, len(frames) - 1)]

    def frames_of(self, task: int) -> Sequence[Frame]:
        """The frames of the task whose task_struct is at that address, innermost first."""
        return self._frames_of(task)

    @remembered(UNTIL_RESUMED)
    def _frames_of(self, task: int) -> Sequence[Frame]:
        return self._unwind(self._thread_at(task))

    @remembered(UNTIL_RESUMED)
    def cpu_of(self, task: int) -> int | None:
        """The CPU on which the task runs whose task_struct is at that address; None if it does not run."""
        return self._thread_at(task).cpu

    def stack_pointer_on(self, cpu: int) -> int | None:
        """The stack pointer of a CPU; None if its registers are not known, or change while they are looked at."""
        if self._cpus is None:
            return None
        return self._cpus.of(cpu).get(canonical("sp", self._kernel.machine)[0])

    def _thread_at(self, task: int) -> Thread:
        with self._kernel.reading("the task"):
            return self._thread_of(drgn.Object(self._kernel.prog, "struct task_struct *", task))

    def select_frame(self, number: int) -> Frame:
        """Select a frame by its number. UsageError if the stack has no such frame."""
        frames = self.frames()
        if not 0 <= number < len(frames):
            raise UsageError(f"there is no frame {number}; the stack has 0 to {len(frames) - 1}")
        self._frame = number
        return frames[number]

    def _unwind(self, thread: Thread) -> Sequence[Frame]:
        if thread.task is None:
            if self._kernel.has_types and self._cpus is not None and thread.cpu is not None:
                try:
                    frames = self._unwind_from(thread, self._cpus.of(thread.cpu))
                except TargetError:
                    frames = ()
                if frames:
                    return frames
            return self._innermost(thread)
        if not self._kernel.live or thread.cpu is None:
            self._check_stack(thread)
            more = self._registers_in_dump(thread) if thread.cpu is not None else {}
            frames = Unwinder(self._kernel, self._stack_at).of_task(thread.task, f"the stack of {thread}", more)
        else:
            frames = self._unwind_running(thread, thread.cpu)
        if not frames:
            raise TargetError(f"the stack of {thread} has no frame that can be found")
        return frames

    def _registers_in_dump(self, thread: Thread) -> Mapping[str, int]:
        """The registers of a task's CPU in a dump. TargetError if the dump has other CPUs' only."""
        cpus, cpu = self._cpus, thread.cpu
        found = cpus.of(cpu) if cpus is not None and cpu is not None else {}
        if cpus is not None and not found:
            known: Sequence[int] = ()
            with suppress(TargetError):
                known = cpus.numbers()
            if known:
                raise TargetError(
                    f"the stack of {thread}: the dump has no registers of this CPU, which was offline or did not answer"
                )
        return found

    def _check_stack(self, thread: Thread) -> None:
        """TargetError for a task that has ended: its stack is freed before its parent asks for its status."""
        with self._kernel.reading(f"the stack of {thread}"):
            if not thread.task.stack.value_():
                raise TargetError(f"{thread} has ended: it is a zombie, whose stack is freed")

    def _innermost(self, thread: Thread) -> Sequence[Frame]:
        """The one frame that follows from registers alone."""
        registers = self._cpus.of(thread.cpu) if self._cpus is not None and thread.cpu is not None else {}
        machine = self._kernel.machine
        pc, sp = (registers.get(canonical(name, machine)[0]) for name in ("pc", "sp"))
        if pc is None or sp is None:
            raise TargetError(f"the registers of {thread} are not known")
        return (Frame(0, pc, sp, symbol_name(self._kernel, pc), ordered(registers, machine), False, True),)

    def _unwind_running(self, thread: Thread, cpu: int) -> Sequence[Frame]:
        """The frames of a CPU that may run while its stack is read: they count only if the stack did not change."""
        before = self._cpus.of(cpu) if self._cpus is not None else {}
        for _ in range(_ATTEMPTS):
            registers = before
            frames = self._unwind_from(thread, registers)
            before = self._cpus.of(cpu) if self._cpus is not None else {}
            if all(before.get(name) == registers.get(name) for name in ("rsp", "sp", "gs_base")):
                if not self._belong(thread, cpu, frames):
                    raise TargetError(f"{thread} runs there no more: CPU {cpu} has another task now")
                return frames
        # The function that it was in, with the functions inlined there.
        own = list(takewhile(lambda frame: frame.is_inline, frames))
        return (*own, *(frame._replace(alone=True) for frame in frames[len(own) : len(own) + 1]))

    def _belong(self, thread: Thread, cpu: int, frames: Sequence[Frame]) -> bool:
        """Whether a CPU's frames are those of a task: the CPU may have gone to another one since it was asked."""
        size = thread_size(self._kernel.image) if self._kernel.image is not None else None
        with self._kernel.reading(f"the stack of {thread}"):
            start = thread.task.stack.value_()
            kernels = [frame.sp for frame in frames if self._kernel.word.is_kernel(frame.sp)]
            if size is not None and any(start <= sp <= start + size for sp in kernels):
                return True
            current: bool = helpers.cpu_curr(self._kernel.prog, cpu).value_() == thread.task.value_()
            return current

    def _unwind_from(self, thread: Thread, registers: Mapping[str, int]) -> Sequence[Frame]:
        frames = Unwinder(self._kernel, self._stack_at).of_registers(registers, f"the stack of {thread}")
        if frames is None:
            raise TargetError(
                f"{thread} is running: its registers are in the CPU, so there is no stack trace of it "
                "(sleeping tasks have one)"
            )
        return frames


def task_with_id(kernel: Kernel, tid: int) -> drgn.Object:
    """The task with that ID in the init namespace. UsageError if there is none; drgn's errors if it is unreadable."""
    # drgn takes no negative numbers, nor those of more than 64 bits.
    task = helpers.find_task(kernel.prog, tid) if 0 <= tid <= _MAX_PID else None
    if not task:
        raise UsageError(f"no task has the ID {tid}")
    return task
