"""The expressions that every front end takes: what gdb, crash and drgn users already type, and what an oops prints.

    0xffffffff81a114f4   ffffffff81a114f4   [<ffffffff81a114f4>]
    schedule   schedule+0x10   schedule+16   schedule-8   &init_task   inode.c:init_once
    schedule+0x10/0xc7   ? ext4_lookup+0x4/0x80 [ext4]   RIP: 0010:schedule+0x4/0xc7
    .rodata   .rodata+0x10

`NAME@CPU` (runqueues@1, runqueues@*), which needs memory, is read by `kplug.memory.percpu`.
What this grammar does not know (registers, C expressions) is the host's to evaluate.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kplug.errors import ExpressionError, UnplacedError
from kplug.image.images import Images
from kplug.image.placement import ADDRESS_MASK

if TYPE_CHECKING:  # the commands import this file, and must be declared where pyelftools is not installed
    from kplug.image.placed import PlacedImage
    from kplug.image.symbols.symbol import Symbol

# Symbols' names have less (KSYM_NAME_LEN is 512); a longer line of a log is no expression.
MAX_LENGTH = 4096

# As an answer says it.
_NULL = re.compile(r"NULL(?:\s*\+\s*(?P<offset>0[xX][0-9a-fA-F]+|[0-9]+))?")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
# An address as the kernel prints it: without a prefix, with the brackets of older logs.
_BARE_HEX = re.compile(r"\[?<?(?P<digits>[0-9a-fA-F]{8}|[0-9a-fA-F]{16})>?\]?")
# What follows the last + or -: the offset and, in an oops, the symbol's size.
_OFFSET = re.compile(r"\s*(?P<offset>0[xX][0-9a-fA-F]+|[0-9]+)(?:/(?P<size>0[xX][0-9a-fA-F]+|[0-9]+))?")
# A source file and a symbol of it, as gdb ('inode.c'::init_once) or shortly (inode.c:init_once) writes it.
_IN_FILE = re.compile(r"'?(?P<file>[^':]+\.[A-Za-z]+)'?::?(?P<name>[^:]+)")
# Functions start at multiples of 16, or of 64 (CONFIG_DEBUG_FORCE_FUNCTION_ALIGN_64B).
_MOST_PADDING = 64
# What the kernel prints around a symbol: "? " before a doubtful frame, the register and its segment, the module behind.
_DECORATED = re.compile(
    r"(?:\?\s+)?(?:(?:[RE]?IP|pc|lr)\s*:\s*(?:[0-9a-fA-F]{4}:)?)?(?P<bare>\S+?)(?:\s+\[(?P<module>[\w.-]+)\])?[,;:)]*"
)


class Hints(NamedTuple):
    """How a person at the prompt gives what is missing, in the front end's own words; empty where there is no way."""

    vmlinux: str = ""
    module: str = ""
    slide: str = ""
    memory: str = ""


NO_HINTS = Hints()


def with_hint(message: str, hint: str) -> str:
    """The message, with the remedy behind it if there is one."""
    return f"{message} ({hint})" if hint else message


class Place(NamedTuple):
    """A runtime address that an expression means, and what to say about the reading."""

    address: int
    note: str | None = None


def parse_number(text: str) -> int | None:
    """A plain number, hexadecimal with 0x or decimal; None if `text` is none. ExpressionError beyond 64 bits."""
    if not _NUMBER.fullmatch(text):
        return None
    base, digits = (16, text[2:]) if text[:2] in ("0x", "0X") else (10, text)
    digits = digits.lstrip("0")
    if len(digits) > 20 or int(digits or "0", base) > ADDRESS_MASK:
        raise ExpressionError(f"{_shortened(text)}: more than 64 bits")
    return int(digits or "0", base)


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else text[:60] + "..."


def _why_not(name: str, images: Sequence[PlacedImage], hints: Hints) -> str:
    """What a person should know whose name was not found."""
    if not images:
        return f" ({with_hint('no vmlinux', hints.vmlinux)})"
    first = images[0].image
    nameless = [placed.image.path for placed in images if not len(placed.image.symbols)]
    if nameless:
        return f" ({', '.join(nameless)}: no symbol table)"
    if _IN_FILE.fullmatch(name) and not first.symbols.sizes_are_stated:
        return f" ({first.symbols_path} does not tell symbols' source files: ask for the name alone)"
    if name.startswith("."):
        return f" ({first.path} has no sections)" if not first.sections else ""
    if first.listed is not None and not any(letter in first.listed.letters for letter in b"drb"):
        return f" ({first.path} has code only: a kernel without CONFIG_KALLSYMS_ALL)"
    return ""


