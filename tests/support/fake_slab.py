"""Slab caches and slabs of a fake kernel: mm/slab.h and mm/slub.c of 6.12."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from support.fake_kernel import CPUS, MAPCOUNT_NONE, PG_HEAD, PGTY_SLAB, STRUCT_PAGE, FakeKernel
from support.fake_machines import PAGE

SECRET = 0x1122334455667788
RED_ZONE, KMALLOC, STORE_USER = 0x400, 0x1000, 0x10000  # include/linux/slab.h before 6.9
LINK = 0x40  # where a free object has the link to the next


class FakeSlab:
    """One cache, and one slab of it of 2**`order` pages: `count` objects of 0x100 bytes, 0xf0 of them used."""

    def __init__(
        self,
        fake: FakeKernel,
        *,
        free: Sequence[int] = (),
        cpu_free: Sequence[int] = (),
        count: int = 4,
        order: int = 0,
        hardened: bool = True,
        left_pad: int = 0,
        flags: int | None = None,
        object_size: int = 0xF0,
        inuse: int | None = None,
        link: int = LINK,
        kasan: tuple[int, int] | None = None,
        sheaves: Mapping[str, tuple[str, int]] | None = None,
    ) -> None:
        """The numbers of the objects on the slab's list of free ones, and on CPU 1's. Of a number that is given twice,
        the first counts, so that the list loops. A cache with a left red zone has the flag for it, if none are given.
        `kasan`: where KASAN has its records of an allocation and of a free, from the object. `sheaves`: the members of
        a cache for them.
        """
        self.fake, self.left_pad, self.secret, self.link_at = fake, left_pad, SECRET if hardened else 0, link
        fake.struct(
            "slab", STRUCT_PAGE, slab_cache=("struct kmem_cache *", 8), freelist=("void *", 32),
            counters=("unsigned long", 40),
        )  # fmt: skip
        fake.struct("kmem_cache_cpu", 24, freelist=("void *", 0), tid=("unsigned long", 8), slab=("struct slab *", 16))
        info = {"kasan_info": ("struct kasan_cache", 72)} if kasan is not None else {}
        fake.struct(
            "kmem_cache", 128, flags=("unsigned int", 64), inuse=("unsigned int", 68), name=("char *", 0),
            size=("unsigned int", 8), object_size=("unsigned int", 12),
            offset=("unsigned int", 16), refcount=("int", 20), red_left_pad=("unsigned int", 24),
            cpu_slab=("struct kmem_cache_cpu *", 40), **({"random": ("unsigned long", 32)} if hardened else {}),
            **info, **(sheaves or {}),
        )  # fmt: skip
        cpu_slab = fake.percpu("fake_cpu_slab", "struct kmem_cache_cpu")
        self.cache = fake.make(
            "kmem_cache",
            {
                "name": fake.text("things"),
                "flags": flags if flags is not None else RED_ZONE if left_pad else 0,
                "inuse": object_size if inuse is None else inuse,
                "size": 0x100,
                "object_size": object_size,
                "offset": link,
                "refcount": 1,
                "red_left_pad": left_pad,
                **({"random": SECRET} if hardened else {}),
                "cpu_slab": fake.prog["fake_cpu_slab"].address_,
                **(
                    {"kasan_info.alloc_meta_offset": kasan[0], "kasan_info.free_meta_offset": kasan[1]} if kasan else {}
                ),
            },
        )
        self.base = fake.take(PAGE << order, PAGE << order)
        self.pfn = fake.pfn(self.base)
        fake.page(
            self.pfn,
            flags=PG_HEAD if order else 0,
            mapcount=PGTY_SLAB,
            slab_cache=self.cache,
            freelist=self._chain(free),
            counters=count << 16,
        )
        if order:
            fake.pages[(self.pfn - fake.first_pfn + 1) * STRUCT_PAGE] = order  # folio->_flags_1 is tail 1's flags
        for number in range(1, 1 << order):
            head = fake.struct_page(self.pfn) | 1
            flags = order if number == 1 else 0
            fake.page(self.pfn + number, flags=flags, slab_cache=head, mapcount=MAPCOUNT_NONE, refcount=0)
        for cpu in range(CPUS):
            if cpu == 1 and cpu_free:
                fake.words(fake.cpu_area(cpu) + cpu_slab, self._chain(cpu_free), 0, fake.struct_page(self.pfn))

    def object(self, number: int) -> int:
        return self.base + self.left_pad + number * 0x100

    def link(self, place: int, following: int) -> None:
        """freelist_ptr_encode(): ptr ^ s->random ^ swab(ptr_addr)."""
        address = place + self.link_at
        mixed = int.from_bytes(address.to_bytes(8, "little"), "big") if self.secret else 0
        self.fake.words(address, following ^ self.secret ^ mixed)

    def _chain(self, numbers: Sequence[int]) -> int:
        places = [self.object(number) for number in numbers]
        for place, following in reversed([*zip(places, [*places[1:], 0])]):
            self.link(place, following)
        return places[0] if places else 0
