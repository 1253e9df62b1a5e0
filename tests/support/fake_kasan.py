"""Generic KASAN of a fake x86_64 kernel: the shadow of its direct map, and the records of its slab objects, by the
kernels that have each form (mm/kasan/kasan.h)."""

from __future__ import annotations

import drgn

from support.fake_kernel import FakeKernel
from support.fake_machines import PAGE

OFFSET = 0xDFFFFC0000000000  # CONFIG_KASAN_SHADOW_OFFSET
NO_FREE_META = 0x7FFFFFFF

# Whether a record has the CPU and the time; whether the free is in kasan_free_meta; how kasan_alloc_meta has it if not.
FORMS = {
    "4.19": (False, False, "struct kasan_track"),
    "5.4": (False, False, "struct kasan_track [1]"),
    "5.10": (False, True, None),
    "6.12": (False, True, None),
    "6.12 with EXTRA_INFO": (True, True, None),
}


class FakeKasan:
    """The types, and the shadow of the pages it is asked to shadow. `shift`: of the clock in a record."""

    def __init__(self, fake: FakeKernel, form: str = "6.12", shift: int = 9) -> None:
        self.fake, self.shift = fake, shift
        self.has_extra, self.free_in_meta, free_track = FORMS[form]
        if not fake.has("depot_stack_handle_t"):
            fake.typedef("depot_stack_handle_t", "unsigned int")
        fake.variable("kasan_early_shadow_page", "unsigned long")
        fake.define("kasan_track", _track(fake.prog, self.has_extra))
        size = self.track_size = 16 if self.has_extra else 8
        members = {"alloc_track": ("struct kasan_track", 0)}
        if free_track is not None:
            members["free_track"] = free_track, size
        else:
            members["aux_stack"] = "depot_stack_handle_t [2]", size
        fake.struct("kasan_alloc_meta", size + 8, **members)
        fake.struct("qlist_node", 8, next=("struct qlist_node *", 0))
        more = {"free_track": ("struct kasan_track", 8)} if self.free_in_meta else {}
        fake.struct("kasan_free_meta", 8 + size if more else 8, quarantine_link=("struct qlist_node", 0), **more)
        fake.struct("qlist_head", 24, head=("struct qlist_node *", 0), tail=("struct qlist_node *", 8))
        self.batches = fake.variable("global_quarantine", "struct qlist_head [2]")
        self.cpu_quarantine = fake.percpu("cpu_quarantine", "struct qlist_head")
        fake.struct("kasan_cache", 8, alloc_meta_offset=("int", 0), free_meta_offset=("int", 4))
        self.shadowed: set[int] = set()

    def track(self, place: int, handle: int, *, pid: int = 42, cpu: int = 1, nanoseconds: int = 0) -> None:
        words = [pid | handle << 32]
        if self.has_extra:
            words.append(cpu | nanoseconds >> self.shift << 20)
        self.fake.words(place, *words)

    def quarantine(self, place: int, *links: int) -> None:
        """Make the list with its head there one of these links."""
        self.fake.words(place, *((links[0], links[-1]) if links else (0, 0)))
        for link, following in zip(links, (*links[1:], 0)):
            self.fake.words(link, following)

    def shadow(self, start: int, *values: int) -> None:
        """Write the shadow from an address on. All of its page of shadow exists then."""
        place = (start >> 3) + OFFSET
        for page in {place // PAGE, (place + len(values) - 1) // PAGE} - self.shadowed:
            self.fake.map(page * PAGE, self.fake.physical(self.fake.take(PAGE, PAGE)))
            self.shadowed.add(page)
        self.fake.poke(place, bytes(values))


def _track(prog: drgn.Program, has_extra: bool) -> drgn.Type:
    def field(name: str, start: int, bits: int) -> drgn.TypeMember:
        return drgn.TypeMember(drgn.Object(prog, "unsigned long", bit_field_size=bits), name, start)

    members = [
        drgn.TypeMember(lambda: prog.type("unsigned int"), "pid", 0),
        drgn.TypeMember(lambda: prog.type("depot_stack_handle_t"), "stack", 32),
    ]
    if has_extra:
        members += [field("cpu", 64, 20), field("timestamp", 84, 44)]
    return prog.struct_type("kasan_track", 16 if has_extra else 8, members)
