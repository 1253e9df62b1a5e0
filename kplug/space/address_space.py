"""The virtual memory map of a kernel: `address_space(machine, facts)`."""

from __future__ import annotations

from importlib import import_module

from kplug.arch.memory_map import KERNEL, NON_CANONICAL, TOP, USER, AddressSpace, Area, Facts

__all__ = ["KERNEL", "NON_CANONICAL", "TOP", "USER", "AddressSpace", "Area", "Facts", "address_space", "machines"]

# The one place where an architecture is registered: the module whose `address_space(facts)` is its table. Only the
# one asked for is loaded.
_TABLES = {
    "x86_64": "kplug.arch.x86_64_memory_map",
    "aarch64": "kplug.arch.arm64_memory_map",
}


def machines() -> tuple[str, ...]:
    """The machines that have a table."""
    return tuple(_TABLES)


def address_space(machine: str, facts: Facts | None = None) -> AddressSpace | None:
    """The map of a kernel of which `facts` are known; None where there is no table for the machine."""
    table = _TABLES.get(machine)
    if table is None:
        return None
    space: AddressSpace = import_module(table).address_space(facts or Facts())
    return space
