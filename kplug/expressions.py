"""The expressions that every front end takes: what users of gdb, crash and drgn type.

    0xffffffff81a114f4   ffffffff81a114f4   [<ffffffff81a114f4>]
    schedule   schedule+0x10   schedule+16   schedule-8   &init_task   inode.c:init_once
    schedule+0x10/0xc7   .rodata   .rodata+0x10
    0x18 as struct task_struct   $rdi+8 as struct foo at $rdi

`NAME@CPU` (runqueues@1, runqueues@*), which needs memory, is read by `kplug.memory.percpu`; `phys:0x2cf7000` needs page
tables. What logs have around a symbol is read by `kplug.log`.
What this grammar does not know (registers, C expressions) is left to the host's evaluation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kplug.arch.types.word import WIDEST_BITS, WIDEST_MASK
from kplug.errors import ExpressionError, UnplacedError
from kplug.frozen import Frozen
from kplug.named_tuples import NamedTuple
from kplug.names import File, Match, Named, of_size, sections_named, symbols_named, symbols_of

if TYPE_CHECKING:  # the commands import this file, and declaring them must not take the time to import these
    from kplug.image.placed import PlacedImage
    from kplug.resolver import LineSource

# Symbol names are shorter (KSYM_NAME_LEN is 512); a longer line of a log is not an expression.
MAX_LENGTH = 4096

PHYSICAL = "phys:"

# Patterns, which `re` compiles at their first use, and keeps: an address with 0x needs none of them.
# As answers print it.
_NULL = r"NULL(?:\s*\+\s*(?P<offset>0[xX][0-9a-fA-F]+|[0-9]+))?"
_NUMBER = r"0[xX][0-9a-fA-F]+|[0-9]+"
# An address as the kernel prints it: without a prefix, with the brackets of older logs.
_BARE_HEX = r"\[?<?(?P<digits>[0-9a-fA-F]{8}|[0-9a-fA-F]{16})>?\]?"
# What follows the last + or -: the offset and, in an oops, the symbol's size.
_OFFSET = r"\s*(?P<offset>0[xX][0-9a-fA-F]+|[0-9]+)(?:/(?P<size>0[xX][0-9a-fA-F]+|[0-9]+))?"
# A symbol's name, as C and linkers have them.
_SYMBOL = r"&?\s*[A-Za-z_.][\w.$]*(?:::?[\w.$]+)*"
# A source file and a symbol in it, as gdb writes it ('inode.c'::init_once) or shorter (inode.c:init_once).
_IN_FILE = r"'?(?P<file>[^':]+\.[A-Za-z]+)'?::?(?P<name>[^:]+)"


class Hints(Frozen):
    """How the user can supply what is missing, in the front end's own words; empty where there is no way."""

    vmlinux: str = ""
    module: str = ""
    module_file: str = ""
    kaslr_offset: str = ""
    memory: str = ""


NO_HINTS = Hints()


class TypeHint(NamedTuple):
    """`ADDRESS as TYPE at START`, taken apart: the expression of the address, the type, and where the structure begins
    (empty where the question does not say)."""

    expression: str
    type: str
    start: str = ""


_HINTED = r"(?s)(?P<expression>.+?)\s+as\s+(?P<type>.+?)(?:\s+at\s+(?P<start>.+))?"


def type_hint(text: str) -> TypeHint | None:
    """The expression and the type of `ADDRESS as TYPE`; None if the text names no type."""
    if " as " not in text:  # nearly always, and for each line of a long log
        return None
    match = re.fullmatch(_HINTED, text.strip())
    if match is None:
        return None
    return TypeHint(match.group("expression"), match.group("type").strip("'\""), match.group("start") or "")


def with_hint(message: str, hint: str) -> str:
    """The message, followed by the remedy if there is one."""
    return f"{message} ({hint})" if hint else message


_TWO_WORDS = frozenset(("struct", "union", "class", "enum"))


def join_hints(words: Sequence[str]) -> list[str]:
    """The words of a command line, with `ADDRESS as struct TYPE at START` in one."""
    joined: list[str] = []
    position = 0
    while position < len(words):
        word, count = words[position], 1
        if joined and position + 1 < len(words) and (word == "as" or (word == "at" and " as " in joined[-1])):
            count = 3 if word == "as" and words[position + 1] in _TWO_WORDS else 2
            joined[-1] = " ".join((joined[-1], *words[position : position + count]))
        else:
            joined.append(word)
        position += count
    return joined


class Place(NamedTuple):
    """A runtime address that an expression means, and a note on how the expression was read.

    `within`: the bytes of its symbol, where only the expression has its size.
    """

    address: int
    note: str | None = None
    within: range | None = None


