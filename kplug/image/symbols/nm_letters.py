"""What nm's letter of a symbol ought to be by the region that it lies in.

nm tells text from data by the flags of the section. Since the code of relocate_kernel lies in .data (cb33ff9e063c,
6.14), that section of x86_64 is executable, and nm, System.map and kallsyms call all that is in it text.
"""

from __future__ import annotations

from kplug import model
from kplug.linker.regions import RegionTree

_LETTER_OF_CLASS = {
    model.TEXT: "t",
    model.RODATA: "r",
    model.DATA: "d",
    model.BSS: "b",
    model.BRK: "b",
    model.PERCPU_CLASS: "d",
}
# Regions of code that lie among data.
_CODE = frozenset(("relocate_kernel",))


def place_letter(regions: RegionTree, address: int) -> str | None:
    """The lower-case letter for a link address; None where its region says nothing, or both (init holds all kinds)."""
    if any(region.name in _CODE for region in regions.chain(address)):
        return "t"
    return _LETTER_OF_CLASS.get(regions.region_class(address) or "")
