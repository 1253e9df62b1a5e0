"""KFENCE's pool of a fake kernel: mm/kfence/kfence.h and core.c of 6.12. Pairs of pages, the first pair guards."""

from __future__ import annotations

from support.fake_kernel import FakeKernel
from support.fake_machines import PAGE

POOL_OBJECTS = 3
UNUSED, ALLOCATED, RCU_FREEING, FREED = range(4)
RECORD = 256


class FakeKfence:
    """A pool of three objects, all unused at first. `pointer`: kfence_metadata is one (6.6), else the array itself."""

    def __init__(self, fake: FakeKernel, *, pointer: bool = True) -> None:
        self.fake = fake
        fake.enum(
            "kfence_object_state", KFENCE_OBJECT_UNUSED=0, KFENCE_OBJECT_ALLOCATED=1, KFENCE_OBJECT_RCU_FREEING=2,
            KFENCE_OBJECT_FREED=3,
        )  # fmt: skip
        if not fake.has("kmem_cache"):
            fake.struct("kmem_cache", 64, name=("char *", 0))
        fake.struct(
            "kfence_track", 64, pid=("int", 0), cpu=("int", 4), ts_nsec=("unsigned long", 8),
            num_stack_entries=("int", 16), stack_entries=("unsigned long [4]", 24),
        )  # fmt: skip
        fake.struct(
            "kfence_metadata", RECORD, state=("enum kfence_object_state", 16), addr=("unsigned long", 24),
            size=("unsigned long", 32), cache=("struct kmem_cache *", 40), alloc_track=("struct kfence_track", 48),
            free_track=("struct kfence_track", 112),
        )  # fmt: skip
        self.pool = fake.take((POOL_OBJECTS + 1) * 2 * PAGE, PAGE)
        fake.variable("__kfence_pool", "char *", self.pool)
        if pointer:
            self.records = fake.take(POOL_OBJECTS * RECORD)
            fake.variable("kfence_metadata", "struct kfence_metadata *", self.records)
        else:
            self.records = fake.variable("kfence_metadata", "struct kfence_metadata", size=POOL_OBJECTS * RECORD)
        for number in range(POOL_OBJECTS):
            self.record(number, state=UNUSED, addr=self.page(number))

    def page(self, number: int) -> int:
        """The page in which the object of that number is."""
        return self.pool + 2 * PAGE * (number + 1)

    def record(self, number: int, **members: int) -> int:
        place = self.records + number * RECORD
        self.fake.put("kfence_metadata", place, members)
        return place

    def object(self, number: int, offset: int, size: int, state: int = ALLOCATED, cache: str = "things") -> int:
        """An object of a cache, and where it is: allocated by 42, in kernel_clone()."""
        fake = self.fake
        name = fake.make("kmem_cache", {"name": fake.text(cache)}) if cache else 0
        start = self.page(number) + offset
        place = self.record(number, state=state, addr=start, size=size, cache=name)
        self.track(place + 48, 42, [fake.machine.image + 0x20, fake.machine.image + 0x210])
        return start

    def track(self, place: int, pid: int, stack: list[int]) -> None:
        values = {"pid": pid, "cpu": 1, "ts_nsec": 1_500_000_000, "num_stack_entries": len(stack)}
        self.fake.put("kfence_track", place, values)
        self.fake.words(place + 24, *stack)
