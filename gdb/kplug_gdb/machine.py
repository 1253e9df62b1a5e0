"""The target's machine, as gdb takes it."""

from __future__ import annotations

from functools import cache

import gdb
from kplug.arch.registry import by_gdb, named
from kplug.arch.types.record import Architecture
from kplug.arch.types.word import WordFormat


def name() -> str:
    """What gdb calls it."""
    return str(gdb.selected_inferior().architecture().name())


def architecture() -> Architecture | None:
    """The declared architecture; None if there is none of that name."""
    return _called(name())


def core_name() -> str:
    """The core's name of it; empty if it has none."""
    declared = architecture()
    return declared.name if declared is not None else ""


@cache
def _called(text: str) -> Architecture | None:
    return by_gdb(text)


def word() -> WordFormat:
    """How the target has its words."""
    return (architecture() or named("")).word(little_endian=_is_little_endian())


def mask() -> int:
    """All bits of a word."""
    return (architecture() or named("")).address_mask


def is_kernel(address: int) -> bool:
    """Whether an address may be the kernel's, by its highest bit."""
    return (architecture() or named("")).word().is_kernel(address)


def _is_little_endian() -> bool:
    """`set endian`, or what gdb chose by itself (which follows it in parentheses)."""
    return "big endian" not in str(gdb.execute("show endian", to_string=True))
