"""The BTF of a kernel whose types no debugger or library knows: in its file, else in its memory."""

from __future__ import annotations

from functools import lru_cache

from kplug.image.btf import MAX_BYTES, Btf
from kplug.image.btf_layouts import BtfLayouts
from kplug.image.placed import PlacedImage
from kplug.memory.reading import Read


def btf_layouts(placed: PlacedImage, read: Read | None) -> BtfLayouts | None:
    """The types in the BTF of a vmlinux, or of the memory that `read` reads; None if there is none.

    InputError or TargetError if it is there but cannot be read.
    """
    found = _in_file(placed)
    if found is None and read is not None:
        found = _in_memory(placed, read)
    return BtfLayouts(found, placed.image.elf.word.size) if found is not None else None


@lru_cache(maxsize=2)
def _in_file(placed: PlacedImage) -> Btf | None:
    section = placed.image.elf.section(".BTF")
    if section is None:
        return None
    return Btf(placed.image.elf.section_bytes(section, MAX_BYTES), f"BTF of {placed.image.path}")


def _in_memory(placed: PlacedImage, read: Read) -> Btf | None:
    start, end = (_symbol(placed, name) for name in ("__start_BTF", "__stop_BTF"))
    if start is None or end is None or not 0 < end - start <= MAX_BYTES:
        return None
    return Btf(read(start, end - start), "BTF in memory")


def _symbol(placed: PlacedImage, name: str) -> int | None:
    symbols = placed.image.symbols.exact(name)
    return placed.symbol_address(symbols[0]) if symbols else None
