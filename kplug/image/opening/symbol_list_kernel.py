"""A kernel from a list of symbols alone: System.map, /proc/kallsyms."""

from __future__ import annotations

import os

from kplug.arch import registry
from kplug.arch.types.word import WIDEST_BITS
from kplug.image.elf.header_only import bare_elf
from kplug.image.kernel_image import KernelImage
from kplug.image.symbols.symbol_list import SymbolList


def open_system_map(path: str) -> KernelImage:
    """The kernel of a System.map: symbols, and the regions between them."""
    from kplug.image.symbols.listings import read_system_map

    return listed_image(path, read_system_map(path))


def listed_image(path: str, symbols: SymbolList, machine: str | None = None) -> KernelImage:
    """A kernel with nothing but symbols, read from `path`."""
    machine = machine or machine_of(symbols) or ""
    # s390x has its kernel at low addresses.
    bits = WIDEST_BITS if symbols.highest >> 32 else registry.named(machine).bits if machine else 32
    elf = bare_elf(path, machine, bits)
    return KernelImage(elf, name=os.path.basename(path), listed=symbols)


def machine_of(symbols: SymbolList) -> str | None:
    """The architecture whose kernels have these symbols; None if it is not known."""
    for architecture in registry.declared():
        if any(map(symbols.holds, architecture.telling_symbols)):
            return architecture.name
    return None
