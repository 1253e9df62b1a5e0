"""The letter that nm prints for a symbol, and the correct one for the region that the symbol is in.

nm distinguishes text from data by the flags of the section. Since the code of relocate_kernel is in .data
(cb33ff9e063c, 6.14), that section is executable on x86_64, and nm, System.map and kallsyms call everything in it text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

from kplug import model
from kplug.image.elf.sections import Section
from kplug.image.symbols.symbol import (
    SHN_ABS,
    SHN_COMMON,
    SHN_UNDEF,
    STB_GLOBAL,
    STB_GNU_UNIQUE,
    STB_WEAK,
    STT_GNU_IFUNC,
    STT_OBJECT,
)
from kplug.linker.regions import RegionTree

# Gives the correct lower-case letter for a symbol at a link address; None if it is not known.
LetterByRegion = Callable[[int], Optional[str]]

_LETTER_OF_CLASS = {
    model.TEXT: "t",
    model.RODATA: "r",
    model.DATA: "d",
    model.BSS: "b",
    model.BRK: "b",
    model.PERCPU_CLASS: "d",
}
# Regions of code inside data.
_CODE = frozenset(("relocate_kernel",))


def letter_by_region(regions: RegionTree, address: int) -> str | None:
    """The lower-case letter for a link address; None if its region does not decide (init holds all kinds)."""
    if any(region.name in _CODE for region in regions.chain(address)):
        return "t"
    return _LETTER_OF_CLASS.get(regions.region_class(address) or "")


def symbol_letter(info: int, section_index: int, sections: Sequence[Section]) -> str:
    """The letter nm prints (binutils' bfd_decode_symclass): the section decides, the case gives the binding."""
    kind, binding = info & 0xF, info >> 4
    if section_index == SHN_COMMON:
        return "C"
    if section_index == SHN_UNDEF:
        return ("v" if kind == STT_OBJECT else "w") if binding == STB_WEAK else "U"
    if kind == STT_GNU_IFUNC:
        return "i"
    if binding == STB_WEAK:
        return "V" if kind == STT_OBJECT else "W"
    if binding == STB_GNU_UNIQUE:
        return "u"
    if section_index == SHN_ABS:
        letter = "a"
    else:
        letter = section_letter(sections[section_index]) if section_index < len(sections) else "?"
    return letter.upper() if binding == STB_GLOBAL else letter


# Section names that decide nm's letter regardless of flags (binutils' coff_section_type; numbered forms count too).
_NAMED_SECTION_LETTERS = ((".drectve", "i"), (".edata", "e"), (".idata", "i"), (".pdata", "p"))


def section_letter(section: Section) -> str:
    """nm's lower-case letter for a symbol of that section."""
    for name, letter in _NAMED_SECTION_LETTERS:
        if section.name.startswith(name) and section.name[len(name) : len(name) + 1] in ("", ".", "$", *"0123456789"):
            return letter
    if section.executable:
        return "t"
    if section.allocated and section.type == "NOBITS":
        return "b"
    if section.allocated:
        return "d" if section.writable else "r"
    if section.name.startswith((".debug", ".gnu.linkonce.wi.", ".line", ".stab", ".gdb_index")):
        return "N"
    return "n" if section.type != "NOBITS" and not section.writable else "?"
