"""The map of ppc64: arch/powerpc/include/asm/book3s/64/{radix,hash-4k,hash-64k}.h and task_size_64.h of 6.12."""

from __future__ import annotations

import pytest

from kplug.memory.kernel_note import with_vmcoreinfo
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.space.address_space import TOP, AddressSpace, AddressSpaceFacts, address_space

RADIX = (
    (0xC000000000000000, 0xC007FFFFFFFFFFFF, "direct map"),
    (0xC008000000000000, 0xC009FFFFFFFFFFFF, "vmalloc"),
    (0xC00A000000000000, 0xC00BFFFFFFFFFFFF, "ioremap"),
    (0xC00C000000000000, 0xC00DFFFFFFFFFFFF, "vmemmap"),
)
HASH_4K = (
    (0xC000000000000000, 0xC0003CFFFFFFFFFF, "direct map"),
    (0xC0003D0000000000, 0xC0003DFFFFFFFFFF, "vmalloc"),
    (0xC0003E0000000000, 0xC0003EFFFFFFFFFF, "ioremap"),
    (0xC0003F0000000000, 0xC0003FFFFFFFFFFF, "vmemmap"),
)


def space(**facts: object) -> AddressSpace:
    found = address_space("ppc64", AddressSpaceFacts(is_server=True, **facts))  # type: ignore[arg-type]
    assert found is not None
    return found


def kernels(found: AddressSpace) -> list[tuple[int, int, str]]:
    return [(a.start, a.end - 1, a.name) for a in found.areas if a.start >= 0xC000000000000000 and not a.hole]


def test_radix_and_hash() -> None:
    for page_size in (4096, 65536):
        found = space(radix=True, vmalloc_start=0xC008000000000000, page_size=page_size)
        assert (found.description, *kernels(found)) == ("ppc64, radix MMU", *RADIX)
    found = space(radix=False, vmalloc_start=0xC008000000000000, page_size=65536)
    assert (found.description, *kernels(found)) == ("ppc64, hashed MMU", *RADIX)
    found = space(vmalloc_start=0xC0003D0000000000, page_size=4096)
    assert (found.description, *kernels(found)) == ("ppc64, hashed MMU", *HASH_4K)


def test_what_pages_of_4_kib_tell_of_the_mmu() -> None:
    assert space(vmalloc_start=0xC008000000000000, page_size=4096).description == "ppc64, radix MMU"
    assert space(vmalloc_start=0xC008000000000000).description == "ppc64, MMU not known"


def test_the_vmlinux_alone_says_what_a_hashed_mmu_would_change() -> None:
    found = space()
    assert found.description == "ppc64, MMU not known"
    for start, end, name in HASH_4K[1:]:
        (part,) = found.parts_at(start)
        assert (part.start, part.end - 1) == (start, end)
        assert part.name == f"{name} (if the MMU is a hashed one and pages are of 4 KiB)"
    assert kernels(found) == list(RADIX)


def test_programs_end_earlier_with_pages_of_4_kib() -> None:
    assert space(page_size=4096).area_at(1 << 46).hole
    assert space(page_size=65536).area_at((1 << 52) - 1).name == "user"
    assert (
        space(page_size=65536).area_at(1 << 52).name == space(page_size=4096).area_at(1 << 52).name == "non-canonical"
    )


def test_kasans_shadow_follows_vmemmap() -> None:
    assert space(kasan_shadow=True).area_at(0xC00E000000000000).name == "KASAN shadow"


def test_a_start_of_vmalloc_that_no_layout_has() -> None:
    found = space(vmalloc_start=0xD000000000000000)
    assert found.warnings == ("__vmalloc_start is 0xd000000000000000, where no known layout has it: it is not used",)
    assert found.area_at(0xC008000000000000).name == "kernel (layout not known)"
    assert found.areas[-1].end == TOP


# What a 6.12 under QEMU noted of itself.
NOTE = """PAGESIZE=4096
SYMBOL(vmemmap)=c00c000000000000
NUMBER(RADIX_MMU)={radix}
NUMBER(VMALLOC_START)={vmalloc:#x}
"""


@pytest.mark.parametrize(("radix", "vmalloc"), [(1, 0xC008000000000000), (0, 0xC0003D0000000000)])
def test_vmcoreinfo_tells_the_mmu_and_vmalloc(radix: int, vmalloc: int) -> None:
    facts = with_vmcoreinfo(
        AddressSpaceFacts(is_server=True), VmcoreInfo(NOTE.format(radix=radix, vmalloc=vmalloc)), "ppc64"
    )
    found = address_space("ppc64", facts)
    assert found is not None
    assert found.description == ("ppc64, radix MMU" if radix else "ppc64, hashed MMU")
    assert found.area_at(vmalloc).name == "vmalloc"
