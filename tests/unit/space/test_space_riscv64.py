"""The map of riscv64, against the tables of Documentation/arch/riscv/vm-layout.rst (6.12)."""

from __future__ import annotations

import pytest

from kplug.arch import registry
from kplug.memory.kernel_note import with_vmcoreinfo
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.space.address_space import TOP, AddressSpace, AddressSpaceFacts, address_space

# Bits of an address -> (first, last address, name); of the three tables.
DOCUMENTED = {
    39: (
        (0x0, 0x3FFFFFFFFF, "user"),
        (0x4000000000, 0xFFFFFFBFFFFFFFFF, "non-canonical"),
        (0xFFFFFFC4FEA00000, 0xFFFFFFC4FEFFFFFF, "fixmap"),
        (0xFFFFFFC4FF000000, 0xFFFFFFC4FFFFFFFF, "PCI I/O"),
        (0xFFFFFFC500000000, 0xFFFFFFC5FFFFFFFF, "vmemmap"),
        (0xFFFFFFC600000000, 0xFFFFFFD5FFFFFFFF, "vmalloc"),
        (0xFFFFFFD600000000, 0xFFFFFFF5FFFFFFFF, "direct map"),
        (0xFFFFFFF700000000, 0xFFFFFFFEFFFFFFFF, "KASAN shadow"),
    ),
    48: (
        (0x0, 0x7FFFFFFFFFFF, "user"),
        (0x800000000000, 0xFFFF7FFFFFFFFFFF, "non-canonical"),
        (0xFFFF8D7FFEA00000, 0xFFFF8D7FFEFFFFFF, "fixmap"),
        (0xFFFF8D7FFF000000, 0xFFFF8D7FFFFFFFFF, "PCI I/O"),
        (0xFFFF8D8000000000, 0xFFFF8F7FFFFFFFFF, "vmemmap"),
        (0xFFFF8F8000000000, 0xFFFFAF7FFFFFFFFF, "vmalloc"),
        (0xFFFFAF8000000000, 0xFFFFEF7FFFFFFFFF, "direct map"),
        (0xFFFFEF8000000000, 0xFFFFFFFEFFFFFFFF, "KASAN shadow"),
    ),
    57: (
        (0x0, 0xFFFFFFFFFFFFFF, "user"),
        (0x100000000000000, 0xFEFFFFFFFFFFFFFF, "non-canonical"),
        (0xFF1BFFFFFEA00000, 0xFF1BFFFFFEFFFFFF, "fixmap"),
        (0xFF1BFFFFFF000000, 0xFF1BFFFFFFFFFFFF, "PCI I/O"),
        (0xFF1C000000000000, 0xFF1FFFFFFFFFFFFF, "vmemmap"),
        (0xFF20000000000000, 0xFF5FFFFFFFFFFFFF, "vmalloc"),
        (0xFF60000000000000, 0xFFDEFFFFFFFFFFFF, "direct map"),
        (0xFFDF000000000000, 0xFFFFFFFEFFFFFFFF, "KASAN shadow"),
    ),
}
ALL_MODES = ((0xFFFFFFFF00000000, 0xFFFFFFFF7FFFFFFF, "modules"), (0xFFFFFFFF80000000, TOP - 1, "kernel image mapping"))


def space(**facts: object) -> AddressSpace:
    found = address_space("riscv64", AddressSpaceFacts(**facts))  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("bits", DOCUMENTED)
def test_the_documented_areas(bits: int) -> None:
    areas = space(va_bits=bits, kasan_shadow=True).areas
    named = [(area.start, area.end - 1, area.name) for area in areas if not area.hole]
    assert named == [*DOCUMENTED[bits], *ALL_MODES]


@pytest.mark.parametrize("bits", DOCUMENTED)
def test_page_offset_tells_the_mode(bits: int) -> None:
    page_offset = next(start for start, _, name in DOCUMENTED[bits] if name == "direct map")
    assert space(vmalloc_end=page_offset).description == f"riscv64, Sv{bits} page tables"


def test_up_to_6_6_all_lies_8_gib_further_up() -> None:
    found = space(va_bits=39, page_offset_base=0xFFFFFFD800000000)
    assert found.area_at(0xFFFFFFD800000000).name == "direct map"
    assert found.area_at(0xFFFFFFD7FFFFFFFF).name == "vmalloc"


def test_where_the_mode_is_not_known_the_deeper_ones_are_said() -> None:
    found = space()
    assert found.description == "riscv64, Sv39 page tables (assumed)"
    assert found.area_at(0xFF60000000000000).details == {"if": "page tables are of Sv57", "then": "direct map"}
    assert found.area_at(0xFFFFAF8000000000).details == {"if": "page tables are of Sv48", "then": "direct map"}
    assert found.area_at(1 << 60).details == {}


