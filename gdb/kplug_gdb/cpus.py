"""The CPUs of a guest: to gdb they are the threads of QEMU's stub, which numbers them from 1 on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import gdb
from kplug.errors import TargetError
from kplug_gdb import physical, registers


class GuestRegisters:
    """The registers of each CPU (`kplug.runtime.threads.cpu_registers.CpuRegisters`), of QEMU's stub alone."""

    def __init__(self, machine: str) -> None:
        self._machine = machine

    def of(self, cpu: int) -> Mapping[str, int]:
        thread = _threads().get(cpu)
        if thread is None:
            return {}
        try:
            with _selected(thread):
                return registers.in_pt_regs(self._machine)
        except gdb.error as error:
            raise TargetError(f"the registers of CPU {cpu}: {str(error).strip().splitlines()[0]}") from None

    def numbers(self) -> Sequence[int]:
        return sorted(_threads())


def selected_cpu() -> int | None:
    """The number of the selected thread's CPU; None if threads are no CPUs."""
    thread = gdb.selected_thread()
    return _cpu_of(thread) if thread is not None and physical.stub_has_it() else None


def _threads() -> Mapping[int, gdb.InferiorThread]:
    if not physical.stub_has_it():
        return {}
    return {_cpu_of(thread): thread for thread in gdb.selected_inferior().threads()}


def _cpu_of(thread: gdb.InferiorThread) -> int:
    return thread.ptid[1] - 1


@contextmanager
def _selected(thread: gdb.InferiorThread) -> Iterator[None]:
    """Inside, that thread is selected; then what the user selected is again."""
    before = gdb.selected_thread()
    if before is None or before.ptid == thread.ptid:
        yield
        return
    frame = gdb.selected_frame()
    thread.switch()
    try:
        yield
    finally:
        before.switch()
        with suppress(gdb.error):
            frame.select()
