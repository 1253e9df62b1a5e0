"""Registers, and the bits of flag and control registers."""

from __future__ import annotations

from kplug.arch.types.registers import Registers, bit_names, set_bits

# In the order of gdb's `info registers` (gdb/features/i386/64bit-core.xml, 64bit-segments.xml; QEMU's i386-64bit.xml
# adds the control registers), with drgn's names (libdrgn/arch_x86_64_defs.py) for the same.
_ORDER = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *(f"r{number}" for number in range(8, 16)),
    *("rip", "eflags", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base", "k_gs_base"),
    *("cr0", "cr2", "cr3", "cr4", "cr8", "efer"),
)

_USER_REGS = (
    # "": orig_rax, which is not a register
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", ""),
    *("rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)

REGISTERS = Registers(
    order=_ORDER,
    aliases={
        "pc": "rip",
        "ip": "rip",
        "sp": "rsp",
        "fp": "rbp",
        "rflags": "eflags",
        "fs.base": "fs_base",
        "gs.base": "gs_base",
        "kernel_gs_base": "k_gs_base",
    },
    halves={
        **{f"e{name[1:]}": name for name in (*_ORDER[:8], "rip")},
        **{f"{name}d": name for name in _ORDER[8:16]},
    },
    user_regs=_USER_REGS,
    pt_regs=_USER_REGS[:21],  # up to ss
    monitor={"RFL": "eflags", **{name.upper(): name for name in _ORDER if name not in ("eflags", "k_gs_base")}},
    system=frozenset(("k_gs_base", "cr0", "cr2", "cr3", "cr4", "cr8", "efer")),
)

# Intel SDM vol. 1, 3.4.3 "EFLAGS Register"; vol. 3, 2.5 "Control Registers"; EFER: AMD APM vol. 2, 3.1.7.
_EFLAGS = bit_names("CF . PF . AF . ZF SF TF IF DF OF . . NT . RF VM AC VIF VIP ID")
_CR0 = bit_names("PE MP EM TS ET NE . . . . . . . . . . WP . AM . . . . . . . . . . NW CD PG")
_CR4 = bit_names(
    "VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP LA57 VMXE SMXE . "
    "FSGSBASE PCIDE OSXSAVE KL SMEP SMAP PKE CET PKS UINTR . . LAM_SUP . . . FRED"
)
_EFER = bit_names("SCE . . . . . . . LME . LMA NXE SVME LMSLE FFXSR TCE . MCOMMIT INTWB . UAIE AIBRSE")
_BITS = {"eflags": _EFLAGS, "cr0": _CR0, "cr4": _CR4, "efer": _EFER}
_CR3_ADDRESS = 0x000FFFFFFFFFF000


def flag_names(name: str, value: int) -> list[str] | None:
    """See `FlagNames`."""
    if name == "cr3":
        # The low bits are a PCID, or PCD and PWT, depending on CR4.
        low = [f"low bits {value & 0xFFF:#x}"] if value & 0xFFF else []
        return [f"page tables at physical {value & _CR3_ADDRESS:#x}", *low]
    if name == "cr8":
        return [f"priority {value:#x}"]
    names = _BITS.get(name)
    if names is None:
        return None
    fields: list[str] = []
    if name == "eflags":
        fields = [f"IOPL={value >> 12 & 3}"] if value >> 12 & 3 else []
        value &= ~(0x3000 | 2)  # IOPL; bit 1 is always set
    return [*set_bits(value, names), *fields]
