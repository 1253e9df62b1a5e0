"""Link and runtime addresses. Rules: the head of kplug/image/placement.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kplug.image.elf.sections import Section
from kplug.image.placement import as_linked, moved_by, zero_based_percpu

SHF_WRITE_ALLOC = 3
addresses = st.integers(0, (1 << 64) - 1)
kaslr_offsets = st.integers(-(1 << 63), (1 << 63) - 1)


def section(name: str, address: int, size: int, flags: int = SHF_WRITE_ALLOC) -> Section:
    return Section(1, name, "PROGBITS", address, 0, size, 0, flags, "", 0, 0, 1)


# x86_64 up to 6.14: per-CPU variables are linked as offsets from 0. From 6.15: at ordinary addresses.
OLD_X86 = (section(".text", 0xFFFFFFFF81000000, 0x1000000), section(".data..percpu", 0, 0x34000))
NEW_X86 = (section(".text", 0xFFFFFFFF81000000, 0x1000000), section(".data..percpu", 0xFFFFFFFF83000000, 0x34000))


@given(address=addresses, kaslr_offset=kaslr_offsets)
def test_a_runtime_address_of_a_link_address_leads_back(address: int, kaslr_offset: int) -> None:
    placement = moved_by(NEW_X86, kaslr_offset, "")
    assert placement.link(placement.runtime(address)) == address
    assert placement.runtime(placement.link(address)) == address


@given(address=addresses, kaslr_offset=kaslr_offsets)
def test_so_it_does_beside_an_unmoved_percpu_section(address: int, kaslr_offset: int) -> None:
    placement = moved_by(OLD_X86, kaslr_offset, "")
    runtime = placement.runtime(address)
    # The image cannot be moved onto the offsets: there, a runtime address has two readings.
    assume(address < 0x34000 or runtime >= 0x34000)
    assert placement.link(runtime) == address


@given(address=st.integers(0, 0x33FFF), kaslr_offset=kaslr_offsets)
def test_percpu_offsets_do_not_move(address: int, kaslr_offset: int) -> None:
    placement = moved_by(OLD_X86, kaslr_offset, "")
    assert placement.runtime(address) == address
    assert placement.link(address) == address


def test_percpu_variables_at_ordinary_addresses_move_like_all_others() -> None:
    assert moved_by(NEW_X86, 0x8A00000, "").runtime(0xFFFFFFFF83000010) == 0xFFFFFFFF8BA00010


@pytest.mark.parametrize(
    ("kaslr_offset", "link", "runtime"),
    [
        (0x8A00000, 0xFFFFFFFF81A114F4, 0xFFFFFFFF8A4114F4),  # the example of design.md
        (-0x200000, 0xFFFFFFFF81200000, 0xFFFFFFFF81000000),
        (0x20_0000_0000, 0xFFFF800080000000, 0xFFFF802080000000),
        (0, 0xC1000000, 0xC1000000),
    ],
)
def test_an_image_moves_as_a_whole(kaslr_offset: int, link: int, runtime: int) -> None:
    assert moved_by(NEW_X86, kaslr_offset, "").runtime(link) == runtime


@pytest.mark.parametrize(
    ("kaslr_offset", "text"), [(0, "0x0"), (0x8A00000, "0x8a00000"), (-0x200000, "-0x200000"), (1 << 64, "0x0")]
)
def test_a_kaslr_offset_is_written_with_its_sign(kaslr_offset: int, text: str) -> None:
    assert moved_by((), kaslr_offset, "").kaslr_offset_text == text


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (OLD_X86, range(0x34000)),
        (NEW_X86, None),
        ((section(".data..percpu", 0, 0),), None),
        ((section(".data..percpu", 0, 16, flags=1),), None),  # not in memory
        ((section(".debug_info", 0, 16, flags=0),), None),
        ((), None),
    ],
)
def test_only_a_percpu_section_at_zero_stays(sections: Sequence[Section], expected: range | None) -> None:
    assert zero_based_percpu(sections) == expected


def test_as_linked_moves_nothing() -> None:
    placement = as_linked(NEW_X86)
    assert (placement.kaslr_offset, placement.runtime(0xFFFFFFFF81000000)) == (0, 0xFFFFFFFF81000000)
