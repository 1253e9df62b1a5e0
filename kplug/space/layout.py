"""The virtual memory map of a kernel: `address_space(machine, facts)`."""

from __future__ import annotations

from typing import Callable

from kplug.space import arm64, x86_64
from kplug.space.area import KERNEL, NON_CANONICAL, TOP, USER, AddressSpace, Area, Facts

__all__ = ["KERNEL", "NON_CANONICAL", "TOP", "USER", "AddressSpace", "Area", "Facts", "address_space", "machines"]

# The one place where an architecture is registered.
_TABLES: dict[str, Callable[[Facts], AddressSpace]] = {
    "x86_64": x86_64.address_space,
    "aarch64": arm64.address_space,
}


def machines() -> tuple[str, ...]:
    """The machines that have a table."""
    return tuple(_TABLES)


def address_space(machine: str, facts: Facts | None = None) -> AddressSpace | None:
    """The map of a kernel of which `facts` are known; None where there is no table for the machine."""
    table = _TABLES.get(machine)
    return None if table is None else table(facts or Facts())
