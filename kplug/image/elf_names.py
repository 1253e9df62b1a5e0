"""The words readelf uses for types and flags, so that a user who checks us against readelf finds the same ones.

Sources: the ELF gABI (chapters "Section Header", "Program Header") and what GNU readelf 2.40 prints.
"""

from __future__ import annotations

SHF_WRITE = 0x1
SHF_ALLOC = 0x2
SHF_EXECINSTR = 0x4
SHF_TLS = 0x400
SHF_COMPRESSED = 0x800
SHF_X86_64_LARGE = 0x10000000
SHF_MASKOS = 0x0FF00000
SHF_MASKPROC = 0xF0000000
SHF_EXCLUDE = 0x80000000
SHF_GNU_RETAIN = 0x00200000

# The letter of each single flag, in the order of the bits, which is the order readelf prints them in.
_FLAG_LETTERS = (
    (0x1, "W"),
    (0x2, "A"),
    (0x4, "X"),
    (0x10, "M"),
    (0x20, "S"),
    (0x40, "I"),
    (0x80, "L"),
    (0x100, "O"),
    (0x200, "G"),
    (0x400, "T"),
    (0x800, "C"),
    (SHF_GNU_RETAIN, "R"),
    (SHF_EXCLUDE, "E"),
)

# e_machine (as pyelftools names it) to the name this project uses: the kernel's own (uname -m) where there is one.
MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_386": "i386",
    "EM_AARCH64": "aarch64",
    "EM_ARM": "arm",
    "EM_RISCV": "riscv",
    "EM_S390": "s390",
    "EM_PPC": "ppc",
    "EM_PPC64": "ppc64",
    "EM_MIPS": "mips",
    "EM_LOONGARCH": "loongarch",
    "EM_SPARCV9": "sparc64",
    "EM_PARISC": "parisc",
}


def section_type_name(sh_type: str | int) -> str:
    """The type as readelf prints it; `sh_type` is pyelftools' name, or the number where it knows none."""
    if isinstance(sh_type, str):
        return sh_type[4:] if sh_type.startswith("SHT_") else sh_type
    for low, name in ((0x80000000, "LOUSER"), (0x70000000, "LOPROC"), (0x60000000, "LOOS")):
        if sh_type >= low:
            return f"{name}+{sh_type - low:#x}"
    return f"{sh_type:08x}: <unknown>"


def section_flag_letters(sh_flags: int, machine: str) -> str:
    """The flags as the letters readelf prints, lowest bit first."""
    letters = []
    known = 0
    for bit, letter in _FLAG_LETTERS:
        known |= bit
        if sh_flags & bit:
            letters.append((bit, letter))
    rest = sh_flags & ~known
    if machine == "x86_64" and rest & SHF_X86_64_LARGE:
        letters.append((SHF_X86_64_LARGE, "l"))
        rest &= ~SHF_X86_64_LARGE
    # readelf folds every other OS or processor bit into one letter each, and what remains into "x".
    for mask, letter in ((SHF_MASKOS, "o"), (SHF_MASKPROC, "p"), (~(SHF_MASKOS | SHF_MASKPROC), "x")):
        bits = rest & mask
        if bits:
            letters.append((bits & -bits, letter))
    return "".join(letter for _, letter in sorted(letters))


def segment_type_name(p_type: str | int) -> str:
    """The type as readelf prints it; `p_type` is pyelftools' name, or the number where it knows none."""
    if isinstance(p_type, str):
        return p_type[3:] if p_type.startswith("PT_") else p_type
    for low, name in ((0x70000000, "LOPROC"), (0x60000000, "LOOS")):
        if p_type >= low:
            return f"{name}+{p_type - low:#x}"
    return f"<unknown>: {p_type:x}"


def segment_flag_letters(p_flags: int) -> str:
    """Program header flags in readelf's three columns, without trailing blanks: "R E", "RW", "RWE"."""
    columns = ("R" if p_flags & 4 else " ", "W" if p_flags & 2 else " ", "E" if p_flags & 1 else " ")
    return "".join(columns).rstrip()
