"""The symbols and sections that a name stands for: those of exactly that name, else those that have it in their source.

`finish_task_switch` is `finish_task_switch.isra.0` in a symbol table, and may be several symbols there; an oops tells
them apart by their size (`finish_task_switch+0x10/0x2c5`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kplug.image.images import as_images
from kplug.named_tuples import NamedTuple

if TYPE_CHECKING:  # the commands import this file, and declaring them must not take the time to import these
    from kplug.image.placed import PlacedImage
    from kplug.image.symbols.symbol import Symbol
    from kplug.resolver import LineSource

# Functions start at multiples of 16, or of 64 (CONFIG_DEBUG_FORCE_FUNCTION_ALIGN_64B).
_MOST_PADDING = 64
_MOST_SHOWN = 4
# nm's letters of functions.
CODE_LETTERS = "tTwW"


class Match(NamedTuple):
    """A match for a name: its address, and the symbol (None for a section)."""

    address: int
    symbol: Symbol | None
    placed: PlacedImage

    def may_have_size(self, size: int) -> bool:
        """Whether `size` is what is printed for the symbol. An oops prints the distance to the next symbol, other tools
        the ELF size; a list of symbols gives only the former, of which the end may be padding."""
        if self.symbol is None:
            return False
        distance = self.placed.image.index.distance_to_next(self.symbol.address)
        if size in (self.symbol.size, distance):
            return True
        if not self.placed.is_packed:
            return size < distance or not distance
        return not self.placed.image.symbols.sizes_are_stated and 0 < distance - size < _MOST_PADDING

    @property
    def is_part(self) -> bool:
        """Whether the symbol only belongs to a function, such as its `.cold` part."""
        from kplug.image.symbols.source_names import source_name  # few questions need it

        return self.symbol is not None and source_name(self.symbol.name).is_part


class Named(NamedTuple):
    """What a name stands for.

    `note` says so where the symbols' names are others. `parts` are symbols that only belong to the function.
    `unplaced`: the section, and why its address is not known, of the first match without an address.
    """

    matches: Sequence[Match]
    note: str | None = None
    parts: Sequence[Match] = ()
    unplaced: tuple[str, str | None] | None = None


def symbols_of(name: str, images: Sequence[PlacedImage]) -> list[tuple[PlacedImage, Symbol]]:
    """The symbols of exactly that name, in each image that has one."""
    return [
        (placed, symbol)
        for placed in as_images(images).candidates_for_symbol(name)
        for symbol in placed.image.symbols.exact(name)
    ]


def symbols_of_source_name(name: str, images: Sequence[PlacedImage]) -> list[tuple[PlacedImage, Symbol]]:
    """The symbols that have that name in their source, and another one in the symbol table."""
    return [
        (placed, symbol)
        for placed in as_images(images).candidates_for_source_name(name)
        for symbol in placed.image.symbols.of_source_name(name)
    ]


class File(NamedTuple):
    """A source file that a name was asked for in, and what knows source lines."""

    name: str
    lines: LineSource | None

    def has(self, symbol: Symbol, placed: PlacedImage) -> bool:
        """Whether the symbol table says that a symbol is of this file, or else the debug information."""
        file = placed.image.symbols.file_of(symbol)
        if file is None and self.lines is not None and symbol.letter in CODE_LETTERS:
            address = placed.symbol_address(symbol)
            for layer in self.lines.line_layers(address, symbol.address, placed):
                inlined = layer.details["inlined"]
                file = inlined[-1]["file"] if inlined else layer.details["file"]
        return os.path.basename(file or "") == self.name


def symbols_named(name: str, file: File | None, images: Sequence[PlacedImage]) -> Named:
    """What a symbol's name stands for; with `file`, only symbols of that source file."""
    found = _placed(symbols_of(name, images), file)
    return found if found.matches or found.unplaced else by_source_name(name, file, images)


def by_source_name(name: str, file: File | None, images: Sequence[PlacedImage]) -> Named:
    """The symbols that have that name in their source, and another one in the symbol table."""
    found = _placed(symbols_of_source_name(name, images), file)
    if not found.matches:
        return found
    parts: list[Match] = []
    whole: list[Match] = []
    for each in found.matches:
        (parts if each.is_part else whole).append(each)
    if not whole:
        parts, whole = whole, parts
    return Named(whole, note_of(name, whole), parts, found.unplaced)


def of_size(size: int, name: str, found: Named, images: Sequence[PlacedImage]) -> Named:
    """Of what was found for a name, the symbols that have that size, else their parts that do. None of exactly that
    name: then those that have it in their source, for a kernel of clang's LTO prints a static one by that name."""
    fitting = [each for each in found.matches if each.may_have_size(size)]
    fitting = fitting or [each for each in found.parts if each.may_have_size(size)]
    if found.note is None:
        if fitting:
            return Named(fitting)
        others = by_source_name(name, None, images).matches
        # The kernel prints parts by their own names.
        fitting = [each for each in others if not each.is_part and each.may_have_size(size)]
    return Named(fitting, note_of(name, fitting) if fitting else None)


def note_of(name: str, matches: Sequence[Match]) -> str:
    """That the matches, symbols, have `name` in their source, and what their names are in the symbol table."""
    names = list(dict.fromkeys(each.symbol.name for each in matches if each.symbol is not None))
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    note = f"{name} is {', '.join(names[:_MOST_SHOWN])}{more} in the symbol table"
    if len(matches) > 1:
        note += f", {len(matches)} symbols ({name}+OFFSET/SIZE tells them apart)"
    return note


def _placed(symbols: Iterable[tuple[PlacedImage, Symbol]], file: File | None) -> Named:
    """The symbols of that file, if one is given, with their addresses."""
    matches: dict[int, Match] = {}
    unplaced = None
    for placed, symbol in symbols:
        if file is not None and not file.has(symbol, placed):
            continue
        if placed.is_placed(symbol.section_index):
            # Aliases of one name at one address are one place.
            address = placed.symbol_address(symbol)
            matches[address] = Match(address, symbol, placed)
        elif unplaced is None:
            home = placed.image.section_name(symbol.section_index)
            unplaced = f"{home} of {placed.image.name}", placed.why_unplaced(home)
    return Named(list(matches.values()), unplaced=unplaced)


def sections_named(name: str, images: Sequence[PlacedImage]) -> Named:
    """The sections of that name. Every module has a .text: the vmlinux's is meant, unless a module is named."""
    matches: dict[int, Match] = {}
    unplaced = None
    for placed in images:
        if matches and placed.image.is_module:
            break
        for section in placed.image.sections:
            if section.name != name or not section.allocated:
                continue
            if placed.is_placed(section.index):
                address = placed.placement.runtime(section.address)
                matches[address] = Match(address, None, placed)
            elif unplaced is None:
                unplaced = f"{name} of {placed.image.name}", placed.why_unplaced(name)
    return Named(list(matches.values()), unplaced=unplaced)
