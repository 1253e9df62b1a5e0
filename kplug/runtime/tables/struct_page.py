"""Page frames, from the kernel's struct pages."""

from __future__ import annotations

from collections.abc import Mapping

import drgn

from kplug.errors import TargetError
from kplug.frozen import Frozen, replace
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import FaultError, try_read
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.cpus import possible_cpus
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.nodes import online_nodes
from kplug.runtime.tables.memory_sections import has_struct_pages
from kplug.runtime.tables.translation import page_tables

FREE, SLAB, ANON, FILE, PAGE_TABLE, RESERVED = "free", "slab", "anon", "file", "pagetable", "reserved"
KERNEL, VMALLOC, LARGE_KMALLOC = "kernel", "vmalloc", "large_kmalloc"

# Names of page types in answers; others have the kernel's own name.
_TYPE_STATES = {"buddy": FREE, "slab": SLAB, "table": PAGE_TABLE}
_MOST_ORDERS = 17  # MAX_PAGE_ORDER is 10 nearly everywhere; 13 with 64 KiB pages, and nowhere above 16
_PER_CPU_ORDERS = 4  # PAGE_ALLOC_COSTLY_ORDER + 1
_INT = 4  # the bytes of an int
_MAX_PER_CPU_FREE = 1 << 20  # pages on the per-CPU lists that are looked at

# mm.h, page-flags.h: the low bits of page->mapping.
MAPPING_BITS = 3
_MAPPING_ANON, _MAPPING_MOVABLE = 1, 2


class Page(Frozen):
    """The facts in one struct page. `state` is None if it is not certain.

    `head` is the page frame number of the first page of the compound page or free block that this one belongs to (its
    own if it belongs to none), of 2**`order` pages. `mapping` is page->mapping of the head. `mapcount` is None if the
    field holds a type instead.
    """

    pfn: int
    address: int
    flags: int
    refcount: int
    mapcount: int | None
    state: str | None
    head: int
    order: int
    mapping: int
    free_list: str | None = None


class _Types:
    """The types that a page's mapcount field can hold, by the newest form that the kernel has."""

    def __init__(self, kernel: Kernel) -> None:
        self.by_value: dict[int, str] = {}
        try:
            enumerators = kernel.prog.type("enum pagetype").enumerators or ()
        except LookupError:
            enumerators = ()
        names = {enumerator.name: enumerator.value for enumerator in enumerators}
        # 4ffca5a96678 (6.12): the type is the field's top byte.
        self.by_top_byte = {
            value: name[5:].lower()
            for name, value in names.items()
            if name.startswith("PGTY_") and value != 0xFF  # PGTY_mapcount_underflow: the count of an unmapped page, -1
        }
        if self.by_top_byte:
            return
        # 6.11: an enumeration; before, macros. A type's bit is the one that is clear.
        self.by_value = {~value & 0xFFFFFFFF: name[3:] for name, value in names.items() if name.startswith("PG_")}
        if self.by_value:
            return
        for name in ("BUDDY", "OFFLINE", "SLAB", "HUGETLB"):
            value = kernel.vmcoreinfo.numbers.get(f"PAGE_{name}_MAPCOUNT_VALUE")
            if value is not None:
                self.by_value[value & 0xFFFFFFFF] = name.lower()
        # 18b2db3b0385 (5.11) took PG_kmemcg away, so PG_table moved from 0x400 to 0x200; the series put memcg_data
        # into struct page.
        if kernel.prog.type("struct page").has_member("memcg_data"):
            self.by_value[~0x200 & 0xFFFFFFFF] = "table"

    def of(self, field: int) -> str | None:
        top = field >> 24
        known = self.by_top_byte.get(top) or self.by_value.get(field)
        # page_type_has_type(): anything below PGTY_mapcount_underflow is not a count.
        return known or (f"type {top:#x}" if self.by_top_byte and 0x80 <= top < 0xFF else None)


