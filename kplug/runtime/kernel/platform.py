"""The architecture of a drgn Program, by kplug's name, and the other way round."""

from __future__ import annotations

import drgn

from kplug.arch import registry


def machine_of(prog: drgn.Program) -> str:
    """The architecture of the program; empty where drgn does not know it yet."""
    if prog.platform is None:
        return ""
    name = prog.platform.arch.name
    architecture = registry.by_drgn(name)
    return name.lower() if architecture is None else architecture.name


def platform_of(machine: str) -> drgn.Platform | None:
    """The architecture as drgn takes it; None if this drgn does not know it."""
    name = registry.named(machine).names.drgn
    return drgn.Platform(drgn.Architecture[name]) if name in drgn.Architecture.__members__ else None
