"""Virtual and physical addresses of a kernel: its page tables, and the two linear mappings that need none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from kplug.arch.registry import named
from kplug.arch.types.memory_map import AddressSpaceFacts
from kplug.arch.types.page_tables import Paging, ReadEntry, Translation
from kplug.errors import TargetError
from kplug.lifetimes import FOR_EVER, UNTIL_RESUMED, remembered
from kplug.memory.kernel_note import with_vmcoreinfo
from kplug.memory.reading import entry_reader, try_read
from kplug.runtime.kernel.facts import facts_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.platform import RAM_START


class PageTables:
    """The kernel's mappings. Results are kept while the kernel stands still."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.memo = kernel.memo

    @property
    @remembered(UNTIL_RESUMED)
    def paging(self) -> Paging | None:
        """How the kernel maps its memory; None for an architecture without page tables in kplug."""
        make = named(self._kernel.machine).paging
        return make(_PagingSources(self._kernel, facts_of(self._kernel))) if make is not None else None

    def translate(self, address: int, root: int | None = None) -> Translation | None:
        """The translation of an address by the kernel's page tables, or those at `root` (physical, a user program's).

        None if it is not mapped. TargetError if the tables cannot be walked.
        """
        paging = self._own()
        top = paging.root if root is None else root
        if top is None:
            raise TargetError("the page tables cannot be walked: the place of the kernel's own is not known")
        if not paging.is_canonical(address):
            return None
        return paging.tables(top, root is not None).translate(self.entry, address)

    @cached_property
    def entry(self) -> ReadEntry:
        """What reads the entry of a page table at a physical address. TargetError if it cannot be read."""
        return entry_reader(self._kernel.read_physical, self._own().entry_size, self._kernel.word.order)

    def physical(self, address: int) -> int | None:
        """The physical address of a kernel address: for the image and the direct map without a walk. None if unmapped.

        An image address has one even if the kernel removed the mapping. TargetError as for `translate`.
        """
        linear = self.linear_physical(address)
        if linear is not None:
            return linear
        found = self.translate(address)
        return found.physical if found is not None else None

    def linear_physical(self, address: int) -> int | None:
        """The physical address of an address in the image or the direct map; None for any other."""
        paging = self.paging
        if paging is None:
            return None
        if paging.image is not None and paging.image_offset is not None and address in paging.image:
            return address - paging.image_offset
        if paging.direct_map is not None and paging.direct_offset is not None and address in paging.direct_map:
            return address - paging.direct_offset
        return None

    def direct_address(self, physical: int) -> int | None:
        """The direct map's address of a physical address; None if it has none."""
        paging = self.paging
        if paging is None or paging.direct_map is None or paging.direct_offset is None:
            return None
        address = physical + paging.direct_offset
        return address if address in paging.direct_map else None

    def image_address(self, physical: int) -> int | None:
        """The image's address of a physical address; None if it is not in the image."""
        paging = self.paging
        if paging is None or paging.image is None or paging.image_offset is None:
            return None
        address = physical + paging.image_offset
        return address if address in paging.image else None

    def in_image(self, address: int) -> bool:
        """Whether an address is in the image."""
        paging = self.paging
        return paging is not None and paging.image is not None and address in paging.image

    def in_direct_map(self, address: int) -> bool:
        """Whether an address is in the direct map, up to the last page of RAM."""
        paging = self.paging
        return paging is not None and paging.direct_map is not None and address in paging.direct_map

    def tables_from(self, root: int, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """(physical address, level, first address it maps) of each table below the entries `first` to `last` (not
        included) of the top table at `root`, and of that one. Unreadable tables are skipped.
        """
        paging = self._own()
        tables = paging.tables(root, False)
        word = self._kernel.word
        top = tables.levels - 1
        yield root, top, 0
        waiting = [(root, top, 0)]
        while waiting:
            table, level, start = waiting.pop()
            count = paging.length(tables, level)
            data = try_read(self._kernel.read_physical, table, count * paging.entry_size)
            if data is None:
                continue
            numbers = word.numbers(data, paging.entry_size)
            span = paging.shift(level)
            for number in range(first, last) if level == top else range(count):
                entry = numbers[number]
                below = tables.table_below(entry, level) if entry else None
                if below is not None:
                    place = start | number << span
                    yield below, level - 1, place
                    if level > 1:
                        waiting.append((below, level - 1, place))

    def _own(self) -> Paging:
        paging = self.paging
        if paging is None:
            raise TargetError(f"the page tables cannot be walked: kplug does not know those of {self._kernel.machine}")
        return paging


@remembered(UNTIL_RESUMED)
def page_tables(kernel: Kernel) -> PageTables:
    """The one PageTables of a kernel."""
    return PageTables(kernel)


@remembered(FOR_EVER)
def noted_paging(kernel: Kernel) -> Paging | None:
    """How a kernel maps its memory, as far as VMCOREINFO alone tells it: none of that memory is read."""
    make = named(kernel.machine).paging
    facts = with_vmcoreinfo(AddressSpaceFacts(), kernel.vmcoreinfo, kernel.machine)
    return make(_PagingSources(kernel, facts, reads=False)) if make is not None else None


def is_zero_filled(kernel: Kernel, address: int) -> bool:
    """Whether a virtual address reads as zeros because the dump does not contain the page: it was excluded, or had only
    zeros."""
    tables = page_tables(kernel)
    try:
        linear = tables.linear_physical(address)
        physical = linear if linear is not None else tables.physical(address)
    except TargetError:
        return False
    return physical is not None and kernel.is_zero_filled(physical)


def page_size_of(kernel: Kernel) -> int:
    """The size of its pages; 4 KiB for an architecture without page tables in kplug."""
    paging = page_tables(kernel).paging
    return paging.page_size if paging is not None else 4096


def _image_range(kernel: Kernel) -> range | None:
    image = kernel.image
    root = image.image.regions.root if image is not None else None
    if image is None or root is None:
        return None
    return range(image.placement.runtime(root.start), image.placement.runtime(root.end))


class _PagingSources:
    """What `Architecture.paging` needs from a kernel (`PagingSources`)."""

    def __init__(self, kernel: Kernel, facts: AddressSpaceFacts, reads: bool = True) -> None:
        self._kernel = kernel
        self._reads = reads
        self.facts = facts
        self.numbers = kernel.vmcoreinfo.numbers
        self.others = kernel.vmcoreinfo.others
        self.ram_start: int | None = kernel.prog.cache.get(RAM_START)
        self.little_endian = kernel.word.little_endian
        self.page_size = kernel.vmcoreinfo.page_size
        self.image = _image_range(kernel)
        self.has_image = kernel.image is not None

    def symbol(self, *names: str) -> int | None:
        symbols = self._kernel.vmcoreinfo.symbols
        found = (symbols.get(name) or self._kernel.symbol(name) for name in names)
        return next((address for address in found if address), None)

    def has_symbol(self, name: str) -> bool:
        return self._kernel.symbol(name) is not None

    def variable(self, name: str, image_offset: int | None = None) -> int | None:
        address = self._kernel.symbol(name)
        if address is None or not self._reads:
            return None
        word = self._kernel.word
        if image_offset is None:
            data = try_read(self._kernel.read, address, word.size)
        else:
            data = try_read(self._kernel.read_physical, address - image_offset, word.size)
        return None if data is None else word.at(data, 0)
