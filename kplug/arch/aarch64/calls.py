"""Call instructions."""

from __future__ import annotations

from collections.abc import Iterator

from kplug.arch.types.registers import Call, Calls

_MASK = (1 << 64) - 1


def _before(code: bytes, address: int) -> Iterator[Call]:
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


CALLS = Calls(4, _before)
