"""Source lines and inlined functions, from gdb's own debug information."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import gdb
from kplug import model
from kplug.image.placed import PlacedImage
from kplug.image.source_paths import in_tree
from kplug.model import Layer
from kplug_gdb import objfiles


class GdbLines:
    """The `line` layer, from gdb at the address where gdb has the symbols: moved or not (kaslr --apply)."""

    def line_layers(self, address: int, link_address: int, image: PlacedImage) -> Iterable[Layer]:
        place = _gdb_address(address, link_address, image)
        if place is None:
            return ()
        try:
            return tuple(_layers(place))
        except gdb.error:
            return ()  # debug information that gdb cannot read


def _gdb_address(address: int, link_address: int, image: PlacedImage) -> int | None:
    """The address at which gdb has the code; None if gdb has no symbols of that file, or it is not code."""
    piece = image.piece(address)
    section = piece.section if piece is not None else None
    if section is None or not section.executable:
        return None
    if image.image.is_module:
        return address
    kaslr_offset = objfiles.applied_offset(image.image.path, section.name, section.address, image.placement.mask)
    return None if kaslr_offset is None else link_address + kaslr_offset & image.placement.mask


def _layers(place: int) -> Iterator[Layer]:
    found = gdb.find_pc_line(place)
    table = found.symtab
    if table is None or not table.is_valid() or not found.line:
        return
    file = in_tree(table.filename)
    details: dict[str, Any] = {"file": file, "line": found.line, "inlined": list(_inlined(place, found))}
    yield Layer(model.LINE, f"{file}:{found.line}", None, None, "gdb's debug information", details)


def _inlined(place: int, found: gdb.Symtab_and_line) -> Iterator[dict[str, Any]]:
    """The functions at the address, innermost first, if one was inlined into another.

    The symbol of an inlined function has the file and line of the call (gdb/dwarf2/read.c, new_symbol), which is the
    caller's line.
    """
    functions = []
    block = gdb.block_for_pc(place)
    while block is not None and not block.is_static and not block.is_global:
        if block.function is not None:
            functions.append(block.function)
        block = block.superblock
    if len(functions) < 2:
        return
    position = _place(found.symtab, found.line)
    for number, function in enumerate(functions):
        called = _place(function.symtab, function.line)
        if number == 0 and position == called:
            # gdb takes the last row of the line table that begins a statement; here that is the caller's.
            yield {"function": function.name, "file": None, "line": None}
        else:
            file, line = position
            yield {"function": function.name, "file": file, "line": line}
        position = called


def _place(table: gdb.Symtab | None, line: int) -> tuple[str, int] | tuple[None, None]:
    return (in_tree(table.filename), line) if table is not None and line else (None, None)
