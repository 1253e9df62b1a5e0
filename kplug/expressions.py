"""The expressions that every front end takes: what gdb, crash and drgn users already type.

    0xffffffff81a114f4   ffffffff81a114f4   [<ffffffff81a114f4>]
    schedule   schedule+0x10   schedule+16   schedule-8   schedule+0x10/0xc7   &init_task   core.c:init_once
    .rodata   .rodata+0x10

What this grammar does not know (registers, C expressions) is the host's to evaluate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from kplug.errors import ExpressionError
from kplug.image.placed import PlacedImage
from kplug.image.symbol_table import Symbol
from kplug.placement import ADDRESS_MASK

# Symbols' names have less (KSYM_NAME_LEN is 512); a longer line of a log is no expression.
MAX_LENGTH = 4096

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
# An address as the kernel prints it: without a prefix, with the brackets of older logs.
_BARE_HEX = re.compile(r"\[?<?(?P<digits>[0-9a-fA-F]{8}|[0-9a-fA-F]{16})>?\]?")
# What follows the last + or -: the offset and, in an oops, the symbol's size.
_OFFSET = re.compile(r"\s*(?P<offset>0[xX][0-9a-fA-F]+|[0-9]+)(?:/(?P<size>0[xX][0-9a-fA-F]+|[0-9]+))?")
# A source file and a symbol of it, as gdb ('core.c'::init_once) or shortly (core.c:init_once) writes it.
_IN_FILE = re.compile(r"'?(?P<file>[^':]+\.[A-Za-z]+)'?::?(?P<name>[^:]+)")


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


def _why_not(images: Sequence[PlacedImage]) -> str:
    """What a person should know whose name was not found."""
    if not images:
        return " (no vmlinux: give one with -s)"
    nameless = [placed.image.path for placed in images if not len(placed.image.symbols)]
    return f" ({', '.join(nameless)}: no symbol table)" if nameless else ""


def places(text: str, images: Sequence[PlacedImage]) -> tuple[Place, ...]:
    """The runtime addresses that `text` means: one, or several where static symbols share a name.

    Raises ExpressionError, worded for the user, if the grammar does not know the text or the images do not have the
    name; the host may then try its own evaluation.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{_shortened(text)}: too long for an address or a symbol")
    text = text.strip()
    number = parse_number(text)
    if number is not None and not (len(text) == 16 and text.isdigit()):
        return (Place(number),)
    bare = _BARE_HEX.fullmatch(text)
    if bare and not any(placed.image.symbols.indexes_of(text) for placed in images):
        return (Place(int(bare.group("digits"), 16)),)
    sign = max(text.rfind("+"), text.rfind("-"))
    match = _OFFSET.fullmatch(text, sign + 1) if sign > 0 else None
    if match:
        found = _named(text[:sign], images)
        if found:
            offset = parse_number(match.group("offset")) or 0
            size = parse_number(match.group("size")) if match.group("size") else None
            return _moved(text, found, -offset if text[sign] == "-" else offset, size)
    found = _named(text, images)
    if not found:
        raise ExpressionError(f"{_shortened(text)}: no such symbol or section{_why_not(images)}")
    return tuple(Place(address) for address, _ in found)


def _named(name: str, images: Sequence[PlacedImage]) -> list[tuple[int, tuple[Symbol, PlacedImage] | None]]:
    """(runtime address, its symbol) for each thing of that name: the symbols, else a section."""
    name = name.strip()
    if name.startswith("&"):
        name = name[1:].strip()
    in_file = _IN_FILE.fullmatch(name)
    wanted = in_file.group("name") if in_file else name
    found: list[tuple[int, tuple[Symbol, PlacedImage] | None]] = []
    for placed in images:
        table = placed.image.symbols
        for symbol in table.exact(wanted):
            if in_file and table.file_of(symbol.entry) != in_file.group("file"):
                continue
            found.append((placed.symbol_address(symbol), (symbol, placed)))
    if not found and name.startswith("."):
        for placed in images:
            for section in placed.image.sections:
                if section.name == name and section.allocated:
                    found.append((placed.placement.runtime(section.address), None))
    # Aliases of one name at one address are one place.
    return list({address: (address, symbol) for address, symbol in found}.values())


def _moved(
    text: str, found: list[tuple[int, tuple[Symbol, PlacedImage] | None]], offset: int, size: int | None
) -> tuple[Place, ...]:
    """The places found, moved by the offset; an oops line's size (`+0x10/0xc7`) tells symbols of one name apart."""
    note = None
    if size is not None:
        fitting = [entry for entry in found if entry[1] and size in _sizes(*entry[1])]
        if fitting:
            found = fitting
        else:
            sizes = ", ".join(sorted({f"{entry[1][0].size:#x}" for entry in found if entry[1]}))
            note = f"{text}: the symbol's size here is {sizes or 'unknown'}, not {size:#x}: another build?"
    return tuple(Place(address + offset & ADDRESS_MASK, note) for address, _ in found)


def _sizes(symbol: Symbol, placed: PlacedImage) -> tuple[int, int]:
    """The sizes an oops may print for a symbol: the ELF one, and kallsyms' own, the distance to the next symbol."""
    return symbol.size, placed.image.index.distance_to_next(symbol.address)
