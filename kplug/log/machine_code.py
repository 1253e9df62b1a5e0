"""The instructions in the machine code of a report: which architecture's they are, and disassembled with capstone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from kplug.arch.registry import declared
from kplug.arch.types.word import BIG, WIDEST_MASK
from kplug.named_tuples import NamedTuple

if TYPE_CHECKING:
    from kplug.arch.types.machine_code import MachineCode
    from kplug.arch.types.record import Architecture
    from kplug.log.event import Code, Event

_LOW = 1 << 32
_SPACE = re.compile(r"\s+")


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


def architecture_of(event: Event) -> Architecture | None:
    """Whose instructions the event's are, by the registers in the report; None if these do not tell."""
    found = []
    for each in declared():
        if each.machine_code is not None and not each.machine_code().telling.isdisjoint(event.registers):
            found.append(each)
    if len(found) > 1:  # one architecture in two widths
        is_wide = max(event.registers.values()) >= _LOW
        found = [each for each in found if (each.bits > 32) == is_wide]
    return found[0] if len(found) == 1 else None


@cache
def disassembler(code: MachineCode, unit: int) -> Any:
    """Capstone for instructions of an architecture, in units of so many bytes; None without it."""
    capstone = _capstone()
    if capstone is None:
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
    and are a guess as far as the function does not begin among them. None without capstone.
    """
    if code.marked is None:
        return ()
    tool, data, marked = disassembler(of, code.unit), in_memory(code, of), code.marked
    if tool is None:
        return ()
    begin = 0
    before: list[Instruction] = []
    if of.shortest == of.longest:
        before = list(_decoded(tool, of, data[:marked], -marked))
    else:
        if into_function is not None and 0 <= into_function <= marked:
            begin = marked - into_function
            known = _whole(tool, of, data[begin:marked], begin - marked)
            if known is None:
                begin = marked
            else:
                before = known
        else:
            begin = marked
        before = [*_aligned(tool, of, data[:begin], begin - marked), *before]
    return [*before, *_decoded(tool, of, data[marked:], 0)]


def _aligned(tool: Any, of: MachineCode, data: bytes, end: int) -> list[Instruction]:
    """Instructions that end where the bytes do, from as near to their beginning as there are such."""
    for skipped in range(0, min(of.longest, len(data)), of.shortest):
        found = _whole(tool, of, data[skipped:], end - len(data) + skipped)
        if found is not None:
            return [each._replace(guess=True) for each in found]
    return []


def _whole(tool: Any, of: MachineCode, data: bytes, offset: int) -> list[Instruction] | None:
    """The instructions, if the bytes are some, and all."""
    found = list(_decoded(tool, of, data, offset))
    return found if all(each.text for each in found) else None


def _decoded(tool: Any, of: MachineCode, data: bytes, offset: int) -> Iterator[Instruction]:
    at = 0
    while at < len(data):
        for raw in tool.disasm(data[at:], (offset + at) & WIDEST_MASK):
            yield Instruction(offset + at, bytes(raw.bytes), text_of(raw, of))
            at += raw.size
        if at < len(data):  # no instruction; how long it is, only those tell that are all of one length
            length = of.longest if of.shortest == of.longest else len(data) - at
            yield Instruction(offset + at, data[at : at + length], "")
            at += length


def text_of(raw: Any, of: MachineCode) -> str:
    """What the kernel's own tools print of an instruction of capstone's."""
    if of.written is not None:
        return of.written(raw.mnemonic, raw.op_str)
    return _SPACE.sub(" ", f"{raw.mnemonic} {raw.op_str}").strip()
