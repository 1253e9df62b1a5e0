"""Whether the instruction that ends at an address is a call: what tells return addresses from what only looks so."""

from __future__ import annotations

from collections.abc import Iterator

from kplug.arch.registry import named
from kplug.arch.types.registers import Call


def call_reach(machine: str) -> int:
    """How many bytes before a return address are looked at; 0 for an architecture whose calls are not declared."""
    calls = named(machine).calls
    return calls().reach if calls is not None else 0


def calls_before(code: bytes, address: int, machine: str) -> Iterator[Call]:
    """The calls that the bytes before an address may be; `code` ends there. Nothing for an unknown architecture.

    x86 has instructions of several lengths, so bytes of another instruction may read as a call too.
    """
    calls = named(machine).calls
    return calls().before(code, address) if calls is not None else iter(())
