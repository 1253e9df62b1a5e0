"""Virtual and physical addresses of a kernel: its page tables, and the two linear mappings that need none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from kplug.arch.aarch64 import page_tables as aarch64
from kplug.arch.types.page_tables import Tables, Translation
from kplug.arch.x86_64 import page_tables as x86_64
from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_MOVED, remembered
from kplug.memory.reading import try_read
from kplug.runtime.kernel.facts import facts_of
from kplug.runtime.kernel.kernel import Kernel

_START_KERNEL_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map: where x86_64 maps the image's memory
_X86_NO_EXECUTE = 1 << 63  # _PAGE_NX
# As compiled, by depth: __PAGE_OFFSET_BASE_L4 and L5, and the size of that area.
_X86_DIRECT_MAPS = {4: (0xFFFF888000000000, 1 << 46), 5: (0xFF11000000000000, 1 << 55)}


@dataclass(frozen=True)
class Paging:
    """How one kernel maps its memory.

    `image` is where the image is (virtual), `image_offset` what its virtual addresses are above the physical ones;
    `direct_map` likewise, up to the last page of RAM. Both are None where nothing tells. `root` is the physical address
    of the kernel's own tables, `tables(root, user)` makes tables of the same shape. `address_bits` are those that page
    tables translate; the ones above repeat the highest, or (arm64) are all the same.
    """

    page_shift: int
    address_bits: int
    image: range | None
    image_offset: int | None
    direct_map: range | None
    direct_offset: int | None
    root: int | None
    tables: Callable[[int, bool], Tables]
    upper_half: int

    @property
    def page_size(self) -> int:
        return 1 << self.page_shift

    def is_user(self, address: int) -> bool:
        """Whether an address belongs to user programs, by its highest bit."""
        return address < 1 << 63

    def is_canonical(self, address: int) -> bool:
        """Whether page tables can translate the address at all."""
        return address >= self.upper_half or address < (1 << 64) - self.upper_half


class PageTables:
    """The kernel's mappings. What was found is kept as long as the kernel stands still."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.memo = kernel.memo

    @property
    @remembered(UNTIL_MOVED)
    def paging(self) -> Paging | None:
        """How the kernel maps its memory; None on an architecture that kplug has no tables of."""
        make = {"x86_64": _x86_64, "aarch64": _aarch64}.get(self._kernel.machine)
        return make(self._kernel) if make is not None else None

    def translate(self, address: int, root: int | None = None) -> Translation | None:
        """Where the kernel's page tables lead an address, or those at `root` (physical, a user program's).

        None where they map nothing. TargetError where they cannot be walked.
        """
        paging = self._own()
        top = paging.root if root is None else root
        if top is None:
            raise TargetError("the page tables cannot be walked: nothing tells where the kernel's own are")
        if not paging.is_canonical(address):
            return None
        return paging.tables(top, root is not None).translate(self.entry, address)

    def entry(self, physical: int) -> int:
        """The entry of a page table at a physical address. TargetError if it cannot be read."""
        try:
            return int.from_bytes(self._kernel.read_physical(physical, 8), "little")
        except TargetError as error:
            raise TargetError(f"the page table entry at physical {physical:#x} cannot be read: {error}") from None

    def physical(self, address: int) -> int | None:
        """The physical address of a kernel address: of the image and the direct map without a walk. None if unmapped.

        An image address has one even where the kernel took the mapping away. TargetError as of `translate`.
        """
        linear = self.linear_physical(address)
        if linear is not None:
            return linear
        found = self.translate(address)
        return found.physical if found is not None else None

    def linear_physical(self, address: int) -> int | None:
        """The physical address of an address of the image or the direct map; None of any other."""
        paging = self.paging
        if paging is None:
            return None
        if paging.image is not None and paging.image_offset is not None and address in paging.image:
            return address - paging.image_offset
        if paging.direct_map is not None and paging.direct_offset is not None and address in paging.direct_map:
            return address - paging.direct_offset
        return None

    def direct_address(self, physical: int) -> int | None:
        """Where the direct map has a physical address; None if it does not."""
        paging = self.paging
        if paging is None or paging.direct_map is None or paging.direct_offset is None:
            return None
        address = physical + paging.direct_offset
        return address if address in paging.direct_map else None

    def image_address(self, physical: int) -> int | None:
        """Where the image has a physical address; None if it is none of the image's."""
        paging = self.paging
        if paging is None or paging.image is None or paging.image_offset is None:
            return None
        address = physical + paging.image_offset
        return address if address in paging.image else None

    def in_image(self, address: int) -> bool:
        """Whether an address is the image's."""
        paging = self.paging
        return paging is not None and paging.image is not None and address in paging.image

    def in_direct_map(self, address: int) -> bool:
        """Whether an address is the direct map's, up to the last page of RAM."""
        paging = self.paging
        return paging is not None and paging.direct_map is not None and address in paging.direct_map

    def tables_from(self, root: int, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """(physical address, level, first address it maps) of each table below the entries `first` to `last` (not
        included) of the top table at `root`, and of that one. Tables that cannot be read are passed over.
        """
        paging = self._own()
        tables = paging.tables(root, False)
        per_level = paging.page_shift - 3
        top = tables.levels - 1
        yield root, top, 0
        waiting = [(root, top, 0)]
        while waiting:
            table, level, start = waiting.pop()
            count = tables.entries
            data = try_read(self._kernel.read_physical, table, count * 8)
            if data is None:
                continue
            numbers = memoryview(data).cast("Q")
            span = paging.page_shift + per_level * level
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


@remembered(UNTIL_MOVED)
def page_tables(kernel: Kernel) -> PageTables:
    """The one PageTables of a kernel."""
    return PageTables(kernel)


def is_left_out(kernel: Kernel, address: int) -> bool:
    """Whether a virtual address reads as zeros because the dump has nothing of the page: it was excluded, or had only
    zeros."""
    tables = page_tables(kernel)
    try:
        linear = tables.linear_physical(address)
        physical = linear if linear is not None else tables.physical(address)
    except TargetError:
        return False
    return physical is not None and kernel.left_out(physical)


def page_size_of(kernel: Kernel) -> int:
    """The bytes of its pages; 4 KiB on an architecture that kplug has no tables of."""
    paging = page_tables(kernel).paging
    return paging.page_size if paging is not None else 4096


def _image_range(kernel: Kernel) -> range | None:
    image = kernel.image
    root = image.image.regions.root if image is not None else None
    if image is None or root is None:
        return None
    return range(image.placement.runtime(root.start), image.placement.runtime(root.end))


def _variable(kernel: Kernel, name: str, size: int = 8, image_offset: int | None = None) -> int | None:
    """The value of an unsigned variable; None if there is none or it cannot be read.

    It is read by its physical address where the image's offset from those is given: that takes no page tables.
    """
    address = kernel.symbol(name)
    if address is None:
        return None
    if image_offset is None:
        data = try_read(kernel.read, address, size)
    else:
        data = try_read(kernel.read_physical, address - image_offset, size)
    return None if data is None else int.from_bytes(data, "little")


def _symbol(kernel: Kernel, *names: str) -> int | None:
    """The address of the first of these that VMCOREINFO or the image has."""
    symbols = kernel.vmcoreinfo.symbols
    found = (symbols.get(name) or kernel.symbol(name) for name in names)
    return next((address for address in found if address), None)


def _x86_64(kernel: Kernel) -> Paging:
    numbers = kernel.vmcoreinfo.numbers
    facts = facts_of(kernel)
    five = numbers.get("pgtable_l5_enabled")
    if five is None:
        five = facts.pgtable_l5_enabled
    levels = 5 if five else 4
    phys_base = numbers.get("phys_base")
    if phys_base is None:
        found = _variable(kernel, "phys_base")
        phys_base = found - (1 << 64) if found is not None and found >> 63 else found
    image_offset = None if phys_base is None else _START_KERNEL_MAP - phys_base
    top = _symbol(kernel, "init_top_pgt", "init_level4_pgt", "swapper_pg_dir")  # init_level4_pgt: its name up to 4.12
    compiled, size = _X86_DIRECT_MAPS[levels]
    # A kernel without the variable cannot move its direct map.
    base = facts.page_offset_base or _variable(kernel, "page_offset_base", image_offset=image_offset)
    if base is None and kernel.image is not None and kernel.symbol("page_offset_base") is None:
        base = compiled
    max_pfn = facts.max_pfn or _variable(kernel, "max_pfn", image_offset=image_offset)
    supported = _variable(
        kernel, "__supported_pte_mask", image_offset=image_offset
    )  # without NX where the CPU has none, or noexec=off
    encryption = numbers.get("sme_mask", 0)
    no_execute = supported is None or bool(supported & _X86_NO_EXECUTE)
    bits = 12 + 9 * levels
    return Paging(
        page_shift=12,
        address_bits=bits,
        image=_image_range(kernel),
        image_offset=image_offset,
        direct_map=range(base, base + (min(size, max_pfn << 12) if max_pfn else size)) if base else None,
        direct_offset=base or None,
        root=None if top is None or image_offset is None else top - image_offset,
        tables=lambda root, _user: x86_64.Tables(root, levels, no_execute, encryption),
        upper_half=(1 << 64) - (1 << bits - 1),
    )


def _aarch64(kernel: Kernel) -> Paging:
    info, numbers = kernel.vmcoreinfo, kernel.vmcoreinfo.numbers
    page_size = info.page_size or 4096
    shift = page_size.bit_length() - 1
    va_bits = numbers.get("VA_BITS", 48)
    # What the CPU was set up for; a kernel built for 52 bits runs with 48 where it has no more.
    t1sz = numbers.get("TCR_EL1_T1SZ")
    bits = 64 - t1sz if t1sz is not None else min(va_bits, 48) if shift < 16 else va_bits
    offset = numbers.get("kimage_voffset")  # printed as unsigned
    physical_start = numbers.get("PHYS_OFFSET")
    if physical_start is not None and physical_start >> 63:
        physical_start -= 1 << 64  # negative where a 52-bit kernel runs with 48 bits
    linear = (1 << 64) - (1 << va_bits)
    linear_end = (1 << 64) - (1 << min(va_bits, 47 if shift == 14 else 48) - 1)  # _PAGE_END(VA_BITS_MIN)
    max_pfn = facts_of(kernel).max_pfn or _variable(kernel, "max_pfn", image_offset=offset)
    direct_map = direct_offset = None
    if physical_start is not None:
        direct_offset = linear - physical_start
        end = min(linear_end, (max_pfn << shift) + direct_offset) if max_pfn else linear_end
        direct_map = range(max(linear, direct_offset), max(end, linear))
    top = _symbol(kernel, "swapper_pg_dir")
    return Paging(
        page_shift=shift,
        address_bits=bits,
        image=_image_range(kernel),
        image_offset=offset,
        direct_map=direct_map,
        direct_offset=direct_offset,
        root=None if top is None or offset is None else top - offset,
        tables=lambda root, user: aarch64.Tables(root, bits, shift, user),
        upper_half=(1 << 64) - (1 << bits),
    )
