"""The task on the CPU that a debugger has selected: the one that was running there when the CPU stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Optional

from kplug.arch.registers import canonical
from kplug.errors import TargetError
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.threads.cpu_registers import CpuRegisters
from kplug.runtime.threads.selection import Thread

# The number of the selected CPU, or its registers pc and sp, by which it is found among those of a dump; None for none.
Selected = Callable[[], Optional["int | Mapping[str, int]"]]
_NONE = Thread(-1, "", None, False, None)


class TaskOnCpu:
    """A `kplug.runtime.threads.user_space.Choice`. `cpus` has the registers of a dump's CPUs."""

    def __init__(self, kernel: Kernel, selected: Selected, cpus: CpuRegisters | None) -> None:
        self._kernel = kernel
        self._selected = selected
        self._cpus = cpus

    @property
    def thread(self) -> Thread:
        """The task; without one where the CPU is not known. TargetError if it cannot be read."""
        cpu = self._cpu()
        if cpu is None:
            return _NONE
        with self._kernel.reading(f"the task on CPU {cpu}"):
            task = helpers.cpu_curr(self._kernel.prog, cpu)
            comm = task.comm.string_().decode("utf-8", "backslashreplace")
            return Thread(task.pid.value_(), comm, cpu, False, task)

    def _cpu(self) -> int | None:
        selected = self._selected()
        if selected is None or isinstance(selected, int):
            return selected
        if self._cpus is None:
            return None
        wanted = {canonical(name, self._kernel.machine)[0]: value for name, value in selected.items()}
        try:
            found = [cpu for cpu in self._cpus.numbers() if wanted.items() <= self._cpus.of(cpu).items()]
        except TargetError:
            return None
        return found[0] if len(found) == 1 else None
