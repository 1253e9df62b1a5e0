"""The instruction at which a report's access faulted, and what it accessed: as its operand and the registers say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kplug.frozen import Frozen, replace
from kplug.log.machine_code import architecture_of, disassembler, in_memory, text_of

if TYPE_CHECKING:
    from kplug.arch.types.machine_code import MachineCode
    from kplug.arch.types.record import Architecture
    from kplug.log.event import Event

# Types of events that are an access which faulted, at the instruction that the report marks.
_FAULTS = frozenset(("null-deref", "page-fault", "gpf"))
# The fault address of an access across two pages may be where the second one begins.
_PAGE, _WIDEST = 4096, 64
# Of capstone: CS_OP_MEM, which is a flag since 6; CS_AC_READ, CS_AC_WRITE.
_MEMORY = frozenset((3, 0x80))
_BOTH = "read and write"
_ACCESS = {1: "read", 2: "write", 3: _BOTH}


class Operand(Frozen):
    """A memory operand. `base` and `index` are registers as the log names them, None if there are none; their values
    are None if the log does not have them. `address` is what follows from them; None if it does not. `access` is
    "read", "write", "read and write", or None if that is not known."""

    base: str | None
    base_value: int | None
    index: str | None
    index_value: int | None
    scale: int
    displacement: int
    segment: str | None
    address: int | None
    access: str | None


class Faulting(Frozen):
    """The instruction that a report marks, and of one whose access faulted what it accessed.

    `operand` is None if the event is no such fault, or if it is not clear which operand faulted. `agrees`: whether its
    address is that which the log states; None if one of them is not known.
    """

    text: str
    operand: Operand | None = None
    agrees: bool | None = None


def faulting_instruction(event: Event, machine: str = "") -> Faulting | None:
    """The marked instruction of an event; `machine`: of this architecture, where the registers do not tell.

    None without machine code in the report, without capstone, or if the architecture is not known.
    """
    if event.code is None or event.code.marked is None:
        return None
    architecture = architecture_of(event, machine)
    if architecture is None or architecture.machine_code is None:
        return None
    of = architecture.machine_code()
    tool = disassembler(of, event.code.unit)
    raw = next(tool.disasm(in_memory(event.code, of)[event.code.marked :], 0, 1), None) if tool is not None else None
    if raw is None:
        return None
    text = text_of(raw, of)
    if event.type not in _FAULTS or event.access == "execute" or re.match(of.passive, raw.mnemonic) is not None:
        return Faulting(text)
    registers = _Registers(event.registers, architecture)
    found = [registers.operand(made, access) for made, access in _operands(raw, of)]
    if event.address is None:
        return Faulting(text, found[0] if len(found) == 1 and _is_no_address(found[0], event) else None)
    agreeing = [each for each in found if _agree(each.address, event.address, architecture, of)]
    if agreeing:
        return Faulting(text, replace(agreeing[0], access=event.access or agreeing[0].access), True)
    if len(found) != 1:
        return Faulting(text)
    return Faulting(text, found[0], None if found[0].address is None else False)


def _is_no_address(operand: Operand, event: Event) -> bool:
    """Whether the operand is why the event is: without an address in the log, it must be one that faults so."""
    if operand.address is None or event.type != "gpf":
        return False
    top = operand.address >> 56
    return top not in (0, 0xFF)


def _agree(address: int | None, stated: int, architecture: Architecture, of: MachineCode) -> bool:
    if address is None:
        return False
    mask = architecture.address_mask
    if architecture.top_byte_tags:
        mask >>= 8
    address, stated = address & mask & -of.fault_page, stated & mask & -of.fault_page
    return address == stated or (not stated % _PAGE and 0 < stated - address < _WIDEST)


class _Address(Frozen):
    """How an instruction makes an address, in the disassembler's names. `is_plain`: it is the sum of these."""

    base: str | None
    index: str | None = None
    scale: int = 1
    displacement: int = 0
    segment: str | None = None
    is_plain: bool = True


def _operands(raw: Any, of: MachineCode) -> Iterator[tuple[_Address, str | None]]:
    """The memory operands of an instruction, and how it accesses each."""
    if of.operand is not None:
        match = re.search(of.operand, raw.op_str)
        if match is not None:
            words = match.groupdict()
            base = None if words["base"] in of.zero else words["base"]
            yield _Address(base, words.get("index"), 1, int(words["displacement"] or "0", 0)), _access(raw, of)
        return
    for each in raw.operands:
        if each.type not in _MEMORY:
            continue
        memory = each.mem
        base, index, segment = (
            raw.reg_name(number) if number else None
            for number in (memory.base, memory.index, getattr(memory, "segment", 0))
        )
        shift = getattr(each, "shift", None)
        yield (
            _Address(
                base,
                index,
                getattr(memory, "scale", 1) << (shift.value if shift is not None else 0),
                memory.disp,
                segment if segment in of.segments else None,
                not getattr(each, "ext", 0) and not getattr(each, "subtracted", False) and base != of.program_counter,
            ),
            _access(raw, of) if of.stores is not None else _stated_access(raw, each, of),
        )


def _stated_access(raw: Any, operand: Any, of: MachineCode) -> str | None:
    """How an instruction accesses an operand, as capstone says."""
    access = _ACCESS.get(operand.access)
    is_destination = operand is raw.operands[-1]
    if access == "read" and is_destination and re.match(of.reads, raw.mnemonic) is None:
        return None
    return access


def _access(raw: Any, of: MachineCode) -> str | None:
    """How an instruction accesses memory, by its mnemonic."""
    if of.stores is None or re.match(of.both, raw.mnemonic) is not None:
        return _BOTH
    return "write" if re.match(of.stores, raw.mnemonic) is not None else "read"


class _Registers:
    """The registers of a report, by the disassembler's names for them."""

    def __init__(self, registers: Mapping[str, int], architecture: Architecture) -> None:
        self._names = {re.sub(r"(?<=^r)0(?=\d$)", "", name.lower()): name for name in registers}
        self._values = registers
        self._mask = architecture.address_mask

    def _find(self, name: str | None) -> tuple[str | None, int | None]:
        """The register's name in the log, or that of the disassembler where the log has none, and its value."""
        known = self._names.get(name) if name is not None else None
        return (name, None) if known is None else (known, self._values[known] & self._mask)

    def operand(self, made: _Address, access: str | None) -> Operand:
        """The operand with the values that its registers have."""
        base, base_value = self._find(made.base)
        index, index_value = self._find(made.index)
        segment, segment_value = self._find(made.segment)
        is_known = made.is_plain and (base is None or base_value is not None)
        if (index is not None and index_value is None) or (segment is not None and segment_value is None):
            is_known = False
        total = (base_value or 0) + (index_value or 0) * made.scale + made.displacement + (segment_value or 0)
        address = total & self._mask if is_known else None
        return Operand(base, base_value, index, index_value, made.scale, made.displacement, segment, address, access)
