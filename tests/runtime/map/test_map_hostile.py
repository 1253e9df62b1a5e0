"""The address space where memory or VMCOREINFO says what cannot be so: it covers every address once, and says what was
not believed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support import patched
from support.open_dumps import kernel_in, open_dump

from kplug import model
from kplug.memory.kernel_note import with_vmcoreinfo
from kplug.memory.variables import memory_facts
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.kernel.facts import facts_of, space_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.session import kernel_of, session_of
from kplug.space.address_space import AddressSpace, AddressSpaceFacts, address_space

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


@pytest.fixture
def kernel(dumps_612: DumpSet) -> Kernel:
    return kernel_in(dumps_612)


def overwrite(kernel: Kernel, variable: str, value: int) -> None:
    address = kernel.symbol(variable)
    assert address is not None
    patched.patch(kernel, address, struct.pack("<Q", value))


def whole_space(kernel: Kernel) -> AddressSpace:
    space = space_of(kernel)
    assert space is not None
    assert space.areas[0].start == 0
    assert space.areas[-1].end == 1 << 64
    assert all(low.end == high.start for low, high in zip(space.areas, space.areas[1:]))
    return space


GARBAGE = (
    0x4141414141414141,
    0xFFFFFFFFFFFFFFFF,
    0xFFFF888000000001,  # in no whole GiB
    0xFFFFFDFFC0000000,  # no room for what follows
    0xFFFF800000000000,  # the guard hole
    0x00007FFFFFFFF000,
)


@pytest.mark.parametrize("variable", ["page_offset_base", "vmalloc_base", "vmemmap_base"])
def test_a_base_that_cannot_be_is_refused_by_name_and_the_others_stand(kernel: Kernel, variable: str) -> None:
    good = {area.name: area for area in whole_space(kernel).areas}
    for value in GARBAGE:
        overwrite(kernel, variable, value)
        space = whole_space(kernel)
        assert any(variable in warning for warning in space.warnings), hex(value)
        found = {area.name: area for area in space.areas}
        bases = (("page_offset_base", "direct map"), ("vmalloc_base", "vmalloc"), ("vmemmap_base", "vmemmap"))
        assert all(found[name].start == good[name].start for other, name in bases if other != variable), hex(value)


def test_bases_in_the_wrong_order_are_refused_where_nothing_tells_which_is_wrong(dumps_61: DumpSet) -> None:
    kernel = kernel_in(dumps_61)  # whose VMCOREINFO has no VMALLOC_START
    good = {area.name: area.start for area in whole_space(kernel).areas}
    overwrite(kernel, "page_offset_base", good["vmalloc"])
    overwrite(kernel, "vmalloc_base", good["direct map"])
    space = whole_space(kernel)
    assert any("page_offset_base" in warning for warning in space.warnings)
    assert any("vmalloc_base" in warning for warning in space.warnings)
    assert not {"direct map", "vmalloc"} & {area.name for area in space.areas}


def test_a_base_that_vmcoreinfo_tells_otherwise_is_not_believed(kernel: Kernel) -> None:
    good = next(area.start for area in whole_space(kernel).areas if area.name == "vmalloc")
    overwrite(kernel, "vmalloc_base", good + (1 << 30))
    space = whole_space(kernel)
    assert any("vmalloc_base" in warning and "VMCOREINFO" in warning for warning in space.warnings)
    assert "vmalloc" not in [area.name for area in space.areas]


@pytest.mark.parametrize(("variable", "value"), [("max_pfn", 1 << 60), ("physmem_end", 0x1234)])
def test_the_end_of_ram_and_of_the_direct_map(kernel: Kernel, variable: str, value: int) -> None:
    overwrite(kernel, variable, value)
    space = whole_space(kernel)
    named = {"physmem_end": "direct_map_physmem_end"}.get(variable, variable)
    assert any(named in warning for warning in space.warnings)
    area = next(area for area in space.areas if area.name == "direct map")
    if variable == "max_pfn":
        assert "ram_end" not in area.details


def test_an_entry_area_outside_its_area_is_refused(kernel: Kernel) -> None:
    base = kernel.symbol("__per_cpu_offset")
    offset = kernel.image.image.symbols.exact("_cea_offset")[0].address if kernel.image else 0
    assert base is not None
    percpu = int.from_bytes(kernel.read(base + 8, 8), "little")
    patched.patch(kernel, percpu + offset, struct.pack("<Q", 1 << 40))
    space = whole_space(kernel)
    assert any("CPU 1" in warning for warning in space.warnings)
    area = next(area for area in space.areas if area.name == "cpu_entry_area")
    assert [part.name for part in area.parts] == ["IDT", "CPU 0"]


def test_what_was_not_believed_is_told_with_the_answers_that_need_it(dumps_612: DumpSet) -> None:
    opened = open_dump(dumps_612)
    overwrite(kernel_of(opened), "page_offset_base", 0x4141414141414141)
    session = session_of(opened)
    assert session.space is not None
    (answer,) = session.where("0xffff888000001000")
    assert any("page_offset_base is 0x4141414141414141" in warning for warning in answer.warnings)
    area = answer.first(model.AREA)
    assert area is not None
    assert area.name.startswith("direct map (randomised")


def test_pages_that_are_not_in_the_dump_leave_facts_unknown(kernel: Kernel) -> None:
    address = kernel.symbol("page_offset_base")
    assert address is not None
    patched.unmap(kernel, address - address % 4096, 4096)
    facts = facts_of(kernel)
    assert facts.pgtable_l5_enabled is False  # from VMCOREINFO
    assert facts.vmalloc_base is not None  # likewise
    assert facts.page_offset_base is not None
    assert facts.page_offset_base % (1 << 30) == 0
    assert kernel.image is not None
    assert memory_facts(kernel.image, kernel.read).page_offset_base is None
    whole_space(kernel)


# VMCOREINFO alone, of either architecture.


def vmcoreinfo_lines(**numbers: Any) -> Iterator[str]:
    for name, value in numbers.items():
        yield f"NUMBER({name})={value}"


@pytest.mark.parametrize(
    "numbers",
    [
        {"VA_BITS": 4, "TCR_EL1_T1SZ": "0x10"},
        {"VA_BITS": 52, "TCR_EL1_T1SZ": "0xffff"},
        {"VA_BITS": 48, "VMALLOC_START": "0x10", "VMALLOC_END": "0x20"},
        {"VA_BITS": 48, "MODULES_VADDR": "0xffff800080000000", "MODULES_END": "0xffff800000000000"},
        {"VA_BITS": -48, "KERNELPACMASK": -1},
    ],
)
def test_numbers_that_no_arm64_kernel_has(numbers: dict[str, object]) -> None:
    info = VmcoreInfo("\n".join(vmcoreinfo_lines(**numbers)))
    known = AddressSpaceFacts(image_start=0xFFFF800080000000, has_early_init_stack=True)
    space = address_space("aarch64", with_vmcoreinfo(known, info, "aarch64"))
    assert space is not None
    assert all(low.end == high.start for low, high in zip(space.areas, space.areas[1:]))
    assert space.areas[0].start == 0
    assert space.areas[-1].end == 1 << 64
    assert space.warnings
