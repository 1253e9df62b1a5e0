"""Registers, and the bits of PSTATE."""

from __future__ import annotations

from kplug.arch.types.registers import Registers, bit_names, set_bits

_ORDER = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")
REGISTERS = Registers(
    order=_ORDER,
    aliases={"fp": "x29", "lr": "x30", "cpsr": "pstate"},
    halves={f"w{number}": f"x{number}" for number in range(31)},
    user_regs=_ORDER,  # struct user_pt_regs, with which struct pt_regs begins
    pt_regs=_ORDER,
    monitor={**{f"X{number:02}": f"x{number}" for number in range(31)}, "SP": "sp", "PC": "pc", "PSTATE": "pstate"},
)

# Arm ARM, C5.2.18 "SPSR_EL1": the same layout.
_PSTATE = bit_names(". . . . . . F I A D . . SSBS . . . . . . . IL SS PAN UAO DIT TCO . . V C Z N")
_EXCEPTION_LEVELS = {0: "EL0t", 4: "EL1t", 5: "EL1h", 8: "EL2t", 9: "EL2h"}


def flag_names(name: str, value: int) -> list[str] | None:
    """See `FlagNames`."""
    if name != "pstate":
        return None
    mode = value & 0xF
    fields = ["AArch32" if value & 0x10 else _EXCEPTION_LEVELS.get(mode, f"M={mode:#x}")]
    if value >> 10 & 3:
        fields.append(f"BTYPE={value >> 10 & 3}")
    return [*set_bits(value & ~0xC1F, _PSTATE), *fields]
