"""readelf's names for types and flags, so that a user who compares with readelf finds the same ones.

Sources: the ELF gABI (chapters "Section Header", "Program Header") and what GNU readelf 2.40 prints.
"""

from __future__ import annotations

from kplug.arch import registry
from kplug.image.elf.section_flags import SHF_EXCLUDE, SHF_GNU_RETAIN, SHF_MASKOS, SHF_MASKPROC

# The letter of each single flag.
_FLAG_LETTERS = {
    0x1: "W",
    0x2: "A",
    0x4: "X",
    0x10: "M",
    0x20: "S",
    0x40: "I",
    0x80: "L",
    0x100: "O",
    0x200: "G",
    0x400: "T",
    0x800: "C",
    SHF_EXCLUDE: "E",
}
# The e_ident[EI_OSABI] values under which 0x200000 means "keep this section" (GNU and FreeBSD).
_RETAINING_OS = frozenset((3, 9))

# readelf's own names, by number or by pyelftools' name.
_SECTION_TYPES = {
    "SHT_AMD64_UNWIND": "X86_64_UNWIND",
    "SHT_GNU_verdef": "VERDEF",
    "SHT_GNU_verneed": "VERNEED",
    "SHT_GNU_versym": "VERSYM",
    # The bounds of the reserved ranges, which pyelftools reports as names.
    "SHT_LOOS": "LOOS+0",
    "SHT_LOPROC": "LOPROC+0",
    "SHT_LOUSER": "LOUSER+0",
}
_SEGMENT_TYPES = {"PT_ARM_EXIDX": "EXIDX", "PT_MIPS_ABIFLAGS": "ABIFLAGS", 0x6474E554: "GNU_SFRAME"}


def section_type_name(sh_type: str | int) -> str:
    """The type as readelf prints it; `sh_type` is pyelftools' name, or the number if it has none."""
    if isinstance(sh_type, str):
        return _SECTION_TYPES.get(sh_type) or sh_type.removeprefix("SHT_")
    return _ranged(sh_type, ((0x80000000, "LOUSER"), (0x70000000, "LOPROC"), (0x60000000, "LOOS"))) or (
        f"{sh_type:08x}: <unknown>"
    )


def segment_type_name(p_type: str | int, machine: str) -> str:
    """The type as readelf prints it; `p_type` is pyelftools' name, or the number if it has none."""
    known = _SEGMENT_TYPES.get(p_type)
    if known is None and isinstance(p_type, int):
        known = registry.named(machine).elf.segment_types.get(p_type)
    if known is not None:
        return known
    if isinstance(p_type, str):
        number = {"PT_LOOS": 0x60000000, "PT_LOPROC": 0x70000000}.get(p_type)
        if number is None:
            return p_type.removeprefix("PT_")
        p_type = number
        of_machine = registry.named(machine).elf.segment_types
        if p_type in of_machine:
            return of_machine[p_type]
    return _ranged(p_type, ((0x70000000, "LOPROC"), (0x60000000, "LOOS"))) or f"<unknown>: {p_type:x}"


def _ranged(number: int, ranges: tuple[tuple[int, str], ...]) -> str | None:
    """A number of a reserved range as the range's name and the distance into it; C's %#x writes 0 as 0."""
    for low, name in ranges:
        if number >= low:
            return f"{name}+{number - low:#x}" if number > low else f"{name}+0"
    return None


def section_flag_letters(sh_flags: int, machine: str, os_abi: int) -> str:
    """The flags as the letters readelf prints, lowest bit first. All OS-specific or processor-specific bits without a
    letter of their own become a single `o` or `p`; after it, no other letters of that range are printed.
    """
    of_machine = registry.named(machine).elf.flag_letters
    letters = ""
    while sh_flags:
        bit = sh_flags & -sh_flags
        sh_flags &= ~bit
        if bit in _FLAG_LETTERS:
            letters += _FLAG_LETTERS[bit]
        elif bit == SHF_GNU_RETAIN and os_abi in _RETAINING_OS:
            letters += "R"
        elif bit in of_machine:
            letters += of_machine[bit]
        elif bit & SHF_MASKOS:
            letters += "o"
            sh_flags &= ~SHF_MASKOS
        elif bit & SHF_MASKPROC:
            letters += "p"
            sh_flags &= ~SHF_MASKPROC
        else:
            letters += "x"
    return letters


def segment_flag_letters(p_flags: int) -> str:
    """Program header flags in readelf's three columns, without trailing blanks: "R E", "RW", "RWE"."""
    columns = ("R" if p_flags & 4 else " ", "W" if p_flags & 2 else " ", "E" if p_flags & 1 else " ")
    return "".join(columns).rstrip()
