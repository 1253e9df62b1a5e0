"""The address space of a real arm64 kernel: its vmlinux, its types, and VMCOREINFO as it writes it.

Expected figures: arch/arm64/include/asm/memory.h, pgtable.h and fixmap.h of 6.12, with the configuration of this kernel
(CONFIG_ARM64_VA_BITS=52, 4 KiB pages); VMCOREINFO: arch/arm64/kernel/vmcore_info.c.
"""

from __future__ import annotations

from functools import cache

import drgn
import pytest

from kplug.frozen import replace
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import moved_by
from kplug.memory.kernel_note import with_vmcoreinfo
from kplug.memory.variables import static_facts
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.kernel.facts import fixed_addresses
from kplug.space.address_space import AddressSpace, address_space

pytestmark = pytest.mark.kernel

KASLR_OFFSET = 0x52B200000000
FIXADDR_TOP = (1 << 64) - (8 << 20)  # -UL(SZ_8M)


def types_of(vmlinux: str) -> drgn.Program:
    prog = drgn.Program()
    prog.extra_module("vmlinux", create=True).try_file(vmlinux, force=True)
    return prog


@cache
def space(va_bits: int) -> AddressSpace:
    """The map as a CPU with addresses of so many bits has it."""
    from vmimages import fetch

    vmlinux = str(fetch("arm64-6.12", quiet=True).vmlinux)
    image = open_vmlinux(vmlinux)
    vmemmap_end = (1 << 64) - (1 << 30)
    vmemmap = vmemmap_end - ((1 << 52) - (1 << 47)) // 4096 * 64
    vmalloc_end = (vmemmap if va_bits == 52 else vmemmap_end - (1 << 47) // 4096 * 64) - (8 << 20)
    lines = f"""PAGESIZE=4096
SIZE(page)=64
NUMBER(VA_BITS)=52
NUMBER(MODULES_VADDR)=0xffff800000000000
NUMBER(MODULES_END)=0xffff800080000000
NUMBER(VMALLOC_START)=0xffff800080000000
NUMBER(VMALLOC_END)={vmalloc_end:#x}
NUMBER(VMEMMAP_START)={vmemmap:#x}
NUMBER(VMEMMAP_END)={vmemmap_end:#x}
NUMBER(kimage_voffset)=0xffffd2b23fe00000
NUMBER(PHYS_OFFSET)=0x40000000
NUMBER(TCR_EL1_T1SZ)={64 - va_bits:#x}
NUMBER(KERNELPACMASK)=0x0
KERNELOFFSET={KASLR_OFFSET:x}
"""
    facts = static_facts(PlacedImage(image, moved_by(image.sections, KASLR_OFFSET, "test")))
    facts = with_vmcoreinfo(facts, VmcoreInfo(lines), "aarch64")
    prog = types_of(vmlinux)
    found = address_space("aarch64", replace(facts, fixed_addresses=tuple(fixed_addresses(prog))))
    assert found is not None
    return found


@pytest.mark.parametrize("va_bits", [48, 52])
def test_the_areas_and_nothing_refused(va_bits: int) -> None:
    areas = {area.name: (area.start, area.end) for area in space(va_bits).areas}
    assert space(va_bits).warnings == ()
    assert areas["user"] == (0, 1 << va_bits)
    assert areas["direct map"] == ((1 << 64) - (1 << va_bits), 0xFFFF800000000000)  # PAGE_OFFSET, PAGE_END
    assert areas["modules"] == (0xFFFF800000000000, 0xFFFF800080000000)
    assert areas["vmalloc"][0] == 0xFFFF800080000000
    assert areas["vmemmap"][1] == 0xFFFFFFFFC0000000
    assert areas["vmemmap"][0] == (0xFFFFC1FFC0000000 if va_bits == 52 else 0xFFFFFDFFC0000000)
    assert areas["PCI I/O"] == (0xFFFFFFFFC0800000, 0xFFFFFFFFC1800000)
    assert areas["fixmap"][1] == FIXADDR_TOP


def test_the_fixmap_by_slot() -> None:
    from vmimages import fetch

    prog = types_of(str(fetch("arm64-6.12", quiet=True).vmlinux))
    slots = dict(fixed_addresses(prog))
    fixmap = next(area for area in space(48).areas if area.name == "fixmap")
    assert fixmap.start == FIXADDR_TOP - 4096 * slots["__end_of_permanent_fixed_addresses"]
    for name in ("FIX_EARLYCON_MEM_BASE", "FIX_TEXT_POKE0", "FIX_FDT"):
        address = FIXADDR_TOP - 4096 * slots[name]  # __fix_to_virt()
        (slot,) = space(48).parts_at(address)
        assert (slot.start, slot.end, slot.details["slot"]) == (address, address + 4096, slots[name])
        assert slot.name.startswith(name)


def test_what_is_wider_than_48_bits_depends_on_the_cpu() -> None:
    assert space(48).area_at(0xFFF0000000000000).name == "non-canonical"
    assert space(52).area_at(0xFFF0000000000000).name == "direct map"
    assert "if" not in space(48).area_at(0xFFF0000000000000).details