Places = tuple[Place, ...]


def plain_address(text: str) -> int | None:
    """The number that `text` is, if it is written as nearly all of a long log are: 0x and at most 16 digits."""
    if text[:2] == "0x" and len(text) <= 18 and text.isalnum() and text.isascii():
        try:
            return int(text, 16)
        except ValueError:  # no digits, or others
            return None
    return None


def parse_number(text: str) -> int | None:
    """A plain number, hexadecimal with 0x or decimal; None if `text` is not one. ExpressionError beyond 64 bits."""
    if not re.fullmatch(_NUMBER, text):
        return None
    base, digits = (16, text[2:]) if text[:2] in ("0x", "0X") else (10, text)
    digits = digits.lstrip("0")
    if len(digits) > 20 or int(digits or "0", base) > WIDEST_MASK:
        raise ExpressionError(f"{_shortened(text)}: more than {WIDEST_BITS} bits")
    return int(digits or "0", base)


def physical_number(text: str) -> int | None:
    """The physical address that `phys:0x2cf7000` (also with an offset) means; None for another expression.

    ExpressionError if there is no number.
    """
    if not text.startswith(PHYSICAL):
        return None
    number, plus, offset = text[len(PHYSICAL) :].partition("+")
    found, more = parse_number(number.strip()), parse_number(offset.strip()) if plus else 0
    if found is None or more is None:
        raise ExpressionError(f"{_shortened(text)}: not a physical address, such as {PHYSICAL}0x2cf7000")
    if found + more > WIDEST_MASK:
        raise ExpressionError(f"{_shortened(text)}: more than {WIDEST_BITS} bits")
    return found + more


def fits_word(text: str, offset: int, mask: int) -> None:
    """UnplacedError if an offset is wider than the kernel's addresses: one that fits is added as the machine does."""
    if abs(offset) > mask:
        raise UnplacedError(f"{_shortened(text)}: more than {mask.bit_length()} bits")


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else text[:60] + "..."


def _why_not(name: str, images: Sequence[PlacedImage], hints: Hints) -> str:
    """Why a name may not have been found, as far as that is known."""
    if not images:
        return f" ({with_hint('no vmlinux', hints.vmlinux)})"
    first = images[0].image
    nameless = [placed.image for placed in images if not placed.image.symbols]
    if nameless:
        from kplug.image.opening.debug_files import why_no_symbols  # only where something is missing

        return f" ({'; '.join(f'{image.path}: {why_no_symbols(image)}' for image in nameless)})"
    if re.fullmatch(_IN_FILE, name):
        if not first.symbols.sizes_are_stated:
            return f" ({first.symbols_path} does not have the symbols' source files: give the name alone)"
        if symbols_of(_file_and_name(name)[1], images):
            return f" ({first.symbols_path} does not say that it is in that file: give the name alone)"
    if name.startswith("."):
        return f" ({first.path} has no sections)" if not first.sections else ""
    unread = first.symbols.unread_names(name)
    if unread:
        from kplug.image.symbols.mangled import REMEDY  # only where something is missing

        return f" (it may be one of {len(unread)} mangled names: {REMEDY})"
    if first.listed is not None and not any(letter in first.listed.letters for letter in b"drb"):
        return f" ({first.path} has code only: a kernel without CONFIG_KALLSYMS_ALL)"
    return ""


