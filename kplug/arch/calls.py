"""Whether the instruction that ends at an address is a call, which is what precedes a return address."""

from __future__ import annotations

from collections.abc import Iterator

from kplug.arch.registry import named
from kplug.arch.types.registers import Call


def call_reach(machine: str) -> int:
    """The number of bytes to read before a return address; 0 if the architecture declares no calls."""
    calls = named(machine).calls
    return calls().reach if calls is not None else 0


def calls_before(code: bytes, address: int, machine: str) -> Iterator[Call]:
    """The possible calls in the bytes before an address, where `code` ends. None for an unknown architecture.

    On x86, where instructions differ in length, bytes of another instruction may look like a call.
    """
    calls = named(machine).calls
    return calls().before(code, address) if calls is not None else iter(())
