"""The maps of i386 and arm: arch/x86/include/asm/pgtable_32_areas.h, Documentation/arch/arm/memory.rst, and what
machines showed of themselves in QEMU's registers and /proc/vmallocinfo."""

from __future__ import annotations

import pytest

from kplug.arch import registry
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space
from kplug.space.locators import AreaLocator
from kplug.space.special import specials


def space(machine: str, **facts: object) -> AddressSpace:
    found = address_space(machine, AddressSpaceFacts(**facts))  # type: ignore[arg-type]
    assert found is not None
    return found


def areas(found: AddressSpace) -> list[tuple[int, int, str]]:
    return [(area.start, area.end - 1, area.name) for area in found.areas if not area.hole]


# i386: Debian's 6.1.0-50-686-pae with 256 MiB. NR_CPUS is 32. QEMU showed the IDT at ff400000, the GDTs of its two CPUs
# at ff401000 and ff42c000; the first vmap area is at d07e0000.
PAE = {
    "image_start": 0xC1000000,
    "image_end": 0xC2135000,
    "runtime_image_start": 0xCB000000,
    "runtime_image_end": 0xCC135000,
    "high_memory": 0xCFFE0000,
    "fixaddr_top": 0xFFFFF000,
    "has_highmem": True,
    "pae": True,
    "fixed_addresses": (
        ("FIX_HOLE", 0),
        ("FIX_APIC_BASE", 2),
        ("__end_of_permanent_fixed_addresses", 583),
        ("FIX_BTMAP_END", 1024),
        ("FIX_BTMAP_BEGIN", 1535),
        ("FIX_WP_TEST", 1536),
        ("__end_of_fixed_addresses", 1537),
    ),
    "cpu_entry_areas": ((0, 0), (1, 0x2B000)),
    "cpu_entry_area_size": 0x2B000,
    "cpu_entry_area_members": (("gdt", 0, 0x1000),),
    "most_cpus": 32,
}


def test_i386_with_pae() -> None:
    found = space("i386", **PAE)
    assert areas(found) == [
        (0x00000000, 0xBFFFFFFF, "user"),
        (0xC0000000, 0xCFFDFFFF, "direct map"),
        (0xD07E0000, 0xFEFFDFFF, "vmalloc"),
        (0xFF000000, 0xFF1FFFFF, "pkmap"),
        (0xFF200000, 0xFF3FFFFF, "LDT remap"),
        (0xFF400000, 0xFF960FFF, "cpu_entry_area"),
        (0xFF9FE000, 0xFFDB7FFF, "early fixmap"),
        (0xFFDB8000, 0xFFFFEFFF, "fixmap"),
    ]
    assert found.areas[-1].end == 1 << 32
    assert [part.name for part in found.parts_at(0xFF42C010)] == ["CPU 1", "gdt of CPU 1"]
    assert [part.name for part in found.parts_at(0xFF400010)] == ["IDT"]
    # __fix_to_virt(FIX_APIC_BASE)
    assert [part.name for part in found.parts_at(0xFFFFD000)] == ["FIX_APIC_BASE"]


def test_i386_with_two_levels_has_pkmap_and_ldt_in_steps_of_4_mib_and_none_without_highmem() -> None:
    found = space("i386", **{**PAE, "pae": False})
    assert (0xFF400000, 0xFF960FFF, "cpu_entry_area") in areas(found)
    assert (0xFF000000, 0xFF3FFFFF, "LDT remap") in areas(found)
    assert (0xFEC00000, 0xFEFFFFFF, "pkmap") in areas(found)
    assert found.area_at(0xF0000000).end == 0xFEC00000 - 2 * 4096
    assert space("i386", **{**PAE, "has_highmem": False}).area_at(0xF0000000).end == 0xFF200000 - 2 * 4096


def test_i386_without_types_has_one_area_for_what_depends_on_the_configuration() -> None:
    facts = {key: value for key, value in PAE.items() if key in ("image_start", "high_memory", "has_highmem", "pae")}
    assert areas(space("i386", **facts)) == [
        (0x00000000, 0xBFFFFFFF, "user"),
        (0xC0000000, 0xCFFDFFFF, "direct map"),
        (0xD07E0000, 0xFFFFEFFF, "vmalloc, pkmap, LDT remap, cpu_entry_area or fixmap (bounds not known)"),
    ]


def test_the_files_of_i386_alone_do_not_say_where_lowmem_ends() -> None:
    found = space("i386", image_start=0xC1000000, runtime_image_start=0xC1000000, runtime_image_end=0xC2135000)
    assert areas(found)[1:] == [
        (0xC0000000, 0xC2134FFF, "direct map"),
        (0xC2135000, 0xFFFFEFFF, "vmalloc, direct map, pkmap, LDT remap, cpu_entry_area or fixmap (bounds not known)"),
    ]


@pytest.mark.parametrize("split", [0x40000000, 0x78000000, 0x80000000, 0xB0000000, 0xC0000000])
def test_the_link_address_tells_the_split_of_i386(split: int) -> None:
    assert space("i386", image_start=split + (16 << 20)).area_at(split - 1).kind == "user"
    assert space("i386", image_start=split + (16 << 20)).area_at(split).kind == "kernel"


def test_what_no_i386_can_have_is_refused() -> None:
    found = space("i386", image_start=0xC1000000, high_memory=0x1000, fixaddr_top=0x123)
    assert [said.partition(",")[0] for said in found.warnings] == [
        "__FIXADDR_TOP is 0x123",
        "high_memory is 0x1000",
    ]
    assert found.area_at(0xC0000000).name.startswith("vmalloc, direct map")


