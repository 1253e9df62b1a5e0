"""Who allocated and freed the slab objects of a fake kernel: struct track of mm/slub.c, and the stack depot of
lib/stackdepot.c, by the kernels that have each form."""

from __future__ import annotations

from collections.abc import Sequence

import drgn

from support.fake_kernel import FakeKernel

POOL = 1 << 14
TICK = 4_000_000  # nanoseconds: HZ is 250
FIRST_JIFFY = -300 * 250 & 0xFFFFFFFF
NOW = FIRST_JIFFY + 2500  # ten seconds after boot

# The index in a handle, what is added to it, whether the pools are an array, and what the kernel calls them.
FORMS = {
    "6.1": ("slabindex", 0, True, "stack_slabs"),
    "6.3": ("pool_index", 0, True, "stack_pools"),
    "6.12": ("pool_index_plus_1", 1, True, "stack_pools"),
    "7.0": ("pool_index_plus_1", 1, False, "stack_pools"),
}


class FakeTracks:
    """The types and variables, and a depot whose pool 1 is the only one."""

    def __init__(self, fake: FakeKernel, form: str = "6.12") -> None:
        self.fake = fake
        name, self._added, array, pools = FORMS[form]
        fake.typedef("depot_stack_handle_t", "unsigned int")
        fake.struct(
            "track", 32, addr=("unsigned long", 0), handle=("depot_stack_handle_t", 8), cpu=("int", 12),
            pid=("int", 16), when=("unsigned long", 24),
        )  # fmt: skip
        fake.define("handle_parts", _handle_parts(fake.prog, name))
        fake.struct(
            "stack_record", 32, hash=("unsigned int", 16), size=("unsigned int", 20),
            handle=("union handle_parts", 24), entries=("unsigned long []", 32),
        )  # fmt: skip
        self.pool = fake.take(POOL, POOL)
        table = [0, self.pool]
        if array:
            self.pools = fake.variable(pools, "void *", size=16)
            fake.words(self.pools, *table)
        else:
            place = fake.take(16)
            fake.words(place, *table)
            self.pools = fake.variable(pools, "void **", place)
        fake.variable("jiffies", "unsigned long", NOW)
        fake.struct("clocksource", 8, mult=("unsigned int", 0), shift=("unsigned int", 4))
        fake.variable("clocksource_jiffies", "struct clocksource", TICK << 8 | 8 << 32)

    def stack(self, number: int, entries: Sequence[int], *, count: int | None = None) -> int:
        """Put a stack into the depot, as its record of that number; returns its handle, with bits of its user's."""
        place = number * 0x100
        handle = 1 + self._added | place >> 4 << 17
        record = {"handle.handle": handle, "size": len(entries) if count is None else count}
        self.fake.put("stack_record", self.pool + place, record)
        self.fake.words(self.pool + place + 32, *entries)
        return handle | 3 << 27

    def track(self, place: int, caller: int, handle: int, *, cpu: int = 1, pid: int = 42, ago: int = 250) -> None:
        """Put a track somewhere: `ago` is in jiffies."""
        values = {"addr": caller, "handle": handle, "cpu": cpu, "pid": pid, "when": NOW - ago}
        self.fake.put("track", place, values)


def _handle_parts(prog: drgn.Program, index: str) -> drgn.Type:
    number = prog.type("unsigned int")

    def field(name: str, start: int, bits: int) -> drgn.TypeMember:
        return drgn.TypeMember(drgn.Object(prog, number, bit_field_size=bits), name, start)

    parts = prog.struct_type(None, 4, [field(index, 0, 17), field("offset", 17, 10), field("extra", 27, 5)])
    handle = drgn.TypeMember(lambda: prog.type("depot_stack_handle_t"), "handle", 0)
    return prog.union_type("handle_parts", 4, [handle, drgn.TypeMember(parts)])