def test_modules_end_where_the_image_starts() -> None:
    """MODULES_VADDR is PFN_ALIGN(_end) - 2 GiB, MODULES_END is _start."""
    image = {"image_start": 0xFFFFFFFF80002000, "image_end": 0xFFFFFFFF81E3C000}
    moved = {"runtime_image_start": 0xFFFFFFFF80802000, "runtime_image_end": 0xFFFFFFFF8263C000}
    modules = space(**image, **moved).area_at(0xFFFFFFFF80700000)
    assert (modules.name, modules.start, modules.end) == ("modules", 0xFFFFFFFF0263C000, 0xFFFFFFFF80800000)
    [bpf] = modules.parts
    assert (bpf.start, bpf.end) == (0xFFFFFFFF78800000, 0xFFFFFFFF80800000)


def test_va_bits_that_no_kernel_has() -> None:
    found = space(va_bits=42)
    assert found.warnings == ("VA_BITS is 42, which is impossible on riscv64: it is not used",)


def test_an_image_in_the_direct_map_is_of_a_map_that_is_not_known() -> None:
    found = space(image_start=0xFFFFFFE000002000)
    assert found.area_at(0xFFFFFFE000002000).name == "kernel (layout not known)"


# What a 6.12 under QEMU noted of itself (its BTF and symbols lead to the same places).
NOTE = """OSRELEASE=6.12.117+deb13-riscv64
PAGESIZE=4096
NUMBER(phys_ram_base)=2147483648
NUMBER(PAGE_OFFSET)=0xff60000000000000
NUMBER(VMALLOC_START)=0xff20000000000000
NUMBER(VMALLOC_END)=0xff60000000000000
NUMBER(VA_BITS)=57
NUMBER(VMEMMAP_START)=0xff1c000000000000
NUMBER(VMEMMAP_END)=0xff20000000000000
NUMBER(MODULES_VADDR)=0xffffffff01e6c000
NUMBER(MODULES_END)=0xffffffff80000000
NUMBER(KERNEL_LINK_ADDR)=0xffffffff80000000
NUMBER(va_kernel_pa_offset)=0xfffffffeffe00000
"""


def test_vmcoreinfo_tells_the_mode_the_modules_and_where_the_image_is() -> None:
    facts = with_vmcoreinfo(AddressSpaceFacts(kasan_shadow=True), VmcoreInfo(NOTE), "riscv64")
    found = address_space("riscv64", facts)
    assert found is not None
    named = [(area.start, area.end - 1, area.name) for area in found.areas if not area.hole]
    assert named[: len(DOCUMENTED[57]) - 1] == [*DOCUMENTED[57][:-1]]
    assert (0xFFFFFFFF01E6C000, 0xFFFFFFFF7FFFFFFF, "modules") in named
    assert found.warnings == ()
    image_physical = registry.named("riscv64").image_physical
    assert image_physical is not None
    # QEMU's virt machine has RAM from 2 GiB on, OpenSBI in its first 2 MiB, and the image behind.
    assert image_physical(0xFFFFFFFF80000000, facts) == 0x80200000


def test_vmcoreinfo_of_a_6_6_tells_where_its_vmalloc_is() -> None:
    """Up to 6.6 Sv39 has all from the fixmap on 8 GiB further up (its vm-layout.rst)."""
    note = """NUMBER(VA_BITS)=39
NUMBER(PAGE_OFFSET)=0xffffffd800000000
NUMBER(VMALLOC_START)=0xffffffc800000000
NUMBER(VMALLOC_END)=0xffffffd800000000
NUMBER(VMEMMAP_START)=0xffffffc700000000
NUMBER(VMEMMAP_END)=0xffffffc800000000
"""
    found = address_space("riscv64", with_vmcoreinfo(AddressSpaceFacts(), VmcoreInfo(note), "riscv64"))
    assert found is not None
    places = {area.name: area.start for area in found.areas}
    assert (places["fixmap"], places["PCI I/O"]) == (0xFFFFFFC6FEA00000, 0xFFFFFFC6FF000000)
    assert (places["vmemmap"], places["vmalloc"]) == (0xFFFFFFC700000000, 0xFFFFFFC800000000)


@pytest.mark.parametrize(("start", "vmemmap"), [(0, 1), (0xFFFFFFD600000000, 0xFFFFFFC500000000), (1 << 63, 0)])
def test_bounds_that_cannot_be_are_not_used(start: int, vmemmap: int) -> None:
    found = space(va_bits=39, vmalloc_start=start, vmemmap_start=vmemmap)
    assert [area.start for area in found.areas if area.name == "vmalloc"] == [0xFFFFFFC600000000]
