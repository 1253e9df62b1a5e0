"""The map of x86_64. Expected figures: Documentation/arch/x86/x86_64/mm.rst of 6.12 (the tables for 4 and 5 levels),
and where a comment says so pgtable_64_types.h, page_64_types.h, fixmap.h, mm/kaslr.c of the same tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.areas import extent

from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space

TIB = 1 << 40
PIB = 1 << 50

# Start and end (inclusive, as printed in mm.rst) of the rows.
MM_RST_4_LEVEL = [
    ("guard hole", 0xFFFF800000000000, 0xFFFF87FFFFFFFFFF),
    ("LDT remap", 0xFFFF880000000000, 0xFFFF887FFFFFFFFF),
    ("direct map", 0xFFFF888000000000, 0xFFFFC87FFFFFFFFF),
    ("hole between direct map and vmalloc", 0xFFFFC88000000000, 0xFFFFC8FFFFFFFFFF),
    ("vmalloc", 0xFFFFC90000000000, 0xFFFFE8FFFFFFFFFF),
    ("hole between vmalloc and vmemmap", 0xFFFFE90000000000, 0xFFFFE9FFFFFFFFFF),
    ("vmemmap", 0xFFFFEA0000000000, 0xFFFFEAFFFFFFFFFF),
    ("hole between vmemmap and KASAN shadow", 0xFFFFEB0000000000, 0xFFFFEBFFFFFFFFFF),
    ("KASAN shadow", 0xFFFFEC0000000000, 0xFFFFFBFFFFFFFFFF),
]
MM_RST_5_LEVEL = [
    ("guard hole", 0xFF00000000000000, 0xFF0FFFFFFFFFFFFF),
    ("LDT remap", 0xFF10000000000000, 0xFF10FFFFFFFFFFFF),
    ("direct map", 0xFF11000000000000, 0xFF90FFFFFFFFFFFF),
    ("hole between direct map and vmalloc", 0xFF91000000000000, 0xFF9FFFFFFFFFFFFF),
    ("vmalloc", 0xFFA0000000000000, 0xFFD1FFFFFFFFFFFF),
    ("hole between vmalloc and vmemmap", 0xFFD2000000000000, 0xFFD3FFFFFFFFFFFF),
    ("vmemmap", 0xFFD4000000000000, 0xFFD5FFFFFFFFFFFF),
    ("hole between vmemmap and KASAN shadow", 0xFFD6000000000000, 0xFFDEFFFFFFFFFFFF),
    ("KASAN shadow", 0xFFDF000000000000, 0xFFFFFBFFFFFFFFFF),
]
MM_RST_ANY_LEVEL = [
    ("hole between KASAN shadow and cpu_entry_area", 0xFFFFFC0000000000, 0xFFFFFDFFFFFFFFFF),
    ("cpu_entry_area", 0xFFFFFE0000000000, 0xFFFFFE7FFFFFFFFF),
    ("hole between cpu_entry_area and espfix stacks", 0xFFFFFE8000000000, 0xFFFFFEFFFFFFFFFF),
    ("espfix stacks", 0xFFFFFF0000000000, 0xFFFFFF7FFFFFFFFF),
    ("hole between espfix stacks and EFI runtime services", 0xFFFFFF8000000000, 0xFFFFFFEEFFFFFFFF),
    ("EFI runtime services", 0xFFFFFFEF00000000, 0xFFFFFFFEFFFFFFFF),
    ("hole between EFI runtime services and kernel image mapping", 0xFFFFFFFF00000000, 0xFFFFFFFF7FFFFFFF),
    ("kernel image mapping", 0xFFFFFFFF80000000, 0xFFFFFFFF9FFFFFFF),
    ("modules", 0xFFFFFFFFA0000000, 0xFFFFFFFFFEFFFFFF),
    ("vsyscall", 0xFFFFFFFFFF600000, 0xFFFFFFFFFF600FFF),
    ("last 2 MiB", 0xFFFFFFFFFFE00000, 0xFFFFFFFFFFFFFFFF),
]


def space_of(**facts: object) -> AddressSpace:
    space = address_space("x86_64", AddressSpaceFacts(**facts))  # type: ignore[arg-type]
    assert space is not None
    return space


@pytest.mark.parametrize("row", MM_RST_4_LEVEL + MM_RST_ANY_LEVEL, ids=lambda row: row[0])
def test_rows_of_the_4_level_table(row: tuple[str, int, int]) -> None:
    space = space_of(pgtable_l5_enabled=False, has_randomize_base=False, has_randomize_memory=False, kasan_shadow=True)
    assert extent(space, row[1]) == row


@pytest.mark.parametrize("row", MM_RST_5_LEVEL + MM_RST_ANY_LEVEL, ids=lambda row: row[0])
def test_rows_of_the_5_level_table(row: tuple[str, int, int]) -> None:
    space = space_of(pgtable_l5_enabled=True, has_randomize_base=False, has_randomize_memory=False, kasan_shadow=True)
    assert extent(space, row[1]) == row


@pytest.mark.parametrize(("l5", "bits", "guard"), [(False, 47, 0xFFFF800000000000), (True, 56, 0xFF00000000000000)])
def test_non_canonical_is_all_between_the_halves(l5: bool, bits: int, guard: int) -> None:
    assert extent(space_of(pgtable_l5_enabled=l5), 1 << bits) == ("non-canonical", 1 << bits, guard - 1)


@pytest.mark.parametrize(("l5", "bits"), [(False, 47), (True, 56)])
def test_the_last_user_page_is_a_guard(l5: bool, bits: int) -> None:
    """page_64_types.h: task_size_max() is a page less than the half."""
    space = space_of(pgtable_l5_enabled=l5)
    assert extent(space, 0) == ("user", 0, (1 << bits) - 0x1001)
    assert space.area_at((1 << bits) - 1).hole
    assert space.is_canonical((1 << bits) - 1)


def test_documented_unused_holes_are_holes() -> None:
    space = space_of(pgtable_l5_enabled=False, has_randomize_memory=False, kasan_shadow=True)
    for address in (0xFFFFC88000000000, 0xFFFFE90000000000, 0xFFFFEB0000000000, 0xFFFFFC0000000000, 0xFFFFFE8000000000):
        assert space.area_at(address).hole


def test_areas_in_use_are_not_holes() -> None:
    space = space_of(pgtable_l5_enabled=False, has_randomize_memory=False)
    for address in (0x1000, 0xFFFF888000000000, 0xFFFFC90000000000, 0xFFFFEA0000000000, 0xFFFFFFFF81000000):
        assert not space.area_at(address).hole


# KERNEL_IMAGE_SIZE: page_64_types.h.


def test_with_randomize_base_the_image_mapping_is_1_gib() -> None:
    space = space_of(has_randomize_base=True)
    assert extent(space, 0xFFFFFFFFA0000000) == ("kernel image mapping", 0xFFFFFFFF80000000, 0xFFFFFFFFBFFFFFFF)
    assert extent(space, 0xFFFFFFFFC0000000) == ("modules", 0xFFFFFFFFC0000000, 0xFFFFFFFFFEFFFFFF)


def test_vmcoreinfo_tells_the_size_of_the_image_mapping() -> None:
    space = space_of(kernel_image_size=512 << 20)
    assert space.area_at(0xFFFFFFFFA0000000).name == "modules"


def test_a_kaslr_offset_proves_randomize_base() -> None:
    space = space_of(image_start=0xFFFFFFFF81000000, runtime_image_start=0xFFFFFFFF89A00000)
    assert space.area_at(0xFFFFFFFFA0000000).name == "kernel image mapping"


def test_an_unknown_size_claims_neither_image_nor_modules() -> None:
    space = space_of()
    assert space.area_at(0xFFFFFFFF9FFFFFFF).name == "kernel image mapping"
    name, start, end = extent(space, 0xFFFFFFFFA0000000)
    assert name.startswith("kernel image mapping or modules")
    assert (start, end) == (0xFFFFFFFFA0000000, 0xFFFFFFFFBFFFFFFF)
    assert space.area_at(0xFFFFFFFFC0000000).name == "modules"


# Memory randomisation: mm/kaslr.c.


def test_randomised_and_bases_not_known_is_one_window() -> None:
    space = space_of(pgtable_l5_enabled=False, has_randomize_memory=True)
    assert extent(space, 0xFFFFC90000000000) == (
        "direct map, vmalloc or vmemmap (randomised, bases not known)",
        0xFFFF888000000000,
        0xFFFFFDFFFFFFFFFF,
    )


def test_not_told_of_randomisation_the_bases_are_nominal() -> None:
    space = space_of(pgtable_l5_enabled=False)
    for address in (0xFFFF888000000000, 0xFFFFC90000000000, 0xFFFFEA0000000000):
        assert space.area_at(address).nominal


@pytest.mark.parametrize(
    "facts", [{"has_randomize_memory": False}, {"kaslr_disabled": True}, {"kasan_shadow": True}], ids=str
)
def test_without_randomisation_the_bases_are_sure(facts: dict[str, bool]) -> None:
    """kaslr.c: nothing is randomised with nokaslr, nor in a kernel with KASAN."""
    area = space_of(pgtable_l5_enabled=False, **facts).area_at(0xFFFFC90000000000)
    assert (area.name, area.nominal) == ("vmalloc", False)


RANDOMISED = {
    "pgtable_l5_enabled": False,
    "has_randomize_memory": True,
    "page_offset_base": 0xFFFF9A1D40000000,
    "vmalloc_base": 0xFFFFB1F000000000,
    "vmemmap_base": 0xFFFFF06080000000,
}


def test_known_bases_place_the_areas() -> None:
    space = space_of(**RANDOMISED)
    assert [(area.name, area.start) for area in space.areas if area.name in ("direct map", "vmalloc", "vmemmap")] == [
        ("direct map", 0xFFFF9A1D40000000),
        ("vmalloc", 0xFFFFB1F000000000),
        ("vmemmap", 0xFFFFF06080000000),
    ]


def test_a_known_base_names_its_variable_as_source() -> None:
    assert space_of(**RANDOMISED).area_at(0xFFFFB1F000000000).source == "vmalloc_base"


def test_vmalloc_and_vmemmap_keep_their_sizes_when_moved() -> None:
    """VMALLOC_SIZE_TB_L4 is 32; 64 TiB of direct map need 1 TiB of vmemmap."""
    space = space_of(**RANDOMISED)
    assert space.area_at(0xFFFFB1F000000000).end == 0xFFFFB1F000000000 + 32 * TIB
    assert space.area_at(0xFFFFF06080000000).end == 0xFFFFF06080000000 + TIB


def test_a_moved_direct_map_reaches_at_most_to_vmalloc() -> None:
    area = space_of(**RANDOMISED).area_at(0xFFFF9A1D40000000)
    assert area.end == 0xFFFFB1F000000000
    assert "at most" in area.details["end_note"]


def test_physmem_end_ends_the_direct_map() -> None:
    """It is the last physical address: 11 TiB less one for 1 TiB of RAM and 10 TiB of padding."""
    space = space_of(**RANDOMISED, direct_map_physmem_end=11 * TIB - 1)
    assert extent(space, 0xFFFF9A1D40000000) == (
        "direct map",
        0xFFFF9A1D40000000,
        0xFFFF9A1D40000000 + 11 * TIB - 1,
    )
    assert space.area_at(0xFFFF9A1D40000000 + 11 * TIB).name == "hole between direct map and vmalloc"


def test_the_end_of_ram_is_a_detail_of_the_direct_map() -> None:
    space = space_of(**RANDOMISED, max_pfn=0x80000)
    assert space.area_at(0xFFFF9A1D40000000).details["ram_end"] == f"{0xFFFF9A1D40000000 + (2 << 30):#x}"


def test_below_a_moved_direct_map_is_a_hole() -> None:
    space = space_of(**RANDOMISED)
    assert extent(space, 0xFFFF888000000000) == (
        "hole between LDT remap and direct map",
        0xFFFF888000000000,
        0xFFFF9A1D3FFFFFFF,
    )


def test_one_known_base_leaves_windows_on_both_sides() -> None:
    space = space_of(pgtable_l5_enabled=False, has_randomize_memory=True, vmalloc_base=0xFFFFB1F000000000)
    assert space.area_at(0xFFFF888000000000).name == "direct map (randomised, base not known)"
    assert space.area_at(0xFFFFB1F000000000).name == "vmalloc"
    assert space.area_at(0xFFFFF06080000000).name == "vmemmap (randomised, base not known)"


@pytest.mark.parametrize("base", [0, 1, 0x1000, 0xFFFFFFFF81000000, 0xFFFF9A1D40000001, (1 << 64) - 4096])
def test_a_base_that_no_kernel_has_is_not_believed(base: int) -> None:
    space = space_of(pgtable_l5_enabled=False, has_randomize_memory=True, page_offset_base=base)
    assert space.area_at(0xFFFF9A1D40000000).name.endswith("(randomised, bases not known)")


def test_bases_out_of_order_are_not_believed() -> None:
    """kaslr.c keeps the order of the three."""
    space = space_of(**{**RANDOMISED, "vmalloc_base": 0xFFFF900000000000})
    assert not any(area.start == 0xFFFF900000000000 for area in space.areas)


def test_bases_as_compiled_were_not_randomised() -> None:
    space = space_of(
        pgtable_l5_enabled=False,
        has_randomize_memory=True,
        page_offset_base=0xFFFF888000000000,
        vmalloc_base=0xFFFFC90000000000,
        vmemmap_base=0xFFFFEA0000000000,
    )
    assert extent(space, 0xFFFF888000000000) == ("direct map", 0xFFFF888000000000, 0xFFFFC87FFFFFFFFF)
    assert "end_note" not in space.area_at(0xFFFF888000000000).details


def test_kmsan_takes_three_quarters_of_vmalloc() -> None:
    """pgtable_64_types.h, VMALLOC_QUARTER_SIZE."""
    space = space_of(pgtable_l5_enabled=False, has_randomize_memory=False, kmsan=True)
    assert extent(space, 0xFFFFC90000000000) == ("vmalloc", 0xFFFFC90000000000, 0xFFFFC90000000000 + 8 * TIB - 1)
    assert space.area_at(0xFFFFC90000000000 + 8 * TIB).name == "KMSAN metadata"


def test_kasan_shadow_only_if_told() -> None:
    assert not any(area.name == "KASAN shadow" for area in space_of(pgtable_l5_enabled=False).areas)


# The level.


def test_page_offset_base_tells_the_level() -> None:
    assert space_of(page_offset_base=0xFF11000000000000).area_at(0xFF11000000000000).name == "direct map"
    assert space_of(page_offset_base=0xFFFF888000000000).area_at(0xFF11000000000000).name == "non-canonical"


def test_an_unknown_level_is_taken_as_4_and_says_so() -> None:
    space = space_of()
    assert space.area_at(0xFFFF888000000000).name == "direct map"
    assert "(the level is not known)" in space.area_at(0xFFFF888000000000).source


@pytest.mark.parametrize(
    ("address", "then"),
    [(1 << 47, "user"), (0xFF11000000000000, "direct map"), (0xFFA0000000000000, "vmalloc")],
)
def test_what_only_5_levels_give_a_meaning_says_so(address: int, then: str) -> None:
    space = space_of()
    area = space.area_at(address)
    assert area.name == "non-canonical"
    assert area.details["then"] == then
    assert not space.is_canonical(address)


def test_a_known_level_says_nothing_of_the_other() -> None:
    assert space_of(pgtable_l5_enabled=False).area_at(0xFF11000000000000).details == {}


# Fixmap: fixmap.h.


def test_fixmap_from_fixaddr_start() -> None:
    space = space_of(fixmap_start=0xFFFFFFFFFF578000)
    assert extent(space, 0xFFFFFFFFFF578000) == ("fixmap", 0xFFFFFFFFFF578000, 0xFFFFFFFFFF5FFFFF)
    assert space.area_at(0xFFFFFFFFFF577FFF).name == "hole between modules and fixmap"


def test_fixmap_without_fixaddr_start_claims_no_bound() -> None:
    assert space_of().area_at(0xFFFFFFFFFF5FF000).name == "fixmap or the hole below it"


def test_without_a_vsyscall_page_the_fixmap_begins_at_its_top() -> None:
    """`enum fixed_addresses` without CONFIG_X86_VSYSCALL_EMULATION, as gdb's ptype shows it."""
    slots = (
        ("FIX_DBGP_BASE", 0),
        ("FIX_APIC_BASE", 2),
        ("__end_of_permanent_fixed_addresses", 131),
        ("FIX_BTMAP_END", 512),
        ("FIX_BTMAP_BEGIN", 1023),
        ("__end_of_fixed_addresses", 1024),
    )
    space = space_of(fixed_addresses=slots)
    assert space.warnings == ()
    assert extent(space, 0xFFFFFFFFFF7FF000) == ("fixmap", 0xFFFFFFFFFF77C000, 0xFFFFFFFFFF7FFFFF)
    assert [part.name for part in space.parts_at(0xFFFFFFFFFF7FD020)] == ["FIX_APIC_BASE"]
    assert extent(space, 0xFFFFFFFFFF5FFFFF) == ("early fixmap", 0xFFFFFFFFFF400000, 0xFFFFFFFFFF5FFFFF)
    assert space.area_at(0xFFFFFFFFFF600000).name == "vsyscall"
    assert space.area_at(0xFFFFFFFFFF600000).hole
    assert space.area_at(0xFFFFFFFFFF601000).name == "hole between vsyscall and fixmap"


