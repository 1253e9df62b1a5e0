"""The architecture of a drgn Program by kplug's name, and vice versa."""

from __future__ import annotations

import drgn

from kplug.arch import registry
from kplug.arch.types.word import WordFormat

#: In a Program's cache: where its memory begins, by what its page tables were found with.
RAM_START = "kplug.ram_start"


def machine_of(prog: drgn.Program) -> str:
    """The architecture of the program; empty if drgn does not know it yet."""
    if prog.platform is None:
        return ""
    name = prog.platform.arch.name
    architecture = registry.by_drgn(name)
    return name.lower() if architecture is None else architecture.name


def word_of(prog: drgn.Program) -> WordFormat:
    """How the target has its words, as drgn says; the usual way of the architecture where drgn does not know it yet."""
    architecture = registry.named(machine_of(prog))
    if prog.platform is None:
        return architecture.word()
    flags = prog.platform.flags
    bits = 64 if flags & drgn.PlatformFlags.IS_64_BIT else 32
    return architecture.word(bits, bool(flags & drgn.PlatformFlags.IS_LITTLE_ENDIAN))


def platform_of(machine: str, little_endian: bool | None = None) -> drgn.Platform | None:
    """The architecture as drgn's enumerator, with its usual byte order if none is given; None if this drgn does not
    know it."""
    name = registry.named(machine).names.drgn
    if name not in drgn.Architecture.__members__:
        return None
    usual = drgn.Platform(drgn.Architecture[name])
    if little_endian is None:
        return usual
    flags = usual.flags & ~drgn.PlatformFlags.IS_LITTLE_ENDIAN
    return drgn.Platform(usual.arch, flags | drgn.PlatformFlags.IS_LITTLE_ENDIAN if little_endian else flags)
