"""What an architecture declares of its registers and of its call instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple


class Registers(NamedTuple):
    """Names of registers. `order` is the usual one; `system` are those that no function call changes.

    `aliases` are other names (`$pc`, `$sp` and `$fp` are gdb's, on every architecture) and `halves` the names of the
    lower 32 bits, each with the register that has it. `user_regs` is the order in pr_reg of a PRSTATUS note (struct
    user_regs_struct), `pt_regs` that of struct pt_regs, from which drgn unwinds; "" is a place that is no register.
    `monitor` is how QEMU's monitor spells them (target/*/cpu-dump.c, cpu.c).
    """

    order: tuple[str, ...]
    aliases: Mapping[str, str]
    halves: Mapping[str, str]
    user_regs: tuple[str, ...]
    pt_regs: tuple[str, ...]
    monitor: Mapping[str, str]
    system: frozenset[str] = frozenset()


class Call(NamedTuple):
    """A way to read the bytes before an address as a call: its length, and its target where the bytes tell."""

    length: int
    target: int | None


class Calls(NamedTuple):
    """Call instructions. `reach` is how many bytes before a return address are looked at: the longest call.

    `before` yields the calls that the bytes before an address may be; its first argument ends at the address.
    """

    reach: int
    before: Callable[[bytes, int], Iterator[Call]]


# The names of the bits that are set in a flag or control register, high to low; None for another register.
FlagNames = Callable[[str, int], "list[str] | None"]


def bit_names(names: str) -> dict[int, str]:
    """Bit number -> name, of names given from bit 0 on; a dot is a bit without one."""
    return {bit: name for bit, name in enumerate(names.split()) if name != "."}


def set_bits(value: int, names: Mapping[int, str]) -> list[str]:
    """The names of the bits that are set, high to low; one without a name by its number."""
    return [names.get(bit, f"bit {bit}") for bit in range(value.bit_length() - 1, -1, -1) if value >> bit & 1]
