"""Call instructions."""

from __future__ import annotations

from collections.abc import Iterator

from kplug.arch.types.registers import Call, Calls

_MASK = (1 << 64) - 1
_FAR_RETURN = b"\x48\xcb"


def _before(code: bytes, address: int) -> Iterator[Call]:
    """CALL rel32 and CALL r/m64 (Intel SDM vol. 2, "CALL"); prefixes before them do not matter here.

    A CPU's first code pushes the address after a far return to C, for unwinders to find (head_64.S, up to 6.6).
    """
    if code.endswith(_FAR_RETURN):
        yield Call(len(_FAR_RETURN), None)
    if len(code) >= 5 and code[-5] == 0xE8:
        relative = int.from_bytes(code[-4:], "little", signed=True)
        yield Call(5, address + relative & _MASK)
    for length in range(2, min(len(code), 7) + 1):
        if code[-length] == 0xFF and _near_call_length(code[len(code) - length + 1 :]) == length - 1:
            yield Call(length, None)


def _near_call_length(operand: bytes) -> int | None:
    """The size of ModR/M, SIB and displacement of FF /2; None if it is another instruction (SDM vol. 2, 2.1.5).

    REX.B only changes the choice of register: r12 needs a SIB byte and r13 a displacement, as rsp and rbp do.
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


CALLS = Calls(7, _before)
