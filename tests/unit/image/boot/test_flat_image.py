"""Where an image without a header is linked, by the pointers in it."""

from __future__ import annotations

import struct
from array import array

import pytest

from kplug.arch import registry
from kplug.image.boot.flat_image import start_by_pointers
from kplug.image.symbols.symbol_list import SymbolList

BASE = 0xFFFFFFFF81000000
FUNCTIONS = [0x40 * number for number in range(100)]
PIECES = 100
PIECE_BYTES = 1 << 15


@pytest.mark.parametrize(("functions", "base"), [(FUNCTIONS, BASE), (FUNCTIONS[:20], None), ([], None)])
def test_what_is_repeated_is_one_pointer(functions: list[int], base: int | None) -> None:
    """A 0 before a -1, in every piece of a kernel, would point to the first function of one that is linked there."""
    symbols = SymbolList(b"f\0", array("I", [0] * 100), FUNCTIONS, b"T" * 100, "kallsyms")
    pointers = struct.pack(f"<{len(functions)}Q", *(BASE + function for function in functions))
    pieces = struct.pack("<2I", 0, 0xFFFFFFFF).ljust(PIECE_BYTES, b"\0") * PIECES
    data = pointers.ljust(PIECE_BYTES, b"\0") + pieces
    assert start_by_pointers(data, symbols, registry.named("x86_64").word()) == base
