"""Vmap areas of a fake kernel: mm/vmalloc.c and include/linux/vmalloc.h of 6.12, and its lists before 6.9."""

from __future__ import annotations

from support.fake_kernel import FakeKernel
from support.fake_machines import PAGE

VM_IOREMAP, VM_ALLOC, VM_MAP, VM_NO_GUARD = 1, 2, 4, 0x40


class FakeVmap:
    """The areas, none at first. `nodes`: in vmap_nodes (6.9 and later), two of them; else on two lists."""

    def __init__(self, fake: FakeKernel, *, nodes: bool = True) -> None:
        self.fake = fake
        fake.struct(
            "vmap_area", 72, va_start=("unsigned long", 0), va_end=("unsigned long", 8),
            list=("struct list_head", 40), vm=("struct vm_struct *", 56),
        )  # fmt: skip
        fake.struct(
            "vm_struct", 72, next=("struct vm_struct *", 0), addr=("void *", 8), size=("unsigned long", 16),
            flags=("unsigned long", 24), pages=("struct page **", 32), page_order=("unsigned int", 40),
            nr_pages=("unsigned int", 44), phys_addr=("unsigned long", 48), caller=("void *", 56),
        )  # fmt: skip
        if nodes:
            fake.struct("rb_list", 24, root=("void *", 0), head=("struct list_head", 8))
            fake.struct("vmap_node", 128, pool=("void *", 0), busy=("struct rb_list", 16), lazy=("struct rb_list", 56))
            first = fake.take(2 * 128)
            fake.variable("vmap_nodes", "struct vmap_node *", first)
            fake.variable("nr_vmap_nodes", "int", 2)
            self.heads = [first + 24, first + 128 + 24]
            self.lazy = first + 64
            self._lists = [*self.heads, self.lazy, first + 128 + 64]
        else:
            self.heads = [fake.variable("vmap_area_list", "struct list_head")]
            self.lazy = fake.variable("purge_vmap_area_list", "struct list_head")
            self._lists = [*self.heads, self.lazy]
        for head in self._lists:
            fake.words(head, head, head)
        self._areas = 0

    def area(
        self, start: int, pages: int, *, flags: int = VM_ALLOC, caller: int = 0, physical: int = 0, guard: bool = True
    ) -> list[int]:
        """An area of so many pages and a guard page; the page frames that it maps. They are pages of its own but for
        an ioremap's, which are `physical`."""
        fake, listed = self.fake, []
        for number in range(pages):
            frame = physical + number * PAGE if physical else fake.physical(fake.take(PAGE))
            fake.map(start + number * PAGE, frame)
            listed.append(frame // PAGE)
        array = fake.take(8 * pages)
        fake.words(array, *map(fake.struct_page, listed))
        own = {} if physical else {"pages": array, "nr_pages": pages}
        size = pages * PAGE + (PAGE if guard else 0)
        values = {"addr": start, "size": size, "flags": flags, "caller": caller, "phys_addr": physical, **own}
        self.bare(start, start + size, vm=fake.make("vm_struct", values))
        return listed

    def bare(self, start: int, end: int, *, vm: int = 0, lazy: bool = False) -> int:
        """A vmap_area as it is told, on the next list; where it is."""
        fake = self.fake
        node = fake.make("vmap_area", {"va_start": start, "va_end": end, "vm": vm})
        head = self.lazy if lazy else self.heads[self._areas % len(self.heads)]
        self._areas += 1
        following = int.from_bytes(fake.prog.read(head, 8), "little")
        fake.words(node + 40, following, head)
        fake.words(head, node + 40)
        return node
