"""Special values on machines of other widths and byte orders. Expected figures as in test_space_special."""

from __future__ import annotations

import pytest

from kplug.arch.registry import named
from kplug.space.special import specials


@pytest.mark.parametrize("machine", ["i386", "arm"])
@pytest.mark.parametrize(
    ("value", "names"),
    [
        (0xFFFFFFF4, ["ERR_PTR(-ENOMEM)"]),
        (0x6B6B6B73, ["POISON_FREE+0x8"]),
        (0x5A5A5A5A, ["POISON_INUSE"]),
        (0xA56B6B6B, ["POISON_FREE ... POISON_END"]),
        (0xFFFF4111, ["STACKLEAK_POISON"]),
        (0x100, ["NULL+0x100", "LIST_POISON1"]),
        (0x122, ["NULL+0x122", "LIST_POISON2"]),
        (0x104, ["NULL+0x104"]),
        (0xC0000000, []),  # PAGE_OFFSET, not REFCOUNT_SATURATED
        (0x100000000, []),  # no address of theirs, and not one after PAGE_POISON_PATTERN
    ],
)
def test_the_values_of_32_bit_kernels(machine: str, value: int, names: list[str]) -> None:
    assert [special.name for special in specials(value, machine, None)] == names


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (0xDEAD000000000100, ["LIST_POISON1"]),
        (0x100, ["NULL+0x100", "LIST_POISON1"]),  # up to 6.18
        (0x122, ["NULL+0x122", "LIST_POISON2"]),
        (0x108, ["NULL+0x108"]),
    ],
)
def test_poisoned_pointers_of_a_machine_whose_releases_differ(value: int, names: list[str]) -> None:
    found = specials(value, "s390x", None)
    assert [special.name for special in found] == names
    assert [special.guess for special in found] == [False, True][: len(found)]


def test_what_may_be_an_address_of_a_32_bit_kernel_is_a_guess() -> None:
    assert all(special.guess for special in specials(0xCCCCCCCC, "i386", None))
    assert not specials(0x6B6B6B6B, "i386", None)[0].guess
    assert not specials(0xBDBDBDBDBDBDBDBD, "ppc64", None)[0].guess
    assert not specials(0xCCCCCCCCCCCCCCCC, "ppc64", None)[0].guess


@pytest.mark.parametrize(("value", "found"), [(0xC000000000900000, False), (0xC0000000, True)])
def test_the_linear_map_of_ppc64_is_no_reference_count(value: int, found: bool) -> None:
    names = [special.name for special in specials(value, "ppc64", None)]
    assert any(name.startswith("REFCOUNT_SATURATED") for name in names) == found


@pytest.mark.parametrize(
    ("machine", "little", "plain", "as_dumped"),
    [
        ("s390x", False, 0x6B6B6B6B6B6B6BA5, None),
        ("ppc64", False, 0x6B6B6B6B6B6B6BA5, None),
        ("ppc64", True, 0xA56B6B6B6B6B6B6B, 0x6B6B6B6B6B6B6BA5),
        ("arm", False, 0x6B6B6BA5, None),
    ],
)
def test_the_end_of_a_freed_object_by_byte_order(machine: str, little: bool, plain: int, as_dumped: int | None) -> None:
    word = named(machine).word(little_endian=little)
    name = "POISON_FREE ... POISON_END"
    for value, guess in ((plain, False), (as_dumped, True)):
        if value is not None:
            found = [special for special in specials(value, machine, None, word) if special.name == name]
            assert [special.guess for special in found] == [guess]
    swapped = word.swapped(plain)
    assert as_dumped == swapped or not any(s.name == name for s in specials(swapped, machine, None, word))
