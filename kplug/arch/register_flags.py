"""The names of the bits of flag and control registers."""

from __future__ import annotations

from collections.abc import Mapping

from kplug.arch.registers import canonical


def _bits(names: str) -> dict[int, str]:
    """Bit number -> name, of names given from bit 0 on; a dot is a bit without one."""
    return {bit: name for bit, name in enumerate(names.split()) if name != "."}


# Intel SDM vol. 1, 3.4.3 "EFLAGS Register"; vol. 3, 2.5 "Control Registers"; EFER: AMD APM vol. 2, 3.1.7.
_EFLAGS = _bits("CF . PF . AF . ZF SF TF IF DF OF . . NT . RF VM AC VIF VIP ID")
_CR0 = _bits("PE MP EM TS ET NE . . . . . . . . . . WP . AM . . . . . . . . . . NW CD PG")
_CR4 = _bits(
    "VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP LA57 VMXE SMXE . "
    "FSGSBASE PCIDE OSXSAVE KL SMEP SMAP PKE CET PKS UINTR . . LAM_SUP . . . FRED"
)
_EFER = _bits("SCE . . . . . . . LME . LMA NXE SVME LMSLE FFXSR TCE . MCOMMIT INTWB . UAIE AIBRSE")
# Arm ARM, C5.2.18 "SPSR_EL1": the same layout.
_PSTATE = _bits(". . . . . . F I A D . . SSBS . . . . . . . IL SS PAN UAO DIT TCO . . V C Z N")
_EXCEPTION_LEVELS = {0: "EL0t", 4: "EL1t", 5: "EL1h", 8: "EL2t", 9: "EL2h"}

_BITS: Mapping[str, Mapping[str, Mapping[int, str]]] = {
    "x86_64": {"eflags": _EFLAGS, "cr0": _CR0, "cr4": _CR4, "efer": _EFER},
    "aarch64": {"pstate": _PSTATE},
}
_CR3_ADDRESS = 0x000FFFFFFFFFF000


def flag_names(register: str, value: int, machine: str) -> list[str] | None:
    """The names of the bits that are set, high to low, fields with their value; None if it is no such register.

    A bit that has no name is called by its number.
    """
    name, _ = canonical(register, machine)
    if name == "cr3" and machine == "x86_64":
        # The low bits are a PCID or PCD and PWT, as CR4 has it.
        low = [f"low bits {value & 0xFFF:#x}"] if value & 0xFFF else []
        return [f"page tables at physical {value & _CR3_ADDRESS:#x}", *low]
    if name == "cr8" and machine == "x86_64":
        return [f"priority {value:#x}"]
    names = _BITS.get(machine, {}).get(name)
    if names is None:
        return None
    fields: list[str] = []
    if name == "eflags":
        fields = [f"IOPL={value >> 12 & 3}"] if value >> 12 & 3 else []
        value &= ~(0x3000 | 2)  # IOPL; bit 1 is always set
    elif name == "pstate":
        mode = value & 0xF
        fields = ["AArch32" if value & 0x10 else _EXCEPTION_LEVELS.get(mode, f"M={mode:#x}")]
        if value >> 10 & 3:
            fields.append(f"BTYPE={value >> 10 & 3}")
        value &= ~0xC1F
    bits = [bit for bit in range(value.bit_length() - 1, -1, -1) if value >> bit & 1]
    return [*(names.get(bit, f"bit {bit}") for bit in bits), *fields]
