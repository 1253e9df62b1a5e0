"""x86 instructions, of 64 and of 32 bits."""

from __future__ import annotations

import re

from kplug.arch.types.machine_code import MachineCode
from kplug.frozen import replace

_SHIFTS = frozenset(("shl", "shr", "sar", "rol", "ror", "rcl", "rcr", "shld", "shrd"))
# Mnemonics that capstone gives a suffix for the size of their operands, and objdump only where no register tells it.
_SIZED = frozenset(
    (
        *(
            "mov",
            "movabs",
            "movbe",
            "xchg",
            "xadd",
            "cmpxchg",
            "lea",
            "in",
            "out",
            "ins",
            "outs",
            "stos",
            "lods",
            "scas",
        ),
        *("add", "sub", "adc", "sbb", "cmp", "inc", "dec", "neg", "mul", "imul", "div", "idiv", "bswap"),
        *("and", "or", "xor", "not", "test", *_SHIFTS),
        *("bt", "bts", "btr", "btc", "bsf", "bsr", "tzcnt", "lzcnt", "popcnt"),
    )
)
# Those that need none, as they have one size in a mode.
_UNSIZED = frozenset(("call", "jmp", "ret", "push", "pop", "pushf", "popf", "leave"))
_PREFIXED = re.compile(r"(?P<prefixes>(?:(?:lock|rep(?:n?[ez])?|notrack|xacquire|xrelease) )*)(?P<name>\S+)$")
_NUMBER = re.compile(r"(?<![\w%])(?P<dollar>\$?)(?P<value>-?(?:0x[0-9a-f]+|\d+))(?![\w)])")
_MEMORY = re.compile(r"\((?P<base>%\w+)?(?:, ?(?P<index>%\w+)(?:, ?(?P<scale>\d))?)?\)")
# A register that tells the size of the operands: no segment, and no count of a shift.
_SIZING = re.compile(r"(?:^|, )%(?!\w+:)")
_COUNT = re.compile(r"^%cl, ")
_BITS = {"b": 8, "w": 16, "l": 32, "q": 64}


def _memory(match: re.Match[str]) -> str:
    index = match.group("index")
    inner = f",{index},{match.group('scale') or 1}" if index is not None else ""
    return f"({match.group('base') or ''}{inner})"


def written(mnemonic: str, operands: str) -> str:
    """As objdump -d writes it."""
    match = _PREFIXED.match(mnemonic)
    prefixes, name = (match.group("prefixes"), match.group("name")) if match is not None else ("", mnemonic)
    stem, suffix = name[:-1], name[-1]
    bits = 64
    if suffix in _BITS and (stem in _UNSIZED or stem in _SIZED or stem.startswith("cmov")):
        bits = _BITS[suffix]
        sizing = _COUNT.sub("", operands) if stem in _SHIFTS else operands
        if stem in _UNSIZED or _SIZING.search(_MEMORY.sub("", sizing)) is not None:
            name = stem

    def number(match: re.Match[str]) -> str:
        value = int(match.group("value"), 0)
        if match.group("dollar"):
            return f"${value & ((1 << bits) - 1):#x}"
        return f"{value:#x}"

    operands = _MEMORY.sub(_memory, operands)
    parts = re.split(r"(\([^)]*\))", operands)  # of what is in brackets, the scale is no such number
    parts[::2] = [_NUMBER.sub(number, part) for part in parts[::2]]
    return f"{prefixes}{name} {''.join(parts).replace(', ', ',')}".rstrip()


MACHINE_CODE = MachineCode(
    capstone=("CS_ARCH_X86",),
    modes=("CS_MODE_64",),
    telling=frozenset(("RAX", "RSP", "RIP")),
    shortest=1,
    longest=15,
    syntax="CS_OPT_SYNTAX_ATT",
    segments=frozenset(("fs", "gs")),
    program_counter="rip",
    reads=r"(?:\w+ )?(?:cmp(?!xchg)|test|bt[wlq]?$|scas|call|jmp|push|i?mul|i?div|ldmxcsr|l[gi]dt)",
    passive="lea|nop|prefetch|invlpg",
    written=written,
)
MACHINE_CODE_32 = replace(MACHINE_CODE, modes=("CS_MODE_32",), telling=frozenset(("EAX", "ESP", "EIP")))