def _first_page(prog: drgn.Program) -> int:
    """The struct page of page frame 0, whether there is one or not: the array of all begins there."""
    try:
        first: int = prog["vmemmap"].value_()
    except LookupError:  # one array without holes
        first = (prog["mem_map"] - prog["ARCH_PFN_OFFSET"]).value_()
    return first


class Pages:
    """The struct pages of a kernel. Needs its types."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.memo = kernel.memo
        self._word = kernel.word
        self._last: Page | None = None
        with kernel.reading("struct page"):
            prog = kernel.prog
            page = prog.type("struct page")
            self.size = page.size or 0
            self.base = _first_page(prog)
            self._flags = drgn.offsetof(page, "flags")
            self._refcount = drgn.offsetof(page, "_refcount")
            self._mapcount = drgn.offsetof(page, "_mapcount")
            self._mapping = drgn.offsetof(page, "mapping")
            self._private = drgn.offsetof(page, "private")
            self._list = drgn.offsetof(page, "lru")
            self._compound: int | None = None
            if page.has_member("compound_head"):
                self._compound = drgn.offsetof(page, "compound_head")
            self._order = self._order_place(prog, page)
            self._types = _Types(kernel)
            flags = prog.type("enum pageflags").enumerators or ()
            bits = {enumerator.name: enumerator.value for enumerator in flags}
            self._reserved = 1 << bits["PG_reserved"]
            self._head = 1 << bits["PG_head"]
            # 46df8e73a4a3 (6.10) made it a type.
            self._slab = 1 << bits["PG_slab"] if "PG_slab" in bits else 0
            self._flag_names: dict[int, str] = {}
            for name, bit in bits.items():
                if bit < bits["__NR_PAGEFLAGS"] and name.startswith("PG_"):
                    self._flag_names.setdefault(bit, name[3:])
            numbers = kernel.vmcoreinfo.numbers
            self._section_shift = numbers.get("SECTION_SIZE_BITS")
            if self._section_shift is not None:
                self._section_shift -= self._page_shift

    @property
    def _page_shift(self) -> int:
        paging = page_tables(self._kernel).paging
        return paging.page_shift if paging is not None else 12

    def _order_place(self, prog: drgn.Program, page: drgn.Type) -> int | None:
        """Where a compound page's order is, from the start of the head's struct page; None if not known."""
        lowest = 0 if self._word.little_endian else self._word.size - 1
        places = [
            ("struct folio", "_folio_order", 0),  # 379708ffde1b (6.1)
            ("struct folio", "_flags_1", lowest),  # ebc1baf5c9b4 (6.6): the low byte of that word
            ("struct page", "compound_order", self.size),
        ]
        for name, member, start in places:
            try:
                kind = page if name == "struct page" else prog.type(name)
            except LookupError:
                continue
            if kind.has_member(member):
                offset: int = drgn.offsetof(kind, member)
                return start + offset
        return None

    @property
    def marks_large_kmalloc(self) -> bool:
        """Whether the kernel's page types have one for what kmalloc gives without a slab (PGTY_large_kmalloc)."""
        return LARGE_KMALLOC in self._types.by_top_byte.values()

    def exists(self, pfn: int) -> bool:
        """Whether the page frame has a struct page."""
        section = self.section(pfn)
        # without sparse memory: one array, from the first page to the last
        return self._first_pfn <= pfn < (self.max_pfn or 0) if section is None else self._is_section(section)

    def section(self, pfn: int) -> int | None:
        """The number of the memory section that a page frame is in; None without sparse memory."""
        return pfn >> self._section_shift if self._section_shift is not None else None

    @remembered(UNTIL_RESUMED)
    def _is_section(self, number: int) -> bool:
        with self._kernel.reading("the memory sections"):
            return has_struct_pages(self._kernel.prog, number)

    @property
    def _first_pfn(self) -> int:
        """The first page frame of RAM, as far as the direct map tells it."""
        paging = page_tables(self._kernel).paging
        if paging is None or paging.direct_map is None or paging.direct_offset is None:
            return 0
        return max(0, paging.direct_map.start - paging.direct_offset >> paging.page_shift)

    @property
    def max_pfn(self) -> int | None:
        """One past the last page frame of RAM; None if that is not known."""
        paging = page_tables(self._kernel).paging
        if paging is None or paging.direct_map is None or paging.direct_offset is None:
            return None
        return paging.direct_map.stop - paging.direct_offset >> paging.page_shift

    def described(self, address: int) -> int | None:
        """The page frame that the struct page at (or around) an address describes; None if there is none."""
        pfn = (address - self.base) // self.size
        limit = self.max_pfn
        if pfn < 0 or limit is None or pfn >= limit or not self.exists(pfn):
            return None
        return pfn

    def raw(self, pfn: int, count: int = 1) -> bytes:
        """The bytes of `count` struct pages. TargetError if they cannot be read."""
        address = self.base + pfn * self.size
        try:
            return self._kernel.read(address, self.size * count)
        except FaultError as error:
            raise TargetError(
                f"the struct page of page frame {pfn:#x} at {address:#x} cannot be read: {error}"
            ) from None

    def is_reserved(self, pfn: int) -> bool:
        """Whether a page is kept from the page allocator: the image's, until it is freed."""
        return bool(self._word.at(self.raw(pfn), self._flags) & self._reserved)

    def flag_text(self, flags: int) -> str:
        """The names of the set flags, as in `enum pageflags` without PG_."""
        return "|".join(name for bit, name in self._flag_names.items() if flags >> bit & 1)

    def page(self, pfn: int) -> Page:
        """What the struct page of a page frame says. TargetError if it cannot be read."""
        if self._last is None or self._last.pfn != pfn:  # several locators ask about the page of one address
            self._last = self._page(pfn)
        return self._last

    def _page(self, pfn: int) -> Page:
        data, word = self.raw(pfn), self._word
        flags, refcount = word.at(data, self._flags), word.signed(data, self._refcount, _INT)
        head, head_data, order = pfn, data, 0
        if flags & self._head or (self._compound is None or word.at(data, self._compound) & 1):
            head = self._head_of(pfn, data, flags)
            if head != pfn:
                head_data = self.raw(head)
            if word.at(head_data, self._flags) & self._head:
                order = self._compound_order(head)
        field = word.unsigned(head_data, self._mapcount, _INT)
        kind = self._types.of(field)
        mapcount = None if kind is not None else word.signed(data, self._mapcount, _INT) + 1
        head_flags = word.at(head_data, self._flags)
        mapping = word.at(head_data, self._mapping)
        if head != pfn:
            refcount = word.signed(head_data, self._refcount, _INT)
        if flags & self._reserved:
            state: str | None = RESERVED
        elif self._slab and head_flags & self._slab:
            state, mapcount = SLAB, None
        elif kind is not None:
            state = _TYPE_STATES.get(kind, kind)
        elif refcount == 0:
            state = None
        elif mapping & _MAPPING_ANON:
            state = ANON
        elif mapping & _MAPPING_MOVABLE:
            state = "movable"
        else:
            state = FILE if mapping else KERNEL
        # A tail page's own flags are the head's fields under another name (its order, since ebc1baf5c9b4, 6.6).
        shown = flags if head == pfn else head_flags
        found = Page(pfn, self.base + pfn * self.size, shown, refcount, mapcount, state, head, order, mapping)
        if kind == "buddy":
            return replace(found, order=min(word.at(data, self._private), _MOST_ORDERS), free_list="buddy")
        return found if state is not None else self._maybe_free(found)

    def _head_of(self, pfn: int, data: bytes, flags: int) -> int:
        """The first page of a compound page."""
        if self._compound is None:  # d50569612c29 (7.1) made it compound_info
            with self._kernel.reading(f"the compound page of page frame {pfn:#x}"):
                page = drgn.Object(self._kernel.prog, "struct page *", self.base + pfn * self.size)
                address: int = helpers.compound_head(page).value_()
        else:
            link = self._word.at(data, self._compound)
            if not link & 1:
                # The head itself, or a page whose struct page is shared with the head's (e7d324850bfc, 5.18).
                following = self._word.at(self.raw(pfn, 2), self.size + self._compound)
                link = following if following & 1 else self.base + pfn * self.size | 1
            address = link - 1
        head, rest = divmod(address - self.base, self.size)
        if rest or not 0 <= head <= pfn:
            raise TargetError(
                f"the struct page of page frame {pfn:#x} is corrupted: its head is said to be at {address:#x}"
            )
        return head

    def _compound_order(self, head: int) -> int:
        if self._order is None:
            return 0
        return min(self.raw(head, 2)[self._order], 48) if self._order < 2 * self.size else 0

    def _maybe_free(self, page: Page) -> Page:
        """A page without references: in a block of the buddy allocator, on a per-CPU list, or neither is certain."""
        for order in range(1, _MOST_ORDERS):
            head = page.pfn & -(1 << order)
            if head == page.pfn or not self.exists(head):
                continue
            data = self.raw(head)
            if self._types.of(self._word.unsigned(data, self._mapcount, _INT)) == "buddy":
                size = self._word.at(data, self._private)
                if size < _MOST_ORDERS and page.pfn < head + (1 << size):
                    return replace(page, state=FREE, head=head, order=size, free_list="buddy", mapcount=None)
                break
        order_of = self._per_cpu_free()
        for order in (*range(_PER_CPU_ORDERS), self._huge_order):
            head = page.pfn & -(1 << order)
            if order_of.get(head, -1) >= order:
                return replace(page, state=FREE, head=head, order=order_of[head], free_list="per-CPU list")
        return page

    @remembered(UNTIL_RESUMED)
    def _per_cpu_free(self) -> Mapping[int, int]:
        """The pages on the per-CPU lists of free ones: page frame number, order of the block."""
        found: dict[int, int] = {}
        with self._kernel.reading("the per-CPU lists of free pages"):
            prog = self._kernel.prog
            cpus = possible_cpus(self._kernel)
            for node in online_nodes(prog):
                for number in range(min(node.nr_zones.value_(), 16)):
                    zone = node.node_zones[number]
                    # 28f836b6777b (5.14): before, pageset, a struct with the pcp in it.
                    sets = zone.per_cpu_pageset if zone.type_.has_member("per_cpu_pageset") else zone.pageset
                    for cpu in cpus:
                        lists = helpers.per_cpu_ptr(sets, cpu)
                        if lists.type_.type.has_member("pcp"):
                            lists = lists.pcp
                        self._walk_per_cpu(lists.lists, found)
        return found

    @property
    def _huge_order(self) -> int:
        paging = page_tables(self._kernel).paging
        if paging is None:
            return self._page_shift - (self._word.size.bit_length() - 1)
        return paging.shift(1) - paging.page_shift

    def _walk_per_cpu(self, lists: drgn.Object, found: dict[int, int]) -> None:
        """Follow the lists of one CPU and zone; each ends when it comes back to its head, or is invalid."""
        start, count = lists.address_, lists.type_.length or 0
        if start is None:
            return
        # MIGRATE_PCPTYPES: as many lists for each order (44042b449872, 5.14), and at the end one or two for huge pages.
        types = 3
        for number in range(count):
            head = start + 2 * self._word.size * number  # struct list_head
            place = self._following(head, head)
            while place != head and len(found) < _MAX_PER_CPU_FREE:
                pfn, rest = divmod(place - self._list - self.base, self.size)
                if rest or pfn < 0 or pfn in found:
                    break  # corrupted, or it loops
                order = number // types if count > types else 0
                found[pfn] = order if order < _PER_CPU_ORDERS else self._huge_order
                place = self._following(place, head)

    def _following(self, place: int, head: int) -> int:
        """What comes after a node of a list; its head where that cannot be read: the list ends there."""
        data = try_read(self._kernel.read, place, self._word.size)
        return self._word.at(data, 0) if data is not None else head


@remembered(UNTIL_RESUMED)
def pages_of(kernel: Kernel) -> Pages | None:
    """The one Pages of a kernel; None without its types."""
    return Pages(kernel) if kernel.has_types else None