def places(
    text: str, images: Sequence[PlacedImage], hints: Hints = NO_HINTS, lines: LineSource | None = None
) -> Places:
    """The runtime addresses that `text` means: one, or several where static symbols share a name.

    `lines` tell the source file of a symbol where the symbol table does not.

    Raises ExpressionError, worded for the user, if the grammar does not know the text or the images do not have the
    name; the host may then try its own evaluation.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{_shortened(text)}: too long for an address or a symbol")
    text = text.strip()
    address = _number_as_address(text, images)
    if address is not None:
        return (Place(address),)
    near_null = re.fullmatch(_NULL, text)
    if near_null:
        return (Place(parse_number(near_null.group("offset") or "0") or 0),)
    name, sign, after = _last_sign(text)
    match = re.fullmatch(_OFFSET, after) if sign else None
    if match:
        found = _named(name, images, hints, lines)
        if found.matches:
            offset = parse_number(match.group("offset")) or 0
            size = parse_number(match.group("size")) if match.group("size") else None
            return _moved(text, name, images, found, -offset if sign == "-" else offset, size)
    found = _named(text, images, hints, lines)
    if not found.matches:
        raise ExpressionError(f"{_shortened(text)}: no such symbol or section{_why_not(text, images, hints)}")
    return tuple(Place(each.address, found.note) for each in found.matches)


def is_of_kernel(text: str) -> bool:
    """Whether it is `symbol+offset/size`, which a debugger would compute: in C and in Python, / divides."""
    if "/" not in text or len(text) > MAX_LENGTH:
        return False
    name, sign, offset = _last_sign(text.strip())
    found = re.fullmatch(_OFFSET, offset) if sign else None
    return found is not None and found.group("size") is not None and re.fullmatch(_SYMBOL, name.strip()) is not None


def _last_sign(text: str) -> tuple[str, str, str]:
    """What is before the last + or -, the sign, and what is after it; no sign if it is the first character."""
    at = max(text.rfind("+"), text.rfind("-"))
    return (text[:at], text[at], text[at + 1 :]) if at > 0 else (text, "", "")


def _number_as_address(text: str, images: Sequence[PlacedImage]) -> int | None:
    """A plain number, or an address as the kernel prints it; None if the text is neither."""
    address = plain_address(text)
    if address is not None:
        return address
    narrow = bool(images) and images[0].image.elf.bits == 32
    bare = re.fullmatch(_BARE_HEX, text)
    if bare is None:
        return parse_number(text)
    digits = bare.group("digits")
    if digits.isdigit() and digits == text and len(digits) == 8 and not narrow:
        return parse_number(text)  # a number, except where addresses have eight digits
    if len(digits) == 8 and symbols_of(text, images):
        return None
    return int(digits, 16)


def _named(name: str, images: Sequence[PlacedImage], hints: Hints, lines: LineSource | None) -> Named:
    """The symbols of that name, else the section. ExpressionError if their addresses are not known."""
    file, wanted = _file_and_name(name)
    found = symbols_named(wanted, File(file, lines) if file is not None else None, images)
    if not found.matches and wanted.startswith(".") and file is None:
        sections = sections_named(wanted, images)
        found = sections if sections.matches or found.unplaced is None else found
    if found.unplaced is not None and not found.matches:
        home, why = found.unplaced
        if why is not None:
            raise UnplacedError(f"{wanted}: in {home}, {why}")
        raise UnplacedError(with_hint(f"{wanted}: in {home}, whose address is not known", hints.module))
    return found


def _file_and_name(text: str) -> tuple[str | None, str]:
    """The source file, if one is named, and the name of a symbol."""
    text = text.strip()
    if text.startswith("&"):
        text = text[1:].strip()
    in_file = re.fullmatch(_IN_FILE, text)
    return (os.path.basename(in_file.group("file")), in_file.group("name")) if in_file else (None, text)


def _moved(text: str, name: str, images: Sequence[PlacedImage], found: Named, offset: int, size: int | None) -> Places:
    """The matches, moved by the offset. The size in an oops line (`+0x10/0xc7`) distinguishes symbols of one name."""
    matches, notes = found.matches, [found.note] if found.note is not None else []
    within: dict[int, range] = {}
    if size is not None:
        fitting = of_size(size, _file_and_name(name)[1], found, images)
        if not fitting.matches:
            notes.append(_misfit(text, matches, size))
        else:
            matches, notes = fitting.matches, [fitting.note] if fitting.note is not None else []
            if 0 <= offset < size:
                within = {each.address: range(each.address, each.address + size) for each in matches if not _ends(each)}
    unended = next((each.symbol for each in matches if each.symbol is not None and not _ends(each)), None)
    if unended is not None and offset and (size is None or within):
        told = f": {size:#x} bytes are what the question says" if size is not None else ""
        notes.append(f"{text}: where {unended.name} ends is not known{told}")
    note = "; ".join(notes) or None
    for each in matches:
        fits_word(text, offset, each.placed.placement.mask)
    return tuple(
        Place(each.address + offset & each.placed.placement.mask, note, within.get(each.address)) for each in matches
    )


def _ends(match: Match) -> bool:
    """Whether it is known where the match ends."""
    return match.symbol is None or match.placed.knows_end(match.symbol.address)


def _misfit(text: str, matches: Sequence[Match], size: int) -> str:
    """Why no match has that size."""
    unended = next((each for each in matches if not _ends(each)), None)
    if unended is not None:
        return f"{text}: the next symbol begins before {size:#x} bytes: another program or trampoline?"
    sizes = ", ".join(sorted({f"{each.symbol.size:#x}" for each in matches if each.symbol}))
    return f"{text}: the symbol's size here is {sizes or 'unknown'}, not {size:#x}: another build?"
