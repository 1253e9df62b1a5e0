"""Slab objects (kplug/runtime/locators/slab.py): the cache, the object's bounds, and whether it is allocated.

What is expected is what was planted: a slab of objects of 0x100 bytes, of which some are on the lists of free ones; the
links are scrambled as mm/slub.c does (freelist_ptr_encode()).
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import DATA, INIT_TEXT, PERCPU, PGTY_SLAB, FakeKernel
from support.fake_machines import MACHINES, PAGE, Machine
from support.fake_slab import LINK, FakeSlab
from support.fake_tracks import FakeTracks
from support.fake_zones import FakeZones

from kplug.errors import TargetError
from kplug.model import Layer
from kplug.runtime.locators.slab import KIND, SlabLocator

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def told(slab: FakeSlab, offset: int) -> Layer:
    (layer,) = SlabLocator(slab.fake.kernel).locate(slab.base + offset)
    return layer


def states(slab: FakeSlab, count: int = 4) -> list[str]:
    return [told(slab, slab.left_pad + number * 0x100 + 8).details["state"] for number in range(count)]


@each_machine
@pytest.mark.parametrize("hardened", [True, False])
def test_an_object_from_its_first_byte_to_its_last(machine: Machine, hardened: bool) -> None:
    slab = FakeSlab(FakeKernel(machine), free=(2, 0), hardened=hardened)
    assert states(slab) == ["free", "allocated", "free", "allocated"]
    for offset in (0x100, 0x180, 0x1FF):
        layer = told(slab, offset)
        assert (layer.kind, layer.name, layer.start, layer.end) == ("slab", "things", slab.object(1), slab.object(2))
        assert layer.details == {
            "cache": "things",
            "object": hex(slab.object(1)),
            "state": "allocated",
            "object_size": 0xF0,
            "padding": offset >= 0x1F0,
            "part": "padding" if offset >= 0x1F0 else "object",
        }


def test_where_an_objects_padding_begins() -> None:
    slab = FakeSlab(FakeKernel())
    assert [told(slab, offset).details["padding"] for offset in (0x1EF, 0x1F0, 0x200)] == [False, True, False]


def test_the_last_object_and_what_is_behind_it() -> None:
    slab = FakeSlab(FakeKernel())
    assert told(slab, 0x3FF).start == slab.object(3)
    for offset in (0x400, PAGE - 1):
        layer = told(slab, offset)
        assert (layer.start, layer.end, layer.details["object"]) == (slab.base, slab.base + PAGE, None)
        assert (layer.details["state"], layer.details["part"]) == (None, "padding")
        assert KIND.phrase(layer, offset) == "padding after the last object of slab things"
    assert list(SlabLocator(slab.fake.kernel).locate(slab.base + PAGE)) == []
    assert list(SlabLocator(slab.fake.kernel).locate(slab.base - 1)) == []


def test_as_many_objects_as_the_slab_has_room_for_whatever_it_claims() -> None:
    slab = FakeSlab(FakeKernel(), count=0x7FFF)
    assert told(slab, PAGE - 1).start == slab.object(15)


def parts(slab: FakeSlab, first: int, last: int) -> dict[str, tuple[int, int]]:
    """The parts around object 1, from `first` to `last`: their first and last bytes, from the object."""
    found: dict[str, tuple[int, int]] = {}
    for offset in range(first, last):
        layer = told(slab, slab.object(1) - slab.base + offset)
        assert layer.details["object"] == hex(slab.object(1))
        assert layer.details["padding"] == (layer.details["part"] != "object")
        start, _ = found.setdefault(layer.details["part"], (offset, offset))
        found[layer.details["part"]] = start, offset
    return found


def test_red_zones_on_both_sides() -> None:
    slab = FakeSlab(FakeKernel(), free=(1,), left_pad=0x40, object_size=0x81, inuse=0x88)
    assert parts(slab, -0x40, 0xC0) == {
        "left red zone": (-0x40, -1),
        "object": (0, 0x80),
        "right red zone": (0x81, 0x87),
        "padding": (0x88, 0xBF),
    }
    left = told(slab, 0x13C)
    assert (left.start, left.end, left.details["state"]) == (slab.object(1) - 0x40, slab.object(1), "free")
    assert KIND.phrase(left, 0x3C) == "left red zone of free slab object things-0x4"
    right = told(slab, 0x1C3)
    assert (right.start, right.end) == (slab.object(1), slab.object(2) - 0x40)
    assert KIND.phrase(right, 0x83) == "right red zone of free slab object things+0x83"
    assert told(slab, 0x3F).details["object"] == hex(slab.object(0))
    assert states(slab) == ["allocated", "free", "allocated", "allocated"]


def test_a_free_pointer_behind_the_object() -> None:
    slab = FakeSlab(FakeKernel(), free=(2, 0), object_size=0x81, inuse=0x88, link=0x88)
    assert states(slab) == ["free", "allocated", "free", "allocated"]
    assert parts(slab, 0x80, 0x90) == {"object": (0x80, 0x80), "padding": (0x81, 0x87), "free pointer": (0x88, 0x8F)}
    assert parts(slab, 0x90, 0x100) == {"padding": (0x90, 0xFF)}


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        (0x11400, None),
        (0b10001010, {"_SLAB_RED_ZONE": 1, "_SLAB_KMALLOC": 3, "_SLAB_STORE_USER": 7}),
        (0b10001010, {"_SLAB_RED_ZONE": 1, "_SLAB_KMALLOC": 3, "_SLAB_STORE_USER": 7, "_SLAB_OBJ_EXT_IN_OBJ": 20}),
    ],
    ids=["before 6.9", "since 6.9", "since 7.0"],
)
def test_tracks_behind_the_object(flags: int, bits: dict[str, int] | None) -> None:
    fake = FakeKernel()
    FakeTracks(fake)
    if bits is not None:
        fake.enum("_slab_flag_bits", **bits)
    slab = FakeSlab(fake, left_pad=0x10, flags=flags, object_size=0x40, inuse=0x48, link=0x48)
    end = 0x98 if bits is not None and "_SLAB_OBJ_EXT_IN_OBJ" in bits else 0x94
    assert parts(slab, -0x10, 0xF0) == {
        "left red zone": (-0x10, -1),
        "object": (0, 0x3F),
        "right red zone": (0x40, 0x47),
        "free pointer": (0x48, 0x4F),
        "allocation track": (0x50, 0x6F),
        "free track": (0x70, 0x8F),
        "requested size": (0x90, end - 1),
        "padding": (end, 0xEF),
    }


@pytest.mark.parametrize("enabled", [0, 1, None])
def test_debugging_that_is_switched_off(enabled: int | None) -> None:
    """The flags of a cache made it larger; objects begin where their room begins, and nothing is in the red zones."""
    fake = FakeKernel()
    if enabled is not None:
        fake.variable("slub_debug_enabled", "int", enabled)
    slab = FakeSlab(fake, left_pad=0x10, object_size=0x40, inuse=0x48, link=0x48)
    before, after = told(slab, 0x8), told(slab, 0x10 + 0x44)
    if enabled == 0:
        assert (before.start, before.details["part"]) == (slab.base, "object")
        assert after.details["part"] == "padding"
    else:
        assert (before.start, before.details["part"]) == (slab.base, "left red zone")
        assert after.details["part"] == "right red zone"


@pytest.mark.parametrize(
    ("left_pad", "flags", "inuse"), [(0x40, 0, 0x88), (0, 0x400, 0x108), (0, 0, 0x80), (0, 0x10000, 0x88)]
)
def test_a_layout_that_its_flags_deny(left_pad: int, flags: int, inuse: int) -> None:
    """The last one tracks users, but there is no struct track."""
    slab = FakeSlab(FakeKernel(), left_pad=left_pad, flags=flags, object_size=0x81, inuse=inuse)
    inside, outside = told(slab, left_pad + 0x80), told(slab, left_pad + 0x81)
    assert [inside.details["part"], outside.details["part"]] == [None, None]
    assert KIND.phrase(inside, 0x80) == "slab object things+0x80"
    assert KIND.phrase(outside, 0x81) == "past the end of slab object things+0x81"


def test_an_object_in_the_last_page_of_a_larger_slab() -> None:
    slab = FakeSlab(FakeKernel(), order=1, count=32, free=(31, 3))
    assert told(slab, 2 * PAGE - 1).details["object"] == hex(slab.object(31))
    assert [told(slab, number * 0x100).details["state"] for number in (3, 4, 30, 31)] == [
        "free", "allocated", "allocated", "free",
    ]  # fmt: skip


@each_machine
def test_objects_on_a_cpus_own_list(machine: Machine) -> None:
    slab = FakeSlab(FakeKernel(machine), free=(3,), cpu_free=(0, 1))
    assert states(slab) == ["cpu-free", "cpu-free", "allocated", "free"]
    layer = told(slab, 8)
    assert layer.details["cpu"] == 1
    assert KIND.phrase(layer, 8) == "cpu-free (CPU 1) slab object things+0x8"
    assert [("cpu" in told(slab, offset).details) for offset in (0x208, 0x308)] == [False, False]


class FakeSheaves:
    """A cache whose free objects are in sheaves: CPUs' own, and those in the only node's barn. `split`: the barns are
    in an array beside the nodes, as since 7.1.
    """

    def __init__(self, *, split: bool) -> None:
        self.fake = fake = FakeKernel()
        FakeZones(fake)
        pointer = {"per_node": ("struct kmem_cache_per_node_ptrs [1]", 88)}
        fake.struct(
            "kmem_cache_per_node_ptrs", 16, barn=("struct node_barn *", 0), node=("struct kmem_cache_node *", 8)
        )
        fake.struct("kmem_cache_node", 16, barn=("struct node_barn *", 8))
        fake.struct("node_barn", 32, sheaves_full=("struct list_head", 8))
        fake.struct(
            "slab_sheaf", 32, barn_list=("struct list_head", 0), size=("unsigned int", 16), objects=("void * []", 24),
        )  # fmt: skip
        fake.struct("slub_percpu_sheaves", 16, main=("struct slab_sheaf *", 0), spare=("struct slab_sheaf *", 8))
        self.slab = FakeSlab(
            fake,
            sheaves={
                "cpu_sheaves": ("struct slub_percpu_sheaves *", 80),
                **(pointer if split else {"node": ("struct kmem_cache_node *[1]", 88)}),
            },
        )
        self.of_cpus = fake.percpu("fake_sheaves", "struct slub_percpu_sheaves")
        self.barn = fake.make("node_barn")
        node = fake.make("kmem_cache_node", {} if split else {"barn": self.barn})
        fake.put("kmem_cache", self.slab.cache, {"cpu_sheaves": fake.prog["fake_sheaves"].address_ or 0})
        fake.words(self.slab.cache + 88, self.barn if split else node)
        self.fill_barn()

    def sheaf(self, *numbers: int) -> int:
        """A sheaf with these objects. What it had before stands behind them."""
        places = [*map(self.slab.object, numbers), self.slab.object(3)]
        sheaf = self.fake.take(24 + 8 * len(places))
        self.fake.words(sheaf, 0, 0, len(numbers), *places)
        return sheaf

    def fill_barn(self, *sheaves: int) -> None:
        places = [self.barn + 8, *sheaves]
        for place, following in zip(places, [*places[1:], places[0]]):
            self.fake.words(place, following)


@pytest.mark.parametrize("split", [True, False], ids=["7.1", "6.18"])
def test_objects_in_sheaves(split: bool) -> None:
    sheaves = FakeSheaves(split=split)
    fake, slab = sheaves.fake, sheaves.slab
    fake.put(
        "slub_percpu_sheaves",
        fake.cpu_area(1) + sheaves.of_cpus,
        {"main": sheaves.sheaf(), "spare": sheaves.sheaf(1)},
    )
    sheaves.fill_barn(sheaves.sheaf(2), sheaves.sheaf(0))
    assert states(slab) == ["cpu-free", "cpu-free", "cpu-free", "allocated"]
    assert [told(slab, number * 0x100).details.get("cpu") for number in range(4)] == [None, 1, None, None]


def test_a_list_of_sheaves_that_loops() -> None:
    sheaves = FakeSheaves(split=True)
    sheaf = sheaves.sheaf(1)
    sheaves.fill_barn(sheaf)
    sheaves.fake.words(sheaf, sheaf)
    with pytest.raises(TargetError, match=r"^node 0's list of sheaves: it loops$"):
        list(SlabLocator(sheaves.fake.kernel).locate(sheaves.slab.base))


def test_links_scrambled_as_before_5_7() -> None:
    """ptr ^ s->random ^ ptr_addr, without swab() (2482ddec670f, 4.14)."""
    slab = FakeSlab(FakeKernel(), free=(2, 0))
    for number, following in ((2, slab.object(0)), (0, 0)):
        address = slab.object(number) + LINK
        slab.fake.words(address, following ^ slab.secret ^ address)
    assert states(slab) == ["free", "allocated", "free", "allocated"]


def test_freed_memory_of_the_image_that_is_a_slab_now() -> None:
    fake = FakeKernel()
    slab = FakeSlab(fake)
    image, pfn = fake.machine.image, fake.image_physical // PAGE
    fake.page(pfn + INIT_TEXT // PAGE, mapcount=PGTY_SLAB, slab_cache=slab.cache, counters=4 << 16)
    (layer,) = SlabLocator(fake.kernel).locate(image + INIT_TEXT + 0x1FF)
    assert (layer.start, layer.end) == (image + INIT_TEXT + 0x100, image + INIT_TEXT + 0x200)
    assert layer.details["object"] == hex(fake.machine.direct_map + 0x100000 + INIT_TEXT + 0x100)
    for place in (DATA, INIT_TEXT - 1, PERCPU):
        assert list(SlabLocator(fake.kernel).locate(image + place)) == []


@pytest.mark.parametrize("lead", ["loops", "outside", "inside an object", "before"])
def test_a_list_of_free_objects_that_leads_astray(lead: str) -> None:
    slab = FakeSlab(FakeKernel(), free=(2, 0, 2) if lead == "loops" else (2, 0))
    wrong = {"outside": slab.base + PAGE, "inside an object": slab.base + 0x108, "before": slab.base - 0x100}
    if lead in wrong:
        slab.link(slab.object(0), wrong[lead])
    assert told(slab, 0x100).details["state"] == "corrupted"


def test_a_slab_that_cannot_be_read() -> None:
    slab = FakeSlab(FakeKernel(), free=(2,))
    slab.fake.lose(slab.base, PAGE)
    found = SlabLocator(slab.fake.kernel).locate(slab.base)
    assert next(iter(found)).details["state"] is None
    with pytest.raises(TargetError, match=f"whether the slab object at {slab.base:#x} is allocated"):
        list(SlabLocator(slab.fake.kernel).locate(slab.base))


def test_a_cache_that_cannot_be_read() -> None:
    slab = FakeSlab(FakeKernel())
    slab.fake.lose(slab.cache, 64)
    with pytest.raises(TargetError, match=f"the slab cache at {slab.cache:#x}"):
        told(slab, 0)


@pytest.mark.parametrize(("size", "object_size"), [(0, 0), (0x100, 0x101), (0x100, 0)])
def test_a_cache_whose_sizes_make_no_sense(size: int, object_size: int) -> None:
    slab = FakeSlab(FakeKernel())
    slab.fake.put("kmem_cache", slab.cache, {"size": size, "object_size": object_size})
    with pytest.raises(TargetError, match=f"the slab cache at {slab.cache:#x} is corrupted"):
        told(slab, 0)
