"""What page_owner recorded of a fake kernel's pages: struct page_owner of mm/page_owner.c, in the arrays of
mm/page_ext.c, by the kernels that have each form."""

from __future__ import annotations

import struct

from support.fake_kernel import CPUS, RAM, FakeKernel
from support.fake_machines import PAGE
from support.fake_zones import FakeZones

OFFSET, ENTRY = 8, 88
OWNER, ALLOCATED = 1, 2  # bits of struct page_ext's flags
NOW = 10_000_000_000  # nanoseconds since boot
MAX_ORDER_PAGES = 2

_OLD = {
    "order": ("unsigned short", 0), "last_migrate_reason": ("unsigned short", 2), "gfp_mask": ("unsigned int", 4),
    "handle": ("unsigned int", 8), "free_handle": ("unsigned int", 12),
}  # fmt: skip
_NEW = {
    **_OLD, "ts_nsec": ("unsigned long", 16), "free_ts_nsec": ("unsigned long", 24), "comm": ("char [16]", 32),
    "pid": ("int", 48), "tgid": ("int", 52), "free_pid": ("int", 56), "free_tgid": ("int", 60),
}  # fmt: skip


class FakePageOwner:
    """`old`: 5.4's, which has neither times nor tasks; `oldest`: one before, which has no flag for what is allocated.
    `on`: booted with page_owner=on. Without sparse memory, the array begins at a multiple of MAX_ORDER_PAGES below the
    node, which begins at the second page of RAM."""

    def __init__(
        self, fake: FakeKernel, *, old: bool = False, oldest: bool = False, on: bool = True, sparse: bool = True
    ) -> None:
        self.fake, self._sparse = fake, sparse
        fake.struct("page_ext", 8, flags=("unsigned long", 0))
        if oldest:
            fake.enum("page_ext_flags", PAGE_EXT_DEBUG_GUARD=0, PAGE_EXT_OWNER=1)
        else:
            fake.enum("page_ext_flags", PAGE_EXT_OWNER=0, **{f"PAGE_EXT_OWNER_{'ACTIVE' if old else 'ALLOCATED'}": 1})
        fake.struct("page_owner", 16 if old else 80, **(_OLD if old else _NEW))
        fake.struct("page_ext_operations", 16, offset=("unsigned long", 0), size=("unsigned long", 8))
        fake.variable("page_owner_ops", "struct page_ext_operations", OFFSET if on else 0)
        if old:
            fake.variable("extra_mem", "unsigned long", ENTRY - 8)
        else:
            fake.variable("page_ext_size", "unsigned long", ENTRY)
        for name, handle in (("dummy_handle", 0xD0), ("failure_handle", 0xD1), ("early_handle", 0xD2)):
            fake.variable(name, "unsigned int", handle)
        fake.struct("rq", 16, clock=("unsigned long", 8))
        queue = fake.percpu("runqueues", "struct rq")
        for cpu in range(CPUS):
            fake.words(fake.cpu_area(cpu) + queue + 8, NOW - cpu)
        self.table = fake.take(RAM // PAGE * ENTRY)
        if sparse:
            self._base = self.table - fake.first_pfn * ENTRY
            root, number = divmod(fake.machine.ram // RAM, 128)
            self.pointer = fake.prog["mem_section"][root][number].page_ext.address_ or 0
        else:
            self._flat()
        fake.words(self.pointer, self._base if sparse else self.table)

    def _flat(self) -> None:
        fake = self.fake
        FakeZones(fake)
        fake.struct("free_area", 16, nr_free=("unsigned long", 0))
        fake.struct("zone", 64, free_area=(f"struct free_area [{MAX_ORDER_PAGES.bit_length()}]", 0))
        fake.struct(
            "pglist_data", 192, node_zones=("struct zone [2]", 0), nr_zones=("int", 128), node_id=("int", 132),
            node_start_pfn=("unsigned long", 136), node_spanned_pages=("unsigned long", 144),
            node_page_ext=("struct page_ext *", 152),
        )  # fmt: skip
        node = fake.variable("contig_page_data", "struct pglist_data")
        fake.words(node + 136, fake.first_pfn + 1, RAM // PAGE - 1)
        self.pointer, self._base = node + 152, self.table - fake.first_pfn * ENTRY

    def go_offline(self) -> None:
        """Mark the section's pointer with PAGE_EXT_INVALID. Records are then put where it leads as it is."""
        self._base += 1
        self.fake.words(self.pointer, self._base)

    def entry(self, pfn: int) -> int:
        """Where the struct page_ext of a page is."""
        return self._base + pfn * ENTRY

    def record(self, pfn: int, flags: int = OWNER | ALLOCATED, **values: int | bytes) -> None:
        """Plant a record: the flags of the entry, and members of the structure."""
        self.fake.poke(self.entry(pfn), struct.pack("<Q", flags))
        self.fake.put("page_owner", self.entry(pfn) + OFFSET, values)
