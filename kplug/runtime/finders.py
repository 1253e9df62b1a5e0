"""Finders that give drgn a kernel's symbols and types without debug information: from the image, and from BTF.

drgn 0.3 reads DWARF. It can read kallsyms, for kernels since 6.0, but not BTF. Both are supplied by finders that are
registered with drgn, which calls them for look-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakMethod

import drgn
from drgn import FindObjectFlags, SymbolBinding, SymbolKind

from kplug.errors import InputError, TargetError
from kplug.files.opening import open_file
from kplug.image.btf import MAX_BYTES, Btf
from kplug.image.placed import PlacedImage
from kplug.image.symbols.symbol import Symbol
from kplug.lifetimes import FOR_EVER, remembered
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.images import symbol_extent
from kplug.runtime.tables.memory_sections import first_struct_page
from kplug.runtime.types.btf import BtfTypes

NAME = "kplug"
NO_TYPES = "none: there is neither DWARF nor BTF"
# The header, and some types.
_COMPARED_BYTES = 1024
_VMEMMAP, _POPULATES_VMEMMAP = "vmemmap", "vmemmap_populate"
_RUNNING = "/sys/kernel/btf/vmlinux"
_BINDINGS = {
    "LOCAL": SymbolBinding.LOCAL,
    "GLOBAL": SymbolBinding.GLOBAL,
    "WEAK": SymbolBinding.WEAK,
    "UNIQUE": SymbolBinding.UNIQUE,
}


class Finders:
    """The finders for a kernel's Program, as long as the kernel object exists. BTF is read at the first question about
    a type."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._types: BtfTypes | None = None
        self._sought = False
        self._addresses: dict[str, int | None] = {}
        self._first_struct_page: int | None = None
        #: The source of the types, for the user; None before they were asked for, and if there are none.
        self.types_source: str | None = None
        #: Why there are none.
        self.problem: str | None = None

    def register(self) -> None:
        """Register with drgn, for what it finds nowhere else."""
        prog = self._kernel.prog
        # Other sessions with this Program may have registered theirs, and may have ended.
        name = f"{NAME} {len(prog.registered_type_finders())}"
        # Weakly: a Program keeps what it is given for ever, and so would keep itself, its dump and its guest alive.
        find_type, find_object = WeakMethod(self._find_type), WeakMethod(self._find_object)
        find_symbols = WeakMethod(self._find_symbols)

        def types(*question: Any) -> drgn.Type | None:
            find = find_type()
            return find(*question) if find is not None else None

        def objects(*question: Any) -> drgn.Object | None:
            find = find_object()
            return find(*question) if find is not None else None

        def symbols(*question: Any) -> Sequence[drgn.Symbol]:
            find = find_symbols()
            return find(*question) if find is not None else []

        prog.register_type_finder(name, types, enable_index=-1)
        prog.register_object_finder(name, objects, enable_index=-1)
        prog.register_symbol_finder(name, symbols, enable_index=-1)
        self._tell_extent()

    def _tell_extent(self) -> None:
        """Give drgn the kernel's place, which it otherwise knows from a file: then it finds the ORC tables in memory
        (CONFIG_UNWINDER_ORC), with which it unwinds stacks of x86_64.
        """
        kernel = self._kernel
        start, end = kernel.symbol("_text") or kernel.symbol("_stext"), kernel.symbol("_end")
        if start is None or end is None or start >= end:
            return
        with suppress(LookupError, ValueError):
            main = kernel.prog.main_module()
            if main.address_ranges is None:
                main.address_range = (start, end)

    # -- types ---------------------------------------------------------------------------------------------------------

    @property
    def types(self) -> BtfTypes | None:
        """The types; None if there is no BTF."""
        if not self._sought:
            self._sought = True
            kernel = self._kernel
            try:
                found = kernel_btf(kernel)
            except (InputError, TargetError) as error:
                self.problem = str(error)
                found = None
            if found is not None:
                self._types = BtfTypes(kernel.prog, found, self._address_of, kernel.machine)
                self.types_source = found.where
            elif self.problem is None and _lists_code_only(kernel):
                self.problem = "kallsyms without variables (no CONFIG_KALLSYMS_ALL) does not say where BTF is"
        return self._types

    def _find_type(self, prog: drgn.Program, kinds: Any, name: str, filename: str | None) -> drgn.Type | None:
        return self.types.find_type(prog, kinds, name, filename) if self.types is not None else None

    def _find_object(
        self, prog: drgn.Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> drgn.Object | None:
        if self.types is None:
            return None
        found = self.types.find_object(prog, name, flags, filename)
        return self._vmemmap(prog) if found is None and name == _VMEMMAP else found

    def _vmemmap(self, prog: drgn.Program) -> drgn.Object | None:
        """The array of struct pages, which is no variable. drgn has it where it finds the function's type: BTF does not
        have that if its pahole took functions that can be traced only (those of the time of 5.10).
        """
        if self._kernel.symbol(_POPULATES_VMEMMAP) is None:  # without SPARSEMEM_VMEMMAP there is no such array
            return None
        if self._first_struct_page is None:  # it stays where it is
            self._first_struct_page = first_struct_page(prog)
        first = self._first_struct_page
        return drgn.Object(prog, "struct page *", first) if first is not None else None

    # -- symbols -------------------------------------------------------------------------------------------------------

    def _address_of(self, name: str) -> int | None:
        """The address of the one symbol of that name in the vmlinux; None if there is none, or several."""
        if name not in self._addresses:
            placed = self._kernel.image
            symbols = placed.image.symbols.exact(name) if placed is not None else []
            found = {placed.symbol_address(symbol) for symbol in symbols} if placed is not None else set()
            self._addresses[name] = found.pop() if len(found) == 1 else None
        return self._addresses[name]

    def _find_symbols(
        self, prog: drgn.Program, name: str | None, address: int | None, one: bool
    ) -> Sequence[drgn.Symbol]:
        """drgn's look-up: symbols of that name, that address, or both. A request for all symbols is not answered."""
        if address is not None:
            return [found for found in self._symbols_at(address) if name is None or found.name == name]
        placed = self._kernel.image
        if name is None or placed is None:
            return []
        symbols = placed.image.symbols.exact(name)
        return [_drgn_symbol(placed, symbol, symbol.size) for symbol in (symbols[:1] if one else symbols)]

    def _symbols_at(self, address: int) -> Sequence[drgn.Symbol]:
        found = symbol_extent(self._kernel, address)
        if found is None:
            return []
        placed, extent = found
        return [_drgn_symbol(placed, extent.symbol, extent.end - extent.start)]


def _drgn_symbol(placed: PlacedImage, symbol: Symbol, size: int) -> drgn.Symbol:
    kind = SymbolKind.FUNC if symbol.letter in "tT" else SymbolKind.OBJECT
    binding = _BINDINGS.get(symbol.binding, SymbolBinding.UNKNOWN)
    return drgn.Symbol(symbol.name, placed.symbol_address(symbol), size, binding, kind)


# -- where BTF is ------------------------------------------------------------------------------------------------------


def kernel_btf(kernel: Kernel) -> Btf | None:
    """The kernel's BTF: in its memory, in the file of its image, or as the running kernel shows it; None if nowhere.

    InputError or TargetError if it is there but cannot be read.
    """
    ways: tuple[Callable[[Kernel], Btf | None], ...] = (_in_memory, _in_the_image, _of_the_running_kernel)
    return next((found for way in ways if (found := way(kernel)) is not None), None)


def _in_memory(kernel: Kernel) -> Btf | None:
    start, end = kernel.symbol("__start_BTF"), kernel.symbol("__stop_BTF")
    if start is None or end is None or not 0 < end - start <= MAX_BYTES:
        return None
    # It has some 4 MiB, thousands of packets of a guest's stub: one is read if the image's file has the same.
    data = _section_of_the_image(kernel) if kernel.live else None
    if data is not None and len(data) == end - start and data.startswith(kernel.read(start, _COMPARED_BYTES)):
        return _in_the_image(kernel)
    return Btf(kernel.read(start, end - start), "BTF in memory")


def _in_the_image(kernel: Kernel) -> Btf | None:
    placed, data = kernel.image, _section_of_the_image(kernel)
    return Btf(data, f"BTF of {placed.image.path}") if placed is not None and data is not None else None


def _section_of_the_image(kernel: Kernel) -> bytes | None:
    elf = kernel.image.image.elf if kernel.image is not None else None
    section = elf.section(".BTF") if elf is not None else None
    return elf.section_bytes(section, MAX_BYTES) if elf is not None and section is not None else None


def _lists_code_only(kernel: Kernel) -> bool:
    listed = kernel.image.image.listed if kernel.image is not None else None
    return listed is not None and not any(letter in listed.letters for letter in b"drb")


def _of_the_running_kernel(kernel: Kernel) -> Btf | None:
    wanted = drgn.ProgramFlags.IS_LIVE | drgn.ProgramFlags.IS_LOCAL
    if kernel.prog.flags & wanted != wanted:
        return None
    try:
        with open_file(_RUNNING) as file:
            return Btf(file.read(MAX_BYTES + 1), _RUNNING)
    except InputError:
        return None


# -- of a kernel -------------------------------------------------------------------------------------------------------


@remembered(FOR_EVER)
def finders_of(kernel: Kernel) -> Finders:
    """The finders of a kernel without debug information, registered with its Program."""
    finders = Finders(kernel)
    finders.register()
    return finders


def types_source(kernel: Kernel) -> str:
    """The source of the kernel's types, or why there are none, for the user."""
    if kernel.has_dwarf:
        return "DWARF" if kernel.has_types else NO_TYPES
    finders = finders_of(kernel)
    if finders.types is not None and finders.types_source is not None:  # `types` looks for them
        return finders.types_source
    return f"none: {finders.problem}" if finders.problem else NO_TYPES
