"""The target's kernel if gdb has no file of it: its symbols from the kallsyms in its memory."""

from __future__ import annotations

import time
from collections.abc import Iterator

from kplug.errors import KplugError, TargetError
from kplug.image.kallsyms.tables import KallsymsNotFoundError
from kplug.image.placement import as_it_runs, moved_by
from kplug.memory.image_search import RunningKernel, find_kernel
from kplug.memory.kallsyms_image import image_from_memory
from kplug.memory.kaslr_offset import Checker
from kplug.memory.reading import FaultError, Read
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug_gdb import machine, registers, vector_tables
from kplug_gdb.corefile import CoreFile, current_core
from kplug_gdb.settings import SETTINGS
from kplug_gdb.views import CoreView, KernelTablesView, LiveView, PhysicalCoreView, View, may_be_isolated
from kplug_gdb.waiting import doing

_PLACE = "memory"
# After this many bytes Ctrl-C is handled, and the speed is known.
_PIECE = 1 << 14
# Distributions' kernels, from 5.10 to 7.x, took 3 to 6 MiB.
_USUAL_BYTES = 6 << 20
_PATIENCE_SECONDS = 60.0


class _StoppedError(KplugError):
    """The search cannot go on, as opposed to errors that only mean that nothing is mapped."""


class _Reader:
    """A view's memory; reading ends if it would take long."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._started = time.monotonic()
        self._read = 0

    def read(self, address: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                data += self._view.read(address + len(data), min(_PIECE, size - len(data)))
            except FaultError:
                raise
            except TargetError as error:
                raise _StoppedError(str(error)) from None
            if size > _PIECE:
                self._told(min(_PIECE, size))
        return data

    def _told(self, size: int) -> None:
        self._read += size
        taken = time.monotonic() - self._started
        expected = taken * _USUAL_BYTES / self._read
        if SETTINGS.kallsyms == "auto" and expected > _PATIENCE_SECONDS and taken > 1.0:
            raise _StoppedError(
                f"reading its symbols from memory would take some {expected / 60:.0f} minutes here "
                "(`set kplug kallsyms on` does it)"
            )


def searched_machine() -> str | None:
    """gdb's architecture for the target; None if kplug does not know where to begin in such a kernel."""
    found = machine.architecture()
    return found.name if found is not None and (found.memory_map or found.vector_table) is not None else None


def search() -> tuple[RunningKernel, View]:
    """The kernel in the target's memory, and how that memory is read. TargetError says why there is none."""
    if SETTINGS.kallsyms == "off":
        raise TargetError("its memory is not searched (`set kplug kallsyms auto`)")
    core = current_core()
    try:
        with doing("reading the kernel's symbols from memory"):
            return _in_core(core) if core is not None else _in_live_target()
    except _StoppedError as error:
        raise TargetError(str(error)) from None


def _in_core(core: CoreFile) -> tuple[RunningKernel, View]:
    view: View = PhysicalCoreView(core) if core.physical_only else CoreView(core)
    read = _Reader(view).read
    info = VmcoreInfo(core.vmcoreinfo)
    image = image_from_memory(read, info, core.machine, core.path) if info else None
    if image is not None:
        kaslr_offset = SETTINGS.kaslr_offset if SETTINGS.kaslr_offset is not None else info.kaslr_offset
        if kaslr_offset is None:
            placement = as_it_runs(image.extents, "the core's VMCOREINFO does not have the KASLR offset")
        else:
            placement = moved_by(image.extents, kaslr_offset, "KERNELOFFSET of the core's VMCOREINFO")
        return RunningKernel(image, placement, Checker(image)), view
    try:
        return _found(core.machine, read, core.path), view
    except KallsymsNotFoundError as error:
        raise TargetError(f"none is found in {core.path}: {error}") from None


def _in_live_target() -> tuple[RunningKernel, View]:
    kind = searched_machine()
    if kind is None:
        name = machine.name()
        raise TargetError(
            f"none is looked for in memory, because gdb's architecture for the target is {name} (`set architecture`)"
        )
    declared = machine.architecture()
    taken, orders = machine.word().order, declared.byte_orders if declared is not None else ()
    if taken not in orders:
        usual = " or ".join(orders)
        raise TargetError(
            f"none is looked for in memory, because gdb takes the target for {taken}-endian (`set endian {usual}`)"
        )
    pc = registers.program_counter()
    if not registers.paging() or registers.in_startup():
        where = f" (the CPU is at {pc:#x}, in firmware or startup code)" if pc is not None else ""
        raise TargetError(f"none runs yet{where}")
    why = ""
    for view in _views():
        try:
            return _found(kind, _Reader(view).read, _PLACE, pc), view
        except KallsymsNotFoundError as error:
            why = str(error)
    if registers.privileged() is False:
        why += "; the CPU is in user mode: stop it in the kernel"
    raise TargetError(f"none is found in memory: {why}")


def _found(kind: str, read: Read, place: str, pc: int | None = None) -> RunningKernel:
    return find_kernel(read, kind, vector_tables.kernel_code(kind, read, pc), place, kaslr_offset=SETTINGS.kaslr_offset)


def _views() -> Iterator[View]:
    """As for a vmlinux, except that the plain view comes last if the CPU may map hardly any of the kernel."""
    if may_be_isolated():
        yield KernelTablesView()
    yield LiveView()