def test_without_a_vsyscall_page_and_fixaddr_start_the_fixmap_may_be_above_it_too() -> None:
    space = space_of(has_vsyscall=False)
    assert space.area_at(0xFFFFFFFFFF7FD020).name == "fixmap or the hole below it"
    assert not space.area_at(0xFFFFFFFFFF600000).hole


def test_many_slots_of_a_kernel_without_vsyscall_page_reach_over_its_place() -> None:
    slots = (("FIX_KMAP_BEGIN", 4), ("FIX_KMAP_END", 600), ("__end_of_permanent_fixed_addresses", 601))
    assert space_of(fixed_addresses=slots).area_at(0xFFFFFFFFFF600000).name == "fixmap"


def test_fixmap_slot_counts_down_from_fixaddr_top() -> None:
    """FIXADDR_TOP is ffffffffff7ff000: VSYSCALL_PAGE is slot 511, so the page below vsyscall is slot 512."""
    assert space_of().fixmap_slot(0xFFFFFFFFFF5FF123) == 512


def test_only_the_fixmap_has_slots() -> None:
    assert space_of().fixmap_slot(0xFFFFFFFF81000000) is None


def test_debug_kmap_moves_the_end_of_modules() -> None:
    """pgtable_64_types.h: MODULES_END with CONFIG_DEBUG_KMAP_LOCAL_FORCE_MAP."""
    space = space_of(has_randomize_base=True, modules_end=0xFFFFFFFFFE000000)
    assert extent(space, 0xFFFFFFFFC0000000) == ("modules", 0xFFFFFFFFC0000000, 0xFFFFFFFFFDFFFFFF)


