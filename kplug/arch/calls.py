"""Whether the instruction that ends at an address is a call: what tells return addresses from what only looks so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Call(NamedTuple):
    """A way to read the bytes before an address as a call: its length, and its target where the bytes tell."""

    length: int
    target: int | None


# How many bytes before a return address are looked at: the longest call, and architectures whose calls are known.
REACH = {"x86_64": 7, "aarch64": 4}

_MASK = (1 << 64) - 1


def calls_before(code: bytes, address: int, machine: str) -> Iterator[Call]:
    """The calls that the bytes before an address may be; `code` ends there. Nothing for an unknown architecture.

    x86 has instructions of several lengths, so bytes of another instruction may read as a call too.
    """
    readings = _READINGS.get(machine)
    return iter(()) if readings is None else readings(code, address)


def _x86_calls(code: bytes, address: int) -> Iterator[Call]:
    """CALL rel32 and CALL r/m64 (Intel SDM vol. 2, "CALL"); prefixes before them change nothing here."""
    if len(code) >= 5 and code[-5] == 0xE8:
        relative = int.from_bytes(code[-4:], "little", signed=True)
        yield Call(5, address + relative & _MASK)
    for length in range(2, min(len(code), 7) + 1):
        if code[-length] == 0xFF and _near_call_length(code[len(code) - length + 1 :]) == length - 1:
            yield Call(length, None)


def _near_call_length(operand: bytes) -> int | None:
    """The bytes that ModR/M, SIB and displacement of FF /2 take; None if it is another instruction (SDM vol. 2, 2.1.5).

    REX.B reaches no further than the choice of register: r12 needs a SIB byte and r13 a displacement as rsp and rbp do.
    """
    modrm = operand[0]
    if modrm >> 3 & 7 != 2:
        return None
    mode, base = modrm >> 6, modrm & 7
    if mode == 3:
        return 1
    length = 1
    if base == 4:
        if len(operand) < 2:
            return None
        length, base = 2, operand[1] & 7
    displacement = (4 if base == 5 else 0, 1, 4)[mode]
    return length + displacement


def _arm64_calls(code: bytes, address: int) -> Iterator[Call]:
    """BL, BLR, BLRAA and its kin (Arm ARM, C4.1.65 "Branches, Exception Generating and System instructions")."""
    if len(code) < 4 or address & 3:
        return
    instruction = int.from_bytes(code[-4:], "little")
    if instruction >> 26 == 0b100101:
        offset = instruction & 0x3FFFFFF
        offset -= (offset & 0x2000000) << 1
        yield Call(4, address - 4 + 4 * offset & _MASK)
    elif instruction & 0xFEFFF000 == 0xD63F0000 and instruction & 0xC00 in (0x000, 0x800, 0xC00):
        yield Call(4, None)


_READINGS: dict[str, Callable[[bytes, int], Iterator[Call]]] = {"x86_64": _x86_calls, "aarch64": _arm64_calls}
