"""Names of registers: the usual order, aliases, parts of registers, and the bits of flags."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from kplug.arch.registry import declared, named
from kplug.arch.types.registers import Registers

_LOW = (1 << 32) - 1
_NONE = Registers((), {}, {}, (), (), {})


def registers_of(machine: str) -> Registers:
    """What the architecture declares; empty if it declares nothing."""
    declared = named(machine).registers
    return declared() if declared is not None else _NONE


@cache
def monitor_names() -> Mapping[str, str]:
    """The registers of all architectures, as QEMU's monitor spells them; no two share a spelling."""
    known = (each.registers() for each in declared() if each.registers is not None)
    return {spelling: name for each in known for spelling, name in each.monitor.items()}


def canonical(name: str, machine: str) -> tuple[str, int]:
    """The register that a name means, and the mask for the named part of its value."""
    name = name.lower()
    known = registers_of(machine)
    if name in known.halves:
        return known.halves[name], _LOW
    return known.aliases.get(name, name), named(machine).address_mask


def is_register(name: str, machine: str) -> bool:
    """Whether the architecture has a register of that name, whether or not the target gives its value."""
    return canonical(name, machine)[0] in registers_of(machine).order


def ordered(values: Mapping[str, int], machine: str) -> dict[str, int]:
    """The values by canonical name, in the architecture's usual order; registers not in that order come last."""
    by_name = {canonical(name, machine)[0]: value for name, value in values.items()}
    return {**{name: by_name[name] for name in registers_of(machine).order if name in by_name}, **by_name}


def flag_names(register: str, value: int, machine: str) -> list[str] | None:
    """The names of the set bits, high to low, and fields with their value; None if it is not a register of flags.

    A bit without a name is called by its number.
    """
    declared = named(machine).flag_names
    return declared()(canonical(register, machine)[0], value) if declared is not None else None
