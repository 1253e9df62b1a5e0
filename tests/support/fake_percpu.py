"""The chunks of a fake kernel's per-CPU allocator: mm/percpu-internal.h and mm/percpu.c of 6.12.

The base unit is CPU 0's. Behind the static variables (a page) it has the part reserved for modules, then the first
dynamic part; FIRST is where the tests' first dynamic chunk begins.
"""

from __future__ import annotations

from collections.abc import Sequence

from support.fake_kernel import CPU_AREA, CPUS, FakeKernel
from support.fake_machines import PAGE

RESERVED, FIRST = PAGE, 3 * PAGE  # offsets in a unit
GRAIN, SLOTS = 4, 3


class FakePercpu:
    """No chunks at first. `old`: the lists are called pcpu_slot (before 5.9)."""

    def __init__(self, fake: FakeKernel, *, old: bool = False) -> None:
        self.fake = fake
        fake.struct(
            "pcpu_chunk", 128, list=("struct list_head", 0), base_addr=("void *", 32),
            alloc_map=("unsigned long *", 40), bound_map=("unsigned long *", 48), start_offset=("int", 72),
            end_offset=("int", 76), nr_pages=("int", 88), populated=("unsigned long [1]", 104),
        )  # fmt: skip
        self.base = fake.cpu_area(0)
        fake.variable("pcpu_base_addr", "void *", self.base)
        self.offsets = fake.variable("pcpu_unit_offsets", "unsigned long [2]")
        fake.words(self.offsets, *(cpu * CPU_AREA for cpu in range(CPUS)))
        fake.variable("pcpu_nr_slots", "int", SLOTS)
        self._reserved = fake.variable("pcpu_reserved_chunk", "struct pcpu_chunk *")
        self.heads = fake.take(16 * SLOTS)
        for number in range(SLOTS):
            fake.words(self.heads + 16 * number, *[self.heads + 16 * number] * 2)
        # Later ones hold pointers; the types of these variables are `struct list_head *`.
        fake.variable("pcpu_slot" if old else "pcpu_chunk_lists", "struct list_head *", self.heads)

    def chunk(
        self,
        base: int,
        pages: int,
        given: Sequence[tuple[int, int]] = (),
        *,
        before: int = 0,
        behind: int = 0,
        populated: int = -1,
        reserved: bool = False,
        slot: int = 1,
    ) -> int:
        """A chunk with its base unit's memory at `base`; what it gave out as offsets and sizes in that. `before` and
        `behind` are bytes that are not its to give. Where its struct pcpu_chunk is."""
        fake, bits = self.fake, pages * PAGE // GRAIN
        hidden = [(start, size) for start, size in ((0, before), (pages * PAGE - behind, behind)) if size]
        allocated = bounds = 0
        for start, size in (*hidden, *given):
            allocated |= ((1 << size // GRAIN) - 1) << start // GRAIN
            bounds |= 1 << start // GRAIN | 1 << (start + size) // GRAIN
        maps = [fake.take(bits // 8 + 8) for _ in range(2)]
        for place, value in zip(maps, (allocated, bounds)):
            fake.poke(place, value.to_bytes(bits // 8 + 8, "little"))
        place = fake.make(
            "pcpu_chunk",
            {
                "base_addr": base,
                "alloc_map": maps[0],
                "bound_map": maps[1],
                "start_offset": before,
                "end_offset": behind,
                "nr_pages": pages,
                "populated[0]": populated % (1 << pages),
            },
        )
        if reserved:
            fake.words(self._reserved, place)
        else:
            head = self.heads + 16 * slot
            fake.words(place, int.from_bytes(fake.prog.read(head, 8), "little"), head)
            fake.words(head, place)
        return place

    def pointer(self, place: int) -> int:
        """The __percpu pointer of an address in the base unit (__addr_to_pcpu_ptr())."""
        symbols = self.fake.kernel.image
        assert symbols is not None
        start = symbols.symbol_address(symbols.image.symbols.exact("__per_cpu_start")[0])
        return place - self.base + start
