"""The per-CPU lists of free pages of a fake kernel: include/linux/mmzone.h of 6.12, without NUMA, with one zone."""

from __future__ import annotations

from support.fake_kernel import FakeKernel

LISTS = 14  # NR_PCP_LISTS: three migrate types for each of the orders 0 to 3, and two for huge pages
_IN_PAGE, _LISTS_AT = 8, 16  # of page->pcp_list, of per_cpu_pages->lists


class FakeZones:
    """Empty lists of both CPUs, and a zone without a span. `old`: the lists are in a struct pageset (before 5.14).

    `zones`: as many are declared, which all span the RAM if there are several.
    """

    def __init__(self, fake: FakeKernel, *, old: bool = False, zones: int = 1) -> None:
        self.fake = fake
        fake.struct("nodemask", 8, bits=("unsigned long [1]", 0))
        fake.enum("node_states", N_POSSIBLE=0, N_ONLINE=1)
        states = fake.variable("node_states", "struct nodemask [2]")
        fake.words(states, 1, 1)
        lists = f"struct list_head [{3 if old else LISTS}]"
        fake.struct("per_cpu_pages", 256, count=("int", 0), lists=(lists, _LISTS_AT))
        fake.struct("per_cpu_pageset", 264, pcp=("struct per_cpu_pages", 0))
        member, kind = ("pageset", "per_cpu_pageset") if old else ("per_cpu_pageset", "per_cpu_pages")
        numbers = {"zone_start_pfn": ("unsigned long", 24), "spanned_pages": ("unsigned long", 32)}
        fake.struct("zone", 64, **{member: (f"struct {kind} *", 16)}, **numbers, name=("char *", 40))
        fake.struct("pglist_data", 192, node_zones=("struct zone [2]", 0), nr_zones=("int", 128), node_id=("int", 132))
        node = self.node = fake.variable("contig_page_data", "struct pglist_data")
        fake.put("pglist_data", node, {"nr_zones": zones})
        self._offset = fake.percpu("boot_pageset", f"struct {kind}")
        for number in range(zones):
            fake.words(node + 64 * number + 16, fake.prog["boot_pageset"].address_ or 0)
            if zones > 1:
                self.span(0, 0x200, f"Zone{number}", number)
        for cpu in range(2):
            for number in range(3 if old else LISTS):
                head = self.head(cpu, number)
                fake.words(head, head, head)

    def span(self, start: int, size: int, name: str, number: int = 0) -> None:
        """Give a zone its span of page frames, and its name."""
        self.fake.words(self.node + 64 * number + 24, start, size, self.fake.text(name))

    def head(self, cpu: int, number: int) -> int:
        """The head of a CPU's list of that number."""
        return self.fake.cpu_area(cpu) + self._offset + _LISTS_AT + 16 * number

    def add(self, cpu: int, number: int, pfn: int) -> None:
        """Put a page at the front of a list."""
        head, node = self.head(cpu, number), self.fake.struct_page(pfn) + _IN_PAGE
        following = int.from_bytes(self.fake.prog.read(head, 8), "little")
        self.fake.page(pfn, refcount=0, slab_cache=following)  # page->lru is where slab_cache is
        self.fake.words(head, node)