def places(text: str, images: Sequence[PlacedImage], hints: Hints = NO_HINTS) -> tuple[Place, ...]:
    """The runtime addresses that `text` means: one, or several where static symbols share a name.

    Raises ExpressionError, worded for the user, if the grammar does not know the text or the images do not have the
    name; the host may then try its own evaluation.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{_shortened(text)}: too long for an address or a symbol")
    text = text.strip()
    address = _number_as_address(text, images)
    if address is not None:
        return (Place(address),)
    near_null = _NULL.fullmatch(text)
    if near_null:
        return (Place(parse_number(near_null.group("offset") or "0") or 0),)
    text, images = _undecorated(text, images, hints)
    sign = max(text.rfind("+"), text.rfind("-"))
    match = _OFFSET.fullmatch(text, sign + 1) if sign > 0 else None
    if match:
        found = _named(text[:sign], images, hints)
        if found:
            offset = parse_number(match.group("offset")) or 0
            size = parse_number(match.group("size")) if match.group("size") else None
            return _moved(text, found, -offset if text[sign] == "-" else offset, size)
    found = _named(text, images, hints)
    if not found:
        raise ExpressionError(f"{_shortened(text)}: no such symbol or section{_why_not(text, images, hints)}")
    return tuple(Place(each.address) for each in found)


def _number_as_address(text: str, images: Sequence[PlacedImage]) -> int | None:
    """A plain number, or an address as the kernel prints it; None if the text is neither."""
    narrow = bool(images) and images[0].image.elf.bits == 32
    bare = _BARE_HEX.fullmatch(text)
    if bare is None:
        return parse_number(text)
    digits = bare.group("digits")
    if digits.isdigit() and digits == text and len(digits) == 8 and not narrow:
        return parse_number(text)  # eight decimal digits: a number, but where addresses have eight
    if len(digits) == 8 and any(placed.image.symbols.indexes_of(text) for placed in _candidates(text, images)):
        return None
    return int(digits, 16)


def _candidates(name: str, images: Sequence[PlacedImage]) -> Sequence[PlacedImage]:
    """The images to be asked for a symbol of that name."""
    return images.candidates_for_symbol(name) if isinstance(images, Images) else images


def _undecorated(text: str, images: Sequence[PlacedImage], hints: Hints) -> tuple[str, Sequence[PlacedImage]]:
    """The text without what an oops prints around it, and the images that it speaks of: `[ext4]` names one."""
    match = _DECORATED.fullmatch(text)
    if match is None:
        return text, images
    module = match.group("module")
    if module is not None:
        named = (images if isinstance(images, Images) else Images(images)).named(module)
        images = [named] if named is not None else []
        if not images:
            raise ExpressionError(with_hint(f"{_shortened(text)}: module {module} is not loaded here", hints.module))
    return match.group("bare"), images


class _Found(NamedTuple):
    """A thing of the name asked for, and the symbol it is (None for a section)."""

    address: int
    symbol: Symbol | None
    placed: PlacedImage


def _named(name: str, images: Sequence[PlacedImage], hints: Hints) -> list[_Found]:
    """The things of that name: the symbols, else a section. ExpressionError if they are there without a place."""
    name = name.strip()
    if name.startswith("&"):
        name = name[1:].strip()
    in_file = _IN_FILE.fullmatch(name)
    file, wanted = (os.path.basename(in_file.group("file")), in_file.group("name")) if in_file else (None, name)
    found: list[_Found] = []
    unplaced: list[tuple[str, str | None]] = []
    for placed in _candidates(wanted, images):
        table = placed.image.symbols
        for symbol in table.exact(wanted):
            if file is not None and os.path.basename(table.file_of(symbol.entry) or "") != file:
                continue
            if placed.is_placed(symbol.section_index):
                found.append(_Found(placed.symbol_address(symbol), symbol, placed))
            else:
                home = placed.image.section_name(symbol.section_index)
                unplaced.append((f"{home} of {placed.image.name}", placed.why_unplaced(home)))
    if not found and name.startswith("."):
        for placed in images:
            if found and placed.image.is_module:
                break  # every module has a .text and a .rodata: the vmlinux's is meant, unless one is named
            for section in placed.image.sections:
                if section.name == name and section.allocated:
                    if placed.is_placed(section.index):
                        found.append(_Found(placed.placement.runtime(section.address), None, placed))
                    else:
                        unplaced.append((f"{name} of {placed.image.name}", placed.why_unplaced(name)))
    if unplaced and not found:
        home, why = unplaced[0]
        if why is not None:
            raise UnplacedError(f"{name}: in {home}, {why}")
        raise UnplacedError(with_hint(f"{name}: in {home}, whose address is not known", hints.module))
    # Aliases of one name at one address are one place.
    return list({each.address: each for each in found}.values())


def _moved(text: str, found: Sequence[_Found], offset: int, size: int | None) -> tuple[Place, ...]:
    """The places found, moved by the offset; an oops line's size (`+0x10/0xc7`) tells symbols of one name apart."""
    note = None
    unended = next((each for each in found if each.symbol and not each.placed.knows_end(each.symbol.address)), None)
    if unended is not None and unended.symbol is not None and offset:
        note = f"{text}: where {unended.symbol.name} ends is not known"
    elif size is not None:
        fitting = [each for each in found if each.symbol and _may_have_size(each.symbol, each.placed, size)]
        if fitting:
            found = fitting
        else:
            sizes = ", ".join(sorted({f"{each.symbol.size:#x}" for each in found if each.symbol}))
            note = f"{text}: the symbol's size here is {sizes or 'unknown'}, not {size:#x}: another build?"
    return tuple(Place(each.address + offset & each.placed.placement.mask, note) for each in found)


def _may_have_size(symbol: Symbol, placed: PlacedImage, size: int) -> bool:
    """Whether `size` is what is printed for the symbol: by an oops, which knows the distance to the next symbol; by
    other tools, which know the ELF size, of which a list of symbols only tells that padding may follow.
    """
    distance = placed.image.index.distance_to_next(symbol.address)
    if size in (symbol.size, distance):
        return True
    return not placed.image.symbols.sizes_are_stated and 0 < distance - size < _MOST_PADDING
