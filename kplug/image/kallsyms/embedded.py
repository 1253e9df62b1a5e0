"""The kallsyms tables inside an ELF file of a kernel."""

from __future__ import annotations

from kplug.image.elf.file import ElfFile
from kplug.image.kallsyms.finder import find_tables
from kplug.image.kallsyms.symbols import decode
from kplug.image.kallsyms.tables import KallsymsNotFoundError
from kplug.image.symbols.symbol_list import SymbolList, no_symbols


def embedded_symbols(elf: ElfFile, data: bytes) -> SymbolList:
    """The kallsyms in an ELF file with the bytes `data`; an empty list with the reason, if it has none."""

    def address_of(position: int) -> int | None:
        for each in elf.loaded:
            if each.offset <= position < each.offset + each.size:
                return each.address + position - each.offset
        return None

    try:
        return decode(data, find_tables(data, name=elf.path, address_of=address_of), name=elf.path)
    except KallsymsNotFoundError as error:
        return no_symbols(str(error))