# arm: Debian's 6.12 armmp with 256 MiB on QEMU's `virt`: VMALLOC_START in VMCOREINFO is d0800000.
ARM = {"image_start": 0xC0208000, "image_end": 0xC182C190, "high_memory": 0xD0000000, "has_highmem": True}


def test_arm_as_documented() -> None:
    assert areas(space("arm", **ARM)) == [
        (0x00000000, 0xBEFFFFFF, "user"),
        (0xBF000000, 0xBFDFFFFF, "modules"),
        (0xBFE00000, 0xBFFFFFFF, "pkmap"),
        (0xC0000000, 0xCFFFFFFF, "direct map"),
        (0xD0800000, 0xFF7FFFFF, "vmalloc"),
        (0xFF800000, 0xFFBFFFFF, "device tree"),
        (0xFFC00000, 0xFFC7FFFF, "fixmap or the guard below it"),
        (0xFFC80000, 0xFFEFFFFF, "fixmap"),
        (0xFFFE0000, 0xFFFEFFFF, "TCM"),
        (0xFFFF0000, 0xFFFF1FFF, "vectors"),
        (0xFFFF4000, 0xFFFFFFFF, "cache aliases"),
    ]


def test_vmalloc_of_arm_begins_at_whole_8_mib() -> None:
    found = space("arm", **{**ARM, "high_memory": 0xCF123000})
    assert found.area_at(0xCF800000).name == "vmalloc"
    assert found.area_at(0xCF7FFFFF).name == "hole between direct map and vmalloc"


@pytest.mark.parametrize("split", [0x40000000, 0x80000000, 0xB0000000, 0xC0000000])
def test_the_link_address_tells_the_split_of_arm(split: int) -> None:
    found = space("arm", image_start=split + 0x8000)
    assert found.area_at(split - (16 << 20)).name == "modules"
    assert found.area_at(split - (16 << 20) - 1).kind == "user"


def test_kasans_shadow_on_arm_ends_where_modules_begin() -> None:
    """CONFIG_KASAN_SHADOW_OFFSET is 9f000000 for PAGE_OFFSET c0000000 (arch/arm/Kconfig)."""
    found = space("arm", **ARM, kasan_shadow=True).area_at(0xBEFFFFFF)
    assert (found.name, found.start, found.end) == ("KASAN shadow", (0xBF000000 >> 3) + 0x9F000000, 0xBF000000)


def test_the_files_of_arm_alone_do_not_say_where_lowmem_ends() -> None:
    found = space("arm", image_start=0xC0208000, runtime_image_start=0xC0208000, runtime_image_end=0xC182C190)
    assert found.area_at(0xC182C18F).name == "direct map"
    assert found.area_at(0xC182C190).name == "vmalloc or direct map (high_memory not known)"
    assert found.area_at(0xBFFFFFFF).name == "modules or pkmap"


def test_vmcoreinfo_has_the_start_of_vmalloc_from_6_9_on() -> None:
    """A kernel whose symbols are functions alone has no high_memory."""
    found = space("i386", image_start=0xC1000000, vmalloc_start=0xD07E0000)
    assert (found.area_at(0xCFFDFFFF).name, found.area_at(0xCFFE0000).hole) == ("direct map", True)
    assert found.area_at(0xD07E0000).name.startswith("vmalloc, pkmap")
    found = space("arm", image_start=0xC0208000, vmalloc_start=0xD0800000)
    assert found.area_at(0xCFFFFFFF).name == "direct map"
    assert found.area_at(0xD0000000).name == found.area_at(0xD07FFFFF).name == "direct map or the hole above it"
    assert found.area_at(0xD0800000).name == "vmalloc"
    assert space("arm", image_start=0xC0208000, vmalloc_start=0x1000).area_at(0xC0000000).name.startswith("vmalloc or")


@pytest.mark.parametrize("machine", ["i386", "arm"])
def test_special_values_stand_beside_the_area(machine: str) -> None:
    found = space(machine, image_start=0xC1000000 if machine == "i386" else 0xC0208000)
    word = registry.named(machine).word()
    for value, name in ((0xFFFFFFF4, "ERR_PTR(-ENOMEM)"), (0xCCCCCCCC, "POISON_FREE_INITMEM"), (0x18, "NULL+0x18")):
        assert specials(value, machine, found, word)[0].name == name
    assert specials(0xC1234560, machine, found, word) == ()


@pytest.mark.parametrize(("machine", "start"), [("i386", 0xC1000000), ("arm", 0xC0208000)])
def test_without_the_link_address_the_split_is_a_guess(machine: str, start: int) -> None:
    for found, is_guess in ((space(machine), True), (space(machine, image_start=start), False)):
        assert ("if" in found.area_at(0xBF800000).details) is is_guess
        assert [each.guess for each in specials(0x9F123450, machine, found)] == [is_guess]


@pytest.mark.parametrize("machine", ["i386", "arm"])
def test_an_address_of_more_bits_is_none(machine: str) -> None:
    found = space(machine)
    assert found.area_at((1 << 32) - 1).name != found.area_at(1 << 32).name == "no address: more than 32 bits"
    assert not found.is_canonical(1 << 32)
    assert list(AreaLocator(found).locate(1 << 32)) == []
    assert specials(0x1C1DBAA13, machine, found) == ()


def test_sizes_that_leave_no_memory_are_not_used() -> None:
    """Of a dump with broken types."""
    found = space("i386", **{**PAE, "cpu_entry_area_size": 1 << 40})
    assert found.area_at(0xF0000000).name.startswith("vmalloc, pkmap")
    assert [(low.end, high.start) for low, high in zip(found.areas, found.areas[1:]) if low.end != high.start] == []
