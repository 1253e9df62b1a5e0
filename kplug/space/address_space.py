"""The virtual memory map of a kernel: `address_space(machine, facts)`."""

from __future__ import annotations

from kplug.arch import registry
from kplug.arch.types.memory_map import KERNEL, NON_CANONICAL, TOP, USER, AddressSpace, AddressSpaceFacts, Area

__all__ = [
    "KERNEL",
    "NON_CANONICAL",
    "TOP",
    "USER",
    "AddressSpace",
    "AddressSpaceFacts",
    "Area",
    "address_space",
    "machines",
]


def machines() -> tuple[str, ...]:
    """The machines that have a map."""
    return tuple(architecture.name for architecture in registry.declared() if architecture.memory_map is not None)


def address_space(machine: str, facts: AddressSpaceFacts | None = None) -> AddressSpace | None:
    """The map of a kernel, from the known `facts`; None if no map is declared for the machine, or these give none."""
    memory_map = registry.named(machine).memory_map
    return None if memory_map is None else memory_map(facts or AddressSpaceFacts())