# What holds for any facts, broken ones too.

ADDRESSES = st.one_of(st.none(), st.integers(0, (1 << 64) - 1), st.integers(0xFF000, 0xFFFFF).map(lambda n: n << 44))
FLAGS = st.sampled_from([None, False, True])
FACTS = st.builds(
    AddressSpaceFacts,
    image_start=ADDRESSES,
    image_end=ADDRESSES,
    runtime_image_start=ADDRESSES,
    has_randomize_base=FLAGS,
    kaslr_disabled=FLAGS,
    kasan_shadow=FLAGS,
    max_pfn=ADDRESSES,
    has_randomize_memory=FLAGS,
    pgtable_l5_enabled=FLAGS,
    page_offset_base=ADDRESSES,
    vmalloc_base=ADDRESSES,
    vmemmap_base=ADDRESSES,
    direct_map_physmem_end=ADDRESSES,
    kernel_image_size=ADDRESSES,
    fixmap_start=ADDRESSES,
    has_vsyscall=FLAGS,
    kmsan=FLAGS,
    modules_end=ADDRESSES,
)


@given(FACTS)
def test_areas_cover_the_whole_space_once(facts: AddressSpaceFacts) -> None:
    space = address_space("x86_64", facts)
    assert space is not None
    assert space.areas[0].start == 0
    assert space.areas[-1].end == 1 << 64
    assert all(area.start < area.end for area in space.areas)
    assert all(below.end == above.start for below, above in zip(space.areas, space.areas[1:]))


@given(FACTS, st.integers(0, (1 << 64) - 1))
def test_area_at_finds_the_area_that_holds_the_address(facts: AddressSpaceFacts, address: int) -> None:
    space = address_space("x86_64", facts)
    assert space is not None
    area = space.area_at(address)
    assert area.start <= address < area.end


@pytest.mark.parametrize("address", [-1, 1 << 64])
def test_more_than_64_bits_is_not_an_address(address: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        space_of().area_at(address)


def test_a_machine_without_a_table_has_no_map() -> None:
    assert address_space("vax", AddressSpaceFacts()) is None


def test_halves() -> None:
    space = space_of(pgtable_l5_enabled=False)
    assert space.is_user(0x400000)
    assert not space.is_user(0xFFFFFFFF81000000)
    assert not space.is_user(0x8000000000000000)
