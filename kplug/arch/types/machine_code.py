"""What an architecture declares about its instructions: for the disassembler, and how the kernel prints them."""

from __future__ import annotations

from collections.abc import Callable

from kplug.arch.types.word import LITTLE, ByteOrder
from kplug.frozen import Frozen


class MachineCode(Frozen):
    """How to read the machine code in a log.

    `capstone` are the names of the architecture in capstone, newest first, `modes` those of the modes;
    `halfword_modes`, where units of the `Code:` line that have two bytes mean another one. `order` is that of the bytes
    in such a unit, as the kernel prints numbers. `shortest` and `longest` are the bytes of an instruction.

    `telling` are registers that reports of this architecture name, and of no other with declared code but the one of
    another width.

    `operand` is a pattern for the memory operand in an instruction's text, with the groups `base`, `displacement`, and
    perhaps `index`; None if capstone's own operands are whole. `zero` are registers that are no base but stand for 0,
    `segments` those whose base counts.

    The rest are patterns for mnemonics. `stores` write memory, `both` read and write it, the others read; None where
    capstone knows, which takes some that write for reading: that is believed of an operand that is not the destination,
    the last one, and of `reads`. `passive` access no memory, although they have such an operand. The last number of
    `relative`, which are no branches, is counted from the instruction, that of `page_relative` from its page.

    `written` turns capstone's mnemonic and operands into those of the kernel's own tools. `fault_page`: the fault
    address has no bits below the page.
    """

    capstone: tuple[str, ...]
    modes: tuple[str, ...]
    telling: frozenset[str]
    shortest: int
    longest: int
    order: ByteOrder = LITTLE
    halfword_modes: tuple[str, ...] | None = None
    syntax: str | None = None
    operand: str | None = None
    zero: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()
    program_counter: str | None = None
    stores: str | None = None
    reads: str = "(?!)"
    both: str = "(?!)"
    passive: str = "(?!)"
    relative: str = "(?!)"
    page_relative: str = "(?!)"
    written: Callable[[str, str], str] | None = None
    fault_page: int = 1
