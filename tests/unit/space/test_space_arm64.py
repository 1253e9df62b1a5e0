"""The map of arm64.

Expected figures: Documentation/arm64/memory.rst of 6.1 (5.15-6.1), Documentation/arch/arm64/memory.rst of 6.12 (whose
tables still show 6.5-6.8); for the other eras arch/arm64/include/asm/memory.h and pgtable.h worked out by hand. The
link addresses of Debian's 6.12 are from its vmlinux.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.areas import extent

from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space

K4, K16, K64 = 4096, 16384, 65536

ERAS: dict[str, dict[str, object]] = {
    "4.19": {"image_start": 0xFFFF000008080000, "va_bits": 48, "page_size": K4},
    "4.19, 39 bits": {"image_start": 0xFFFFFF8008080000, "va_bits": 39, "page_size": K4},
    "5.4": {"image_start": 0xFFFF800010080000, "va_bits": 48, "page_size": K4},
    "5.4, 39 bits": {"image_start": 0xFFFFFFC010080000, "va_bits": 39, "page_size": K4},
    "6.1": {"image_start": 0xFFFF800008000000, "va_bits": 48, "page_size": K4},
    "6.1, 39 bits": {"image_start": 0xFFFFFFC008000000, "va_bits": 39, "page_size": K4},
    "6.1, 52 bits": {"image_start": 0xFFFF800008000000, "va_bits": 52, "vabits_actual": 52, "page_size": K64},
    "6.6": {"image_start": 0xFFFF800080000000, "va_bits": 48, "page_size": K4, "has_early_init_stack": False},
    "6.12": {"image_start": 0xFFFF800080000000, "va_bits": 48, "page_size": K4, "has_early_init_stack": True},
    "6.12, 39 bits": {
        "image_start": 0xFFFFFFC080000000,
        "va_bits": 39,
        "page_size": K4,
        "has_early_init_stack": True,
    },
    "6.12, 52 bits": {
        "image_start": 0xFFFF800080000000,
        "va_bits": 52,
        "vabits_actual": 52,
        "page_size": K4,
        "has_early_init_stack": True,
    },
    "6.12, 52 bits on a 48-bit CPU": {
        "image_start": 0xFFFF800080000000,
        "va_bits": 52,
        "vabits_actual": 48,
        "page_size": K4,
        "has_early_init_stack": True,
    },
}

# Era, name, start and end (inclusive).
ROWS = [
    # memory.h of 4.19: the linear map is the upper half.
    ("4.19", "modules", 0xFFFF000000000000, 0xFFFF000007FFFFFF),
    ("4.19", "vmemmap", 0xFFFF7E0000000000, 0xFFFF7FFFFFFFFFFF),
    ("4.19", "PCI I/O", 0xFFFF7DFFFEE00000, 0xFFFF7DFFFFDFFFFF),
    ("4.19", "direct map", 0xFFFF800000000000, 0xFFFFFFFFFFFFFFFF),
    ("4.19, 39 bits", "direct map", 0xFFFFFFC000000000, 0xFFFFFFFFFFFFFFFF),
    ("4.19, 39 bits", "vmemmap", 0xFFFFFFBF00000000, 0xFFFFFFBFFFFFFFFF),
    # memory.h of 5.4: a BPF JIT area below the modules.
    ("5.4", "direct map", 0xFFFF000000000000, 0xFFFF7FFFFFFFFFFF),
    ("5.4", "BPF JIT", 0xFFFF800000000000, 0xFFFF800007FFFFFF),
    ("5.4", "modules", 0xFFFF800008000000, 0xFFFF80000FFFFFFF),
    ("5.4", "vmemmap", 0xFFFFFDFFFFE00000, 0xFFFFFFFFFFDFFFFF),
    ("5.4", "PCI I/O", 0xFFFFFDFFFEC00000, 0xFFFFFDFFFFBFFFFF),
    ("5.4, 39 bits", "direct map", 0xFFFFFF8000000000, 0xFFFFFFBFFFFFFFFF),
    ("5.4, 39 bits", "vmemmap", 0xFFFFFFFEFFE00000, 0xFFFFFFFFFFDFFFFF),
    # memory.rst of 6.1.
    ("6.1", "user", 0x0000000000000000, 0x0000FFFFFFFFFFFF),
    ("6.1", "direct map", 0xFFFF000000000000, 0xFFFF7FFFFFFFFFFF),
    ("6.1", "modules", 0xFFFF800000000000, 0xFFFF800007FFFFFF),
    ("6.1", "vmalloc", 0xFFFF800008000000, 0xFFFFFBFFEFFFFFFF),
    ("6.1", "fixmap", 0xFFFFFBFFF0000000, 0xFFFFFBFFFDFFFFFF),
    ("6.1", "hole between fixmap and PCI I/O", 0xFFFFFBFFFE000000, 0xFFFFFBFFFE7FFFFF),
    ("6.1", "PCI I/O", 0xFFFFFBFFFE800000, 0xFFFFFBFFFF7FFFFF),
    ("6.1", "hole between PCI I/O and vmemmap", 0xFFFFFBFFFF800000, 0xFFFFFBFFFFFFFFFF),
    ("6.1", "vmemmap", 0xFFFFFC0000000000, 0xFFFFFDFFFFFFFFFF),
    ("6.1, 39 bits", "vmemmap", 0xFFFFFFFE00000000, 0xFFFFFFFEFFFFFFFF),
    ("6.1, 52 bits", "user", 0x0000000000000000, 0x000FFFFFFFFFFFFF),
    ("6.1, 52 bits", "direct map", 0xFFF0000000000000, 0xFFFF7FFFFFFFFFFF),
    ("6.1, 52 bits", "vmalloc", 0xFFFF800008000000, 0xFFFFFBFFEFFFFFFF),
    ("6.1, 52 bits", "vmemmap", 0xFFFFFC0000000000, 0xFFFFFFDFFFFFFFFF),
    # memory.rst of 6.12, which shows 6.5-6.8.
    ("6.6", "modules", 0xFFFF800000000000, 0xFFFF80007FFFFFFF),
    ("6.6", "vmalloc", 0xFFFF800080000000, 0xFFFFFBFFEFFFFFFF),
    ("6.6", "vmemmap", 0xFFFFFC0000000000, 0xFFFFFDFFFFFFFFFF),
    # memory.h of 6.12: vmemmap ends 1 GiB below the top, PCI I/O and the fixmap are above it.
    ("6.12", "modules", 0xFFFF800000000000, 0xFFFF80007FFFFFFF),
    ("6.12", "vmalloc", 0xFFFF800080000000, 0xFFFFFDFFBF7FFFFF),
    ("6.12", "hole between vmalloc and vmemmap", 0xFFFFFDFFBF800000, 0xFFFFFDFFBFFFFFFF),
    ("6.12", "vmemmap", 0xFFFFFDFFC0000000, 0xFFFFFFFFBFFFFFFF),
    ("6.12", "PCI I/O", 0xFFFFFFFFC0800000, 0xFFFFFFFFC17FFFFF),
    ("6.12", "fixmap", 0xFFFFFFFFC1800000, 0xFFFFFFFFFF7FFFFF),
    ("6.12, 39 bits", "vmemmap", 0xFFFFFFFEC0000000, 0xFFFFFFFFBFFFFFFF),
    ("6.12, 52 bits", "direct map", 0xFFF0000000000000, 0xFFFF7FFFFFFFFFFF),
    ("6.12, 52 bits", "vmemmap", 0xFFFFC1FFC0000000, 0xFFFFFFFFBFFFFFFF),
    ("6.12, 52 bits on a 48-bit CPU", "direct map", 0xFFFF000000000000, 0xFFFF7FFFFFFFFFFF),
    ("6.12, 52 bits on a 48-bit CPU", "vmalloc", 0xFFFF800080000000, 0xFFFFFDFFBF7FFFFF),
    ("6.12, 52 bits on a 48-bit CPU", "vmemmap", 0xFFFFFDFFC0000000, 0xFFFFFFFFBFFFFFFF),
]


def space_of(**facts: object) -> AddressSpace:
    space = address_space("aarch64", AddressSpaceFacts(**facts))  # type: ignore[arg-type]
    assert space is not None
    return space


@pytest.mark.parametrize(
    ("era", "name", "start", "end"), ROWS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_documented_rows(era: str, name: str, start: int, end: int) -> None:
    assert extent(space_of(**ERAS[era]), start) == (name, start, end)


def test_16k_pages_with_52_bits() -> None:
    """memory.h of 6.12: VA_BITS_MIN is 47, so modules start 2**46 below the top."""
    space = space_of(
        image_start=0xFFFFC00080000000, va_bits=52, vabits_actual=52, page_size=K16, has_early_init_stack=True
    )
    assert extent(space, 0xFFFFC00000000000) == ("modules", 0xFFFFC00000000000, 0xFFFFC0007FFFFFFF)


def test_fixmap_slot_counts_down_from_fixaddr_top() -> None:
    """memory.h of 6.12: FIXADDR_TOP is 8 MiB below the top; slot 1 is the page below it."""
    assert space_of(**ERAS["6.12"]).fixmap_slot(0xFFFFFFFFFF7FF008) == 1


# KASAN.


def test_kasan_shadow_is_the_top_of_the_direct_map_half() -> None:
    """memory.rst of 6.1: [ffff600000000000, ffff7fffffffffff], for generic KASAN; tag-based KASAN needs half of it."""
    space = space_of(**ERAS["6.1"], kasan_shadow=True)
    assert extent(space, 0xFFFF600000000000) == ("KASAN shadow or direct map", 0xFFFF600000000000, 0xFFFF7FFFFFFFFFFF)


def test_kasan_shadow_of_a_52_bit_kernel() -> None:
    """memory.rst of 6.1: [fffd800000000000, ffff7fffffffffff]."""
    space = space_of(**ERAS["6.1, 52 bits"], kasan_shadow=True)
    assert space.area_at(0xFFFD800000000000).start == 0xFFFD800000000000


def test_up_to_5_10_a_kasan_shadow_pushes_modules_and_image_up() -> None:
    """memory.h of 5.4: KASAN_SHADOW_END is 2**45 above the middle with 48 bits, and the BPF area starts there."""
    space = space_of(image_start=0xFFFFA00010080000, va_bits=48, page_size=K4)
    assert extent(space, 0xFFFF800000000000) == ("KASAN shadow", 0xFFFF800000000000, 0xFFFF9FFFFFFFFFFF)
    assert extent(space, 0xFFFFA00008000000) == ("modules", 0xFFFFA00008000000, 0xFFFFA0000FFFFFFF)


def test_4_19_has_the_kasan_shadow_at_the_bottom() -> None:
    """memory.h of 4.19: MODULES_VADDR is VA_START + KASAN_SHADOW_SIZE."""
    space = space_of(image_start=0xFFFF200008080000, va_bits=48, page_size=K4)
    assert extent(space, 0xFFFF000000000000) == ("KASAN shadow", 0xFFFF000000000000, 0xFFFF1FFFFFFFFFFF)


def test_up_to_5_10_the_upper_part_of_a_52_bit_half_is_not_claimed() -> None:
    space = space_of(image_start=0xFFFF800010080000, va_bits=52, vabits_actual=52, page_size=K64)
    assert extent(space, 0xFFF8000000000000) == (
        "direct map or the hole above it",
        0xFFF8000000000000,
        0xFFFF7FFFFFFFFFFF,
    )


# What is not known.


def test_nothing_known_claims_only_the_halves() -> None:
    space = space_of()
    assert extent(space, 0xFFFF800080000000)[0] == "kernel (layout not known)"
    assert space.is_user(0xFFFFFFFFFFFF)


def test_an_image_in_no_known_place_claims_no_layout() -> None:
    space = space_of(image_start=0xFFFF800012345000, va_bits=48)
    assert space.area_at(0xFFFF800012345000).name == "kernel (layout not known)"


def test_52_bits_that_may_not_be_there_are_said_to_be_so() -> None:
    space = space_of(image_start=0xFFFF800080000000, va_bits=52)
    area = space.area_at(0xFFF0000000000000)
    assert (area.name, area.details["then"]) == ("non-canonical", "direct map")
    assert not space.is_canonical(0xFFF0000000000000)


def test_an_unknown_era_claims_only_what_the_eras_share() -> None:
    """6.5-6.8 and 6.9 link the image at the same address and differ above vmalloc."""
    space = space_of(image_start=0xFFFF800080000000, va_bits=48, page_size=K4)
    assert space.area_at(0xFFFF800080000000).name == "vmalloc"
    assert space.area_at(0xFFFFFDFFC0000000).name.endswith("(page size, VA_BITS or era not known)")


def test_vmalloc_end_of_vmcoreinfo_tells_the_era() -> None:
    space = space_of(image_start=0xFFFF800080000000, va_bits=48, page_size=K4, vmalloc_end=0xFFFFFDFFBF800000)
    assert space.area_at(0xFFFFFDFFC0000000).name == "vmemmap"


# vmcoreinfo comes before any table.


def test_vmcoreinfo_places_the_areas_of_an_unknown_layout() -> None:
    space = space_of(
        modules_vaddr=0xFFFF800000000000,
        modules_end=0xFFFF800080000000,
        vmalloc_start=0xFFFF800080000000,
        vmalloc_end=0xFFFFFDFFBF800000,
        vmemmap_start=0xFFFFFDFFC0000000,
        vmemmap_end=0xFFFFFFFFC0000000,
    )
    assert extent(space, 0xFFFFFDFFC0000000) == ("vmemmap", 0xFFFFFDFFC0000000, 0xFFFFFFFFBFFFFFFF)
    assert space.area_at(0xFFFF800080000000).source == "vmcoreinfo"


def test_vmalloc_may_end_inside_the_vmemmap_of_vmcoreinfo() -> None:
    """pgtable.h of 6.12: on a 48-bit CPU VMALLOC_END leaves 8 MiB below the used part of vmemmap."""
    space = space_of(
        **ERAS["6.12, 52 bits on a 48-bit CPU"],
        vmalloc_start=0xFFFF800080000000,
        vmalloc_end=0xFFFFFDFFBF800000,
        vmemmap_start=0xFFFFC1FFC0000000,
        vmemmap_end=0xFFFFFFFFC0000000,
    )
    assert extent(space, 0xFFFFC1FFC0000000)[0] == "vmalloc"
    assert extent(space, 0xFFFFFDFFC0000000) == ("vmemmap", 0xFFFFFDFFC0000000, 0xFFFFFFFFBFFFFFFF)


# KASLR moves the image, and the modules with it.


def test_modules_are_nominal_where_the_image_may_have_moved() -> None:
    assert space_of(**ERAS["6.12"]).area_at(0xFFFF800000000000).nominal


@pytest.mark.parametrize(
    "facts",
    [{"runtime_image_start": 0xFFFF800080000000}, {"has_randomize_base": False}, {"kaslr_disabled": True}],
    ids=str,
)
def test_modules_are_sure_where_it_has_not(facts: dict[str, object]) -> None:
    assert not space_of(**ERAS["6.12"], **facts).area_at(0xFFFF800000000000).nominal


# What holds for any facts, broken ones too.

LINKS = [facts["image_start"] for facts in ERAS.values()]
ADDRESSES = st.one_of(st.none(), st.integers(0, (1 << 64) - 1))
BITS = st.one_of(st.sampled_from([None, 36, 39, 42, 47, 48, 52]), st.integers(-100, 100))
FLAGS = st.sampled_from([None, False, True])
FACTS = st.builds(
    AddressSpaceFacts,
    image_start=st.one_of(st.sampled_from(LINKS), ADDRESSES),
    runtime_image_start=ADDRESSES,
    has_randomize_base=FLAGS,
    kasan_shadow=FLAGS,
    page_size=st.one_of(st.sampled_from([None, K4, K16, K64]), st.integers(-1, 1 << 64)),
    va_bits=BITS,
    vabits_actual=BITS,
    has_early_init_stack=FLAGS,
    fixmap_start=ADDRESSES,
    modules_vaddr=ADDRESSES,
    modules_end=ADDRESSES,
    vmalloc_start=ADDRESSES,
    vmalloc_end=ADDRESSES,
    vmemmap_start=ADDRESSES,
    vmemmap_end=ADDRESSES,
)


@given(FACTS)
def test_areas_cover_the_whole_space_once(facts: AddressSpaceFacts) -> None:
    space = address_space("aarch64", facts)
    assert space is not None
    assert space.areas[0].start == 0
    assert space.areas[-1].end == 1 << 64
    assert all(area.start < area.end for area in space.areas)
    assert all(below.end == above.start for below, above in zip(space.areas, space.areas[1:]))
