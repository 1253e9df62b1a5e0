"""The map of s390x: arch/s390/boot/startup.c, and what machines showed of themselves."""

from __future__ import annotations

import pytest

from kplug.arch import registry
from kplug.space.address_space import TOP, AddressSpace, AddressSpaceFacts, address_space
from kplug.space.special import specials

# Debian's 6.12 with 256 MiB: its VMCOREINFO has VMALLOC_START, vmemmap and KERNELOFFSET; /proc/modules and
# /proc/vmallocinfo lie within what is here.
FACTS = {
    "image_start": 0x100000,
    "image_end": 0x1808000,
    "runtime_image_start": 0x3FFFE8F8000,
    "image_is_apart": True,
    "kasan_shadow": False,
    "identity_size": 0x10000000,
    "max_pfn": 0x10000,
    "vmemmap_start": 0x37200000000,
    "vmemmap_size": 0x400000,
    "abs_lowcore": 0x37FFE4FE000,
    "memcpy_real_area": 0x37FFE6FF000,
    "vmalloc_start": 0x37FFE700000,
    "vmalloc_end": 0x3FF7E700000,
    "modules_vaddr": 0x3FF7E700000,
    "modules_end": 0x3FFFE700000,
}
AREAS = [
    (0x0, 0xFFFFFFF, "direct map"),
    (0x37200000000, 0x372003FFFFF, "vmemmap"),
    (0x37FFE4FE000, 0x37FFE6FDFFF, "absolute lowcore"),
    (0x37FFE6FF000, 0x37FFE6FFFFF, "real memory copy"),
    (0x37FFE700000, 0x3FF7E6FFFFF, "vmalloc"),
    (0x3FF7E700000, 0x3FFFE6FFFFF, "modules"),
    (0x3FFFE8F8000, 0x3FFFFFFFFFF, "kernel image mapping"),
    (0x40000000000, TOP - 1, "non-canonical"),
]


def space(**facts: object) -> AddressSpace:
    found = address_space("s390x", AddressSpaceFacts(**{**FACTS, **facts}))  # type: ignore[arg-type]
    assert found is not None
    return found


def areas(found: AddressSpace) -> list[tuple[int, int, str]]:
    return [(area.start, area.end - 1, area.name) for area in found.areas if not area.hole]


def test_areas() -> None:
    assert areas(space()) == AREAS
    assert space().description == "s390x, 3-level page tables"
    assert [part.name for part in space().parts_at(0x1D0)] == ["lowcore"]


def test_four_levels() -> None:
    found = space(runtime_image_start=0x1F_FFFF_E8F8_000)
    assert found.description == "s390x, 4-level page tables"
    assert found.area_at(1 << 53).name == "non-canonical"
    assert found.area_at((1 << 53) - 1).kind == "kernel"


def test_an_identity_base_that_is_not_0() -> None:
    found = space(page_offset_base=0x100000000)
    assert areas(found)[0] == (0x100000000, 0x10FFFFFFF, "direct map")
    assert not found.area_at(0x100000000).parts


def test_up_to_6_9_the_image_is_in_the_identity_map_whose_end_is_not_kept() -> None:
    found = space(image_is_apart=False, identity_size=None, runtime_image_start=0x100000)
    first, *others = areas(found)
    assert first == (0, 0x371FFFFFFFF, "direct map")
    assert found.areas[0].details["ram_end"] == "0x10000000"
    assert "end_note" in found.areas[0].details
    assert others == [area for area in AREAS[1:] if area[2] != "kernel image mapping"]


def test_5_10_has_no_size_of_vmemmap_and_no_absolute_lowcore() -> None:
    found = space(vmemmap_size=None, abs_lowcore=None, memcpy_real_area=None)
    vmemmap = found.area_at(0x37200000000)
    assert (vmemmap.end, "end_note" in vmemmap.details) == (0x37FFE700000, True)


def test_kasans_shadow_is_the_end_of_four_levels() -> None:
    found = space(kasan_shadow=True)
    shadow = found.area_at(0x1C000000000000)
    assert (shadow.name, shadow.end) == ("KASAN shadow", 1 << 53)


def test_files_alone_say_nothing() -> None:
    assert address_space("s390x", AddressSpaceFacts(image_start=0x100000, image_is_apart=True)) is None


def test_variables_that_contradict_each_other_are_not_used() -> None:
    found = space(vmalloc_end=0x1000)
    assert areas(found)[0][2] == "kernel (layout not known)"
    assert "not in this order" in found.warnings[0]


@pytest.mark.parametrize(
    ("value", "name"),
    [(0x18, "NULL+0x18"), ((1 << 64) - 12, "ERR_PTR(-ENOMEM)"), (0x6B6B6B6B6B6B6BA5, "POISON_FREE ... POISON_END")],
)
def test_special_values_stand_beside_the_area(value: int, name: str) -> None:
    """NULL is in the identity map."""
    assert specials(value, "s390x", space(), registry.named("s390x").word())[0].name == name


def test_an_address_in_an_area_is_no_special_value() -> None:
    for address in (0x37200000040, 0x3FF7E846000, 0x8000000):
        assert specials(address, "s390x", space(), registry.named("s390x").word()) == ()
