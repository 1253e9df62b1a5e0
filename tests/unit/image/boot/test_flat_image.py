"""Where an image without a header is linked, by the pointers in it."""

from __future__ import annotations

import struct
from array import array

import pytest

from kplug.arch import registry
from kplug.image.boot.flat_image import address_of_start, start_by_pointers
from kplug.image.opening.symbols_elf import held_bytes
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
    assert start_by_pointers(data, symbols, registry.named("x86_64").word(), 2 << 20) == base


def test_pointers_are_read_as_the_architecture_has_them() -> None:
    """s390x's kernel is big-endian, and linked at 1 MiB: its addresses have no high bits."""
    architecture = registry.named("s390x")
    symbols = SymbolList(b"f\0", array("I", [0] * 100), FUNCTIONS, b"T" * 100, "kallsyms")
    pointers = struct.pack(">100Q", *(0x100000 + function for function in FUNCTIONS))
    numbers = struct.pack(">100Q", *range(100))  # what is small is no pointer
    data = (pointers + numbers).ljust(2 * PIECE_BYTES, b"\0")
    assert start_by_pointers(data, symbols, architecture.word(), architecture.link_alignment) == 0x100000
    little = architecture.word(little_endian=True)
    assert start_by_pointers(data, symbols, little, architecture.link_alignment) is None


EXPORTED = ("schedule", "kfree", "vfree", "vmalloc")


@pytest.mark.parametrize(
    ("exported", "rivals", "found"),
    [(EXPORTED, (), True), (EXPORTED[:2], (), False), (EXPORTED, EXPORTED[:3], True)],
)
def test_exported_symbols_tell_where_it_begins(exported: tuple[str, ...], rivals: tuple[str, ...], found: bool) -> None:
    """A struct kernel_symbol's names may be elsewhere in the image, too: fewer names agree on those."""
    start, page = 0xC0208000, 0x1000
    word = registry.named("armv7l").word()
    strings = b"".join(name.encode().ljust(16, b"\0") for name in exported)
    rows = [word.packed((start + 0x40 * at, start + page + 16 * at)) for at in range(len(exported))]
    elsewhere = b"".join((name if name in rivals else "").encode().ljust(16, b"\0") for name in exported)
    data = b"".join(rows).ljust(page, b"\0") + strings.ljust(page, b"\0") + elsewhere.ljust(page, b"\0")
    names = b"".join(name.encode() + b"\0" for name in exported)
    offsets = array("I", [names.index(name.encode()) for name in exported])
    addresses = [start + 0x40 * at for at in range(len(exported))]
    symbols = SymbolList(names, offsets, addresses, b"T" * len(exported), "kallsyms")
    assert address_of_start(data, symbols, word) == (start if found else None)


@pytest.mark.parametrize(
    ("end_of_data", "init", "held"), [(0x3000, (0x1000, 0x2000), 0x3000), (0x1000, (0x2000, 0x3000), 0x3000)]
)
def test_what_is_after_the_kernel_in_its_file_is_left_out(end_of_data: int, init: tuple[int, int], held: int) -> None:
    """arm64 has its data at the end, s390x its init memory."""
    at = {"_edata": BASE + end_of_data, "_sinittext": BASE + init[0], "__init_end": BASE + init[1]}
    assert held_bytes(0x3200, at.get, BASE) == held
    assert held_bytes(0x3200, {}.get, BASE) == 0x3200
