"""gdb's expressions under KASLR: as long as gdb's own symbols are not moved, their addresses are link addresses.

Then `&init_task.comm` has the right value except for the KASLR offset, and `init_task.stack` reads the wrong memory.
"""

from __future__ import annotations

import enum
import re

import gdb
from kplug.arch.types import word
from kplug.arch.types.word import WIDEST_MASK
from kplug.commands.status import KASLR
from kplug.errors import ExpressionError
from kplug.image.kernel_image import KernelImage
from kplug.image.placed import PlacedImage
from kplug_gdb import objfiles
from kplug_gdb.names import shown

# An address taken without reading memory: casts, &, a name, members and constant indexes, an offset.
_ADDRESS_OF = re.compile(
    r"\s*(?:\([\w\s*]+\)\s*)*&\s*(?:'[^']*'::)?\w+(?:\.\w+|\[\s*\d+\s*\])*\s*(?:[+-]\s*(?:0x[0-9a-fA-F]+|\d+)\s*)?"
)
_CAST = re.compile(r"\([\w\s]+\*+\s*\)")
_TAG = re.compile(r"\b(?:struct|union|enum)\s+\w+")
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'(?!::)")
_NUMBER = re.compile(r"(?<![\w.$])(?:0[xX][0-9a-fA-F]+|[1-9][0-9]*)(?![\w.])")
# Names on their own: not registers, not members.
_NAME = re.compile(r"(?<![\w$.])(?<!->)[A-Za-z_]\w*")
# A name in a source file or function, as gdb writes it.
_SCOPED = re.compile(r"(?:'[^']*'|[A-Za-z_]\w*)::[A-Za-z_]\w*")


class ValuePlace(enum.Enum):
    """Where a gdb value really is: at the same place, at the KASLR offset from there, or not known."""

    SAME = "same"
    MOVED = "moved"
    UNKNOWN = "unknown"


def place_of(expression: str, kernel: PlacedImage) -> ValuePlace:
    """How the value of a gdb expression relates to memory, for a kernel in its place."""
    if not _is_elsewhere(kernel) or not _names_symbols(expression, kernel):
        return ValuePlace.SAME
    return ValuePlace.MOVED if _ADDRESS_OF.fullmatch(expression) else ValuePlace.UNKNOWN


def _is_elsewhere(kernel: PlacedImage) -> bool:
    applied = applied_offset(kernel.image)
    return applied is not None and applied != kernel.placement.kaslr_offset


def in_place(kernel: PlacedImage) -> bool:
    """Whether gdb has the kernel's symbols, and where the kernel is."""
    return applied_offset(kernel.image) == kernel.placement.kaslr_offset


def moved(address: int, kernel: PlacedImage) -> int:
    """The place in memory of what gdb's symbols have at `address`."""
    placement = kernel.placement
    if placement.unmoved is not None and address in placement.unmoved:
        return address
    return placement.runtime(address - (applied_offset(kernel.image) or 0) & kernel.placement.mask)


def misplaced(address: int, kernel: PlacedImage) -> bool:
    """Whether gdb's symbols have something of the kernel at `address`, and the kernel is elsewhere."""
    root = kernel.image.regions.root
    if root is None or not _is_elsewhere(kernel):
        return False
    link = address - (applied_offset(kernel.image) or 0) & kernel.placement.mask
    unmoved = kernel.placement.unmoved
    return root.start <= link < root.end or (unmoved is not None and link in unmoved and link != address)


def refusal(text: str, kernel: PlacedImage) -> ExpressionError:
    """The error for something that gdb would read, or took the address of, in the wrong place."""
    applied, kaslr_offset = applied_offset(kernel.image), kernel.placement.kaslr_offset
    where = (
        f"gdb's symbols are at {signed(applied, kernel.image)}, the kernel is at {signed(kaslr_offset, kernel.image)}"
        if applied
        else "gdb would read it where the kernel was linked, not where it is"
    )
    return ExpressionError(f"{text}: {where}: `{shown(KASLR)} --apply` first")


def too_long(expression: str) -> bool:
    """Whether it has a number of more than 64 bits: gdb 13 silently uses the lower ones."""
    return any(int(number, 0) > WIDEST_MASK for number in _NUMBER.findall(_STRING.sub(" ", expression)))


def description(kernel: PlacedImage) -> str:
    """The place of gdb's own symbols, for `kaslr`."""
    applied = applied_offset(kernel.image)
    if applied is None:
        return "has no symbols of this file"
    words = f"symbols moved by {signed(applied, kernel.image)}" if applied else "symbols as linked"
    return f"{words} ({shown(KASLR)} --apply moves them)" if applied != kernel.placement.kaslr_offset else words


def may_read_memory(expression: str) -> bool:
    """Whether evaluating it may follow a pointer: `*`, `->`, `[`, except in casts and the operand of &."""
    if _ADDRESS_OF.fullmatch(expression):
        return False
    return re.search(r"\*|->|\[", _CAST.sub(" ", _STRING.sub(" ", expression))) is not None


def signed(kaslr_offset: int, image: KernelImage) -> str:
    """A KASLR offset with its sign."""
    return f"{word.signed(kaslr_offset, image.elf.word.mask):+#x}"


def _names_symbols(expression: str, kernel: PlacedImage) -> bool:
    text = _TAG.sub(" ", _STRING.sub(" ", expression))
    names = set(_NAME.findall(text))
    if any(kernel.image.symbols.indexes_of(name) for name in names):
        return True
    # gdb also knows names that no symbol table has: finish_task_switch.isra.0 is finish_task_switch in DWARF.
    return any(_is_misplaced_name(name, kernel) for name in (*names, *_SCOPED.findall(text)))


def _is_misplaced_name(name: str, kernel: PlacedImage) -> bool:
    try:
        return misplaced(int(gdb.parse_and_eval(f"&{name}")) & kernel.placement.mask, kernel)
    except (gdb.error, ValueError):
        return False  # a type, a constant, a register, or nothing


def applied_offset(image: KernelImage) -> int | None:
    """How far gdb itself has moved the kernel's symbols (modulo the machine's width); None if gdb has none of them."""
    section = next((s for s in image.sections if s.occupies_addresses and s.executable and s.address), None)
    return (
        None
        if section is None
        else objfiles.applied_offset(image.path, section.name, section.address, image.elf.word.mask)
    )
