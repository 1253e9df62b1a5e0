"""Names of registers: their usual order, other names for them, and parts of them."""

from __future__ import annotations

from collections.abc import Mapping

_MASK = (1 << 64) - 1
_LOW = (1 << 32) - 1

# In the order of gdb's `info registers` (gdb/features/i386/64bit-core.xml, 64bit-segments.xml; QEMU's i386-64bit.xml
# adds the control registers), with drgn's names (libdrgn/arch_x86_64_defs.py) for the same.
_X86_64 = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *(f"r{number}" for number in range(8, 16)),
    *("rip", "eflags", "cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base", "k_gs_base"),
    *("cr0", "cr2", "cr3", "cr4", "cr8", "efer"),
)
_ARM64 = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")
ORDER: Mapping[str, tuple[str, ...]] = {"x86_64": _X86_64, "aarch64": _ARM64}

# Those that no function call changes.
SYSTEM = frozenset(("k_gs_base", "cr0", "cr2", "cr3", "cr4", "cr8", "efer"))

# What else a register is called -> its name here. $pc, $sp and $fp are gdb's, on every architecture.
_ALIASES: Mapping[str, Mapping[str, str]] = {
    "x86_64": {
        "pc": "rip",
        "ip": "rip",
        "sp": "rsp",
        "fp": "rbp",
        "rflags": "eflags",
        "fs.base": "fs_base",
        "gs.base": "gs_base",
        "kernel_gs_base": "k_gs_base",
    },
    "aarch64": {"fp": "x29", "lr": "x30", "cpsr": "pstate"},
}
# The lower halves.
_HALVES: Mapping[str, Mapping[str, str]] = {
    "x86_64": {
        **{f"e{name[1:]}": name for name in (*_X86_64[:8], "rip")},
        **{f"{name}d": name for name in _X86_64[8:16]},
    },
    "aarch64": {f"w{number}": f"x{number}" for number in range(31)},
}


def canonical(name: str, machine: str) -> tuple[str, int]:
    """The register that a name means, and the mask that makes its value the named part's."""
    name = name.lower()
    halves = _HALVES.get(machine, {})
    if name in halves:
        return halves[name], _LOW
    return _ALIASES.get(machine, {}).get(name, name), _MASK


def is_register(name: str, machine: str) -> bool:
    """Whether the architecture has a register of that name, whatever the target gives of it."""
    return canonical(name, machine)[0] in ORDER.get(machine, ())


def ordered(values: Mapping[str, int], machine: str) -> dict[str, int]:
    """The values by canonical name, in the architecture's usual order; what the order does not know comes last."""
    named = {canonical(name, machine)[0]: value for name, value in values.items()}
    order = ORDER.get(machine, ())
    return {**{name: named[name] for name in order if name in named}, **named}
