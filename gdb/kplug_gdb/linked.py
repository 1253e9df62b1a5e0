"""gdb's expressions under KASLR: as long as gdb's own symbols are not moved, their addresses are link addresses.

`&init_task.comm` then has the right value but for the slide; `init_task.stack` reads the wrong memory.
"""

from __future__ import annotations

import enum
import re

from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug_gdb import objfiles

# An address taken without reading memory: casts, &, a name, members and constant indexes, an offset.
_ADDRESS_OF = re.compile(
    r"\s*(?:\([\w\s*]+\)\s*)*&\s*(?:'[^']*'::)?\w+(?:\.\w+|\[\s*\d+\s*\])*\s*(?:[+-]\s*(?:0x[0-9a-fA-F]+|\d+)\s*)?"
)
_TAG = re.compile(r"\b(?:struct|union|enum)\s+\w+")
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'(?!::)")
# Names that stand for themselves: no register, no member.
_NAME = re.compile(r"(?<![\w$.])(?<!->)[A-Za-z_]\w*")


class Place(enum.Enum):
    """Where what gdb evaluates really is: the same place, at the slide from there, or not to be told."""

    SAME = "same"
    MOVED = "moved"
    UNKNOWN = "unknown"


def place_of(expression: str, kernel: PlacedImage) -> Place:
    """How the value of a gdb expression relates to memory, for a kernel in its place."""
    if not kernel.placement.slide or not _names_symbols(expression, kernel):
        return Place.SAME
    applied = applied_slide(kernel.image)
    if applied is None or applied == kernel.placement.slide:
        return Place.SAME
    return Place.MOVED if applied == 0 and _ADDRESS_OF.fullmatch(expression) else Place.UNKNOWN


def _names_symbols(expression: str, kernel: PlacedImage) -> bool:
    text = _TAG.sub(" ", _STRING.sub(" ", expression))
    return any(kernel.image.symbols.indexes_of(name) for name in set(_NAME.findall(text)))


def applied_slide(image: KernelImage) -> int | None:
    """How far gdb itself has moved the kernel's symbols (modulo 2**64); None if gdb has none of them."""
    section = next((s for s in image.sections if s.occupies_addresses and s.executable and s.address), None)
    return None if section is None else objfiles.applied_slide(image.path, section.name, section.address)
