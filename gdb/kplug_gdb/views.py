"""How the kernel's memory can be read right now: the ways, from the plain one to the indirect ones."""

from __future__ import annotations

from typing import Protocol

from kplug.frozen import Frozen
from kplug.memory.reading import FaultError
from kplug.model import UNKNOWN_STATE, State
from kplug_gdb import machine, physical, registers
from kplug_gdb.corefile import CoreFile
from kplug_gdb.reading import read_plainly


class View(Protocol):
    """One way of reading kernel memory."""

    @property
    def description(self) -> str:
        """What `kplug` reports about it."""

    @property
    def label(self) -> str:
        """What is appended to the name of a way that was tried with this view."""

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a kernel virtual address. FaultError, or another TargetError."""

    def state(self, address: int) -> State:
        """The state of an address in memory."""


class LiveView:
    """A live target, as its selected CPU sees memory."""

    description = "as the CPU sees it"
    label = ""

    def read(self, address: int, size: int) -> bytes:
        return read_plainly(address, size)

    def state(self, address: int) -> State:
        """By walking the page tables, if the stub allows it."""
        found = _walked_state(address, kernel=False) if registers.paging() else None
        return found or UNKNOWN_STATE

    def state_by_reading(self, address: int) -> State:
        """Mapped or not, by reading a byte. For memory only: reading a device's register may change or stop it."""
        if not registers.paging():
            return UNKNOWN_STATE
        try:
            read_plainly(address, 1)
        except FaultError:
            return State(mapped=False)
        return State(mapped=True)


class KernelTablesView:
    """A CPU in user mode that cannot read the kernel: through its page tables, in physical memory."""

    description = "physical, through the kernel's page tables (the CPU itself sees hardly any of it now)"
    label = ", by the kernel's page tables in physical memory"

    def read(self, address: int, size: int) -> bytes:
        tables = physical.current_tables(kernel=True)
        if tables is None:
            raise FaultError(f"nothing is mapped at {address:#x}")
        return physical.read_through(tables, address, size)

    def state(self, address: int) -> State:
        return _walked_state(address, kernel=machine.is_kernel(address)) or UNKNOWN_STATE


class CoreView(Frozen):
    """A core with virtual addresses."""

    core: CoreFile
    description: str = "the core's, by virtual address"
    label: str = ""

    def read(self, address: int, size: int) -> bytes:
        return self.core.read(address, size)

    def state(self, address: int) -> State:
        return self.core.state(address)


class PhysicalCoreView(Frozen):
    """A core with physical addresses only: the kernel image is read by its phys_base, nothing else."""

    core: CoreFile
    description: str = "the core's, by physical address only"
    label: str = ""

    def read(self, address: int, size: int) -> bytes:
        return self.core.read_image(address, size)

    def state(self, address: int) -> State:
        return UNKNOWN_STATE


#: The views of a core: its page tables, not gdb, show what was mapped.
CORES = (CoreView, PhysicalCoreView)


def _walked_state(address: int, *, kernel: bool) -> State | None:
    """Mapping and permissions from the page tables; None if they cannot be walked."""
    tables = physical.current_tables(kernel=kernel) if physical.stub_has_it() else None
    if tables is None:
        return None
    found = physical.translation(tables, address)
    if found is None:
        return State(mapped=False)
    return State(mapped=True, permissions=found.permissions, page_size=found.page_size)


def may_be_isolated() -> bool:
    """Whether the selected CPU may map hardly any of the kernel, which can be read through page tables all the same: it
    uses the user's half of a pair of page tables, or (arm, s390x) debuggers see what it may read, in user mode.
    """
    cr3 = registers.register("cr3")
    if cr3 is not None and registers.register("pswm") is None:  # s390x has a cr3 too, which means something else
        return bool(cr3 & registers.CR3_USER_TABLES) and physical.stub_has_it()
    return (
        registers.privileged() is False and physical.stub_has_it() and physical.current_tables(kernel=True) is not None
    )
