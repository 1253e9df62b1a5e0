"""The instructions in the machine code of a report: which architecture's they are, and disassembled with capstone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from kplug.arch.registry import declared, find
from kplug.arch.types.word import BIG, WIDEST_BITS
from kplug.named_tuples import NamedTuple

if TYPE_CHECKING:
    from kplug.arch.types.machine_code import MachineCode
    from kplug.arch.types.record import Architecture
    from kplug.log.event import Code, Event

_LOW = 1 << 32
_SPACE = re.compile(r"\s+")
_LAST_NUMBER = re.compile(r"(?<![*\w])#?(?P<value>-?(?:0x[0-9a-f]+|\d+))$")
_BRANCHES = (1, 2, 7)  # of capstone: CS_GRP_JUMP, CS_GRP_CALL, CS_GRP_BRANCH_RELATIVE


class Instruction(NamedTuple):
    """An instruction. `offset` counts from the marked one; `guess`: where it begins follows from nothing in the log.
    `text` is what the kernel's own tools print of it; "" for bytes that are no instruction."""

    offset: int
    data: bytes
    text: str
    guess: bool = False


@cache
def _capstone() -> Any:
    """The disassembler; None without it."""
    try:
        import capstone
    except ImportError:
        return None
    return capstone


def has_disassembler() -> bool:
    """Whether capstone is there."""
    return _capstone() is not None


def architecture_of(event: Event, machine: str = "") -> Architecture | None:
    """Whose instructions the event's are, by the names of registers in the report, else those of `machine`; None if
    neither tells."""
    names = {*event.registers, event.stated.get("pointer", "")}
    found = []
    for each in declared():
        if each.machine_code is not None and not each.machine_code().telling.isdisjoint(names):
            found.append(each)
    if len(found) > 1:  # one architecture in two widths
        is_wide = max(event.registers.values(), default=0) >= _LOW
        found = [each for each in found if (each.bits > 32) == is_wide]
    if not found and (known := find(machine)) is not None and known.machine_code is not None:
        return known
    return found[0] if len(found) == 1 else None


@cache
def disassembler(code: MachineCode, unit: int) -> Any:
    """Capstone for instructions of an architecture, in units of so many bytes; None without it, or if the kernel prints
    them in other units."""
    capstone = _capstone()
    if capstone is None or unit not in (code.shortest, code.longest):
        return None
    number = next((getattr(capstone, name) for name in code.capstone if hasattr(capstone, name)), None)
    if number is None:
        return None
    mode = 0
    for name in code.halfword_modes if unit == 2 and code.halfword_modes is not None else code.modes:
        mode |= getattr(capstone, name)
    made = capstone.Cs(number, mode)
    made.detail = True
    if code.syntax is not None:
        made.syntax = getattr(capstone, code.syntax)
    return made


def in_memory(code: Code, declared: MachineCode) -> bytes:
    """The bytes as they are in memory: the kernel prints units of several as numbers."""
    if code.unit == 1 or declared.order == BIG:
        return code.data
    units = (code.data[start : start + code.unit] for start in range(0, len(code.data), code.unit))
    return b"".join(unit[::-1] for unit in units)


def instructions(code: Code, of: MachineCode, into_function: int | None = None) -> Sequence[Instruction]:
    """The instructions, in their order. `into_function`: the marked one is so far in its function, where one begins.

    Before the marked one an instruction may begin anywhere, if they differ in length: those are taken that end at it,
    and are a guess as far as the function does not begin among them. Without capstone there are none.
    """
    tool = disassembler(of, code.unit)
    if code.marked is None or tool is None:
        return ()
    reader, data, marked = _Reader(tool, of, code.unit), in_memory(code, of), code.marked
    after = reader.read(data[marked:], 0)
    if reader.is_even:
        return [*reader.read(data[:marked], -marked), *after]
    known: Sequence[Instruction] = ()
    begin = marked
    if into_function is not None and 0 <= into_function <= marked:
        begin = marked - into_function
        known = reader.read(data[begin:marked], -into_function)
        if not _are_whole(known):
            begin, known = marked, ()
    return [*reader.read_back(data[:begin], begin - marked), *known, *after]


def _are_whole(found: Sequence[Instruction]) -> bool:
    return all(each.text for each in found)


class _Reader:
    """Reads instructions. `is_even`: all are of the size of a unit."""

    def __init__(self, tool: Any, of: MachineCode, unit: int) -> None:
        self._tool = tool
        self._of = of
        self._unit = unit
        self.is_even = unit == of.longest

    def read(self, data: bytes, offset: int) -> Sequence[Instruction]:
        """The instructions that begin with the bytes."""
        found = []
        at = 0
        while at < len(data):
            raw = next(self._tool.disasm(data[at : at + self._of.longest], 0, 1), None)
            length = raw.size if raw is not None else self._unit if self.is_even else len(data) - at
            text = text_of(raw, self._of) if raw is not None else ""
            found.append(Instruction(offset + at, data[at : at + length], text))
            at += length
        return found

    def read_back(self, data: bytes, end: int) -> Sequence[Instruction]:
        """Instructions that end where the bytes do, from as near to their beginning as there are such."""
        for skipped in range(0, min(self._of.longest, len(data)), self._of.shortest):
            found = self.read(data[skipped:], end - len(data) + skipped)
            if _are_whole(found):
                return [each._replace(guess=True) for each in found]
        return ()


def text_of(raw: Any, of: MachineCode) -> str:
    """What the kernel's own tools print of an instruction, which capstone has read as one at 0: for a place that is
    counted from the instruction `.+0x10`, as the assembler has it."""
    operands = raw.op_str
    match = _LAST_NUMBER.search(operands)
    if match is not None and (any(map(raw.group, _BRANCHES)) or re.match(of.relative, raw.mnemonic) is not None):
        at = "(. & ~0xfff)" if re.match(of.page_relative, raw.mnemonic) is not None else "."
        operands = f"{operands[: match.start()]}{at}{_signed(int(match.group('value'), 0)):+#x}"
    if of.written is not None:
        return of.written(raw.mnemonic, operands)
    return _SPACE.sub(" ", f"{raw.mnemonic} {operands}").strip()


def _signed(value: int) -> int:
    """A distance, which may be backwards, from a number of 32 or of 64 bits."""
    bits = 32 if value < 1 << 32 else WIDEST_BITS
    return value - (1 << bits) if value >= 1 << (bits - 1) else value
