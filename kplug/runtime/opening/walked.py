"""The kernel's virtual memory in a Program whose page tables drgn cannot walk: kplug walks them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import drgn

from kplug.arch.registry import named
from kplug.arch.types.memory_map import AddressSpaceFacts
from kplug.arch.types.page_tables import Tables
from kplug.arch.types.word import WIDEST_MASK, WordFormat, byte_order
from kplug.errors import TargetError
from kplug.memory.kernel_note import with_vmcoreinfo
from kplug.memory.reading import FaultError, entry_reader
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.kernel.platform import RAM_START, machine_of, word_of
from kplug.runtime.opening import vmcoreinfo_search

_MOST_STARTS = 64
_MOST_SYMBOLS = 1 << 23


def walk_for_drgn(prog: drgn.Program, starts: Iterable[int], *, still: bool) -> None:
    """Give the Program the kernel's virtual memory, if drgn has no way to it and kplug knows the page tables.

    `starts` are the physical addresses at which memory may begin, which some kernels' tables are found by; `still`:
    the kernel does not run meanwhile. The tables count if they lead to the kernel's own name.
    """
    make = named(machine_of(prog)).paging
    if make is None or not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        return
    info = VmcoreInfo(prog["VMCOREINFO"].string_().decode("utf-8", "replace"))
    if "init_uts_ns" not in info.symbols or vmcoreinfo_search.name_is_there(prog, info):
        return
    word = word_of(prog)
    facts = with_vmcoreinfo(AddressSpaceFacts(), info, machine_of(prog))
    for start in sorted(set(starts))[:_MOST_STARTS] or [0]:
        paging = make(_Noted(info, facts, start, word.little_endian))
        if paging.root is None:
            continue
        walker = _Walker(prog, paging.tables(paging.root, False), word, still)
        if vmcoreinfo_search.name_is_there(prog, info, walker.read):
            first = paging.kernel_start
            prog.cache[RAM_START] = start
            # drgn takes a size of 64 bits.
            prog.add_memory_segment(first, min(word.mask + 1 - first, WIDEST_MASK), walker.segment, False)
            return


def has_other_order(prog: drgn.Program) -> bool:
    """Whether the kernel's words are in the other byte order than the Program's: the number of its symbols tells."""
    info = VmcoreInfo(prog["VMCOREINFO"].string_().decode("utf-8", "replace"))
    address = info.symbols.get("kallsyms_num_syms")
    if address is None:
        return False
    try:
        data = bytes(prog.read(address, 4))
    except (drgn.FaultError, ValueError, OverflowError):
        return False
    word = word_of(prog)
    here, there = (int.from_bytes(data, order) for order in (word.order, byte_order(not word.little_endian)))
    return here > _MOST_SYMBOLS >= there > 0


class _Noted:
    """What `Architecture.paging` needs (`PagingSources`), as far as VMCOREINFO tells it."""

    has_image = False

    def __init__(self, info: VmcoreInfo, facts: AddressSpaceFacts, ram_start: int, little_endian: bool) -> None:
        self.image: range | None = None
        self.facts = facts
        self.numbers: Mapping[str, int] = info.numbers
        self.others: Mapping[str, str] = info.others
        self.page_size = info.page_size
        self.ram_start: int | None = ram_start
        self.little_endian = little_endian
        self._symbols = info.symbols

    def symbol(self, *names: str) -> int | None:
        return next((self._symbols[name] for name in names if self._symbols.get(name)), None)

    def has_symbol(self, name: str) -> bool:
        return name in self._symbols

    def variable(self, name: str, image_offset: int | None = None) -> int | None:
        return None


class _Walker:
    """Reads virtual memory through page tables. What one page translates to is kept where the kernel stands still."""

    def __init__(self, prog: drgn.Program, tables: Tables, word: WordFormat, still: bool) -> None:
        self._prog = prog
        self._tables = tables
        self._still = still
        self._entry = entry_reader(self._physical, tables.entry_size, word.order)
        self._pages: dict[int, int] = {}

    def segment(self, address: int, size: int, offset: int, physical: bool) -> bytes:
        """What drgn calls for bytes of a memory segment."""
        return self.read(address, size)

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a virtual address. drgn.FaultError if one is not mapped."""
        parts = []
        while size:
            place, room = self._place(address)
            part = min(size, room)
            parts.append(self._prog.read(place, part, True))
            address, size = address + part, size - part
        return b"".join(parts)

    def _place(self, address: int) -> tuple[int, int]:
        """The physical address, and how many bytes after it belong to the same 4 KiB."""
        within = address & 0xFFF
        page = self._pages.get(address - within)
        if page is None:
            try:
                found = self._tables.translate(self._entry, address - within)
            except TargetError as error:
                raise drgn.FaultError(str(error), address) from None
            if found is None:
                raise drgn.FaultError("address is not mapped", address)
            page = found.physical
            if self._still:
                self._pages[address - within] = page
        return page + within, 0x1000 - within

    def _physical(self, address: int, size: int) -> bytes:
        try:
            return bytes(self._prog.read(address, size, True))
        except drgn.FaultError as error:
            raise FaultError(str(error)) from None
