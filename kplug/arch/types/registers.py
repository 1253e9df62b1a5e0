"""What an architecture declares about its registers and its call instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kplug.frozen import Frozen


class Registers(Frozen):
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


class Call(Frozen):
    """One way to read the bytes before an address as a call: its length, and its target if the bytes contain it."""

    length: int
    target: int | None


class Calls(Frozen):
    """Call instructions. `reach` is the number of bytes to read before a return address: the longest call.

    `before` yields the possible calls in the bytes before an address; its first argument ends at the address.
    """

    reach: int
    before: Callable[[bytes, int], Iterator[Call]]


# The names of the set bits in a flag or control register, high to low; None for other registers.
FlagNames = Callable[[str, int], "list[str] | None"]


def bit_names(names: str) -> dict[int, str]:
    """Bit number -> name, from names given from bit 0 on; a dot is a bit without a name."""
    return {bit: name for bit, name in enumerate(names.split()) if name != "."}


def set_bits(value: int, names: Mapping[int, str]) -> list[str]:
    """The names of the set bits, high to low; a bit without a name is called by its number."""
    return [names.get(bit, f"bit {bit}") for bit in range(value.bit_length() - 1, -1, -1) if value >> bit & 1]
