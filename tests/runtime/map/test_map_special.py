"""Special values on real kernels, with the address space that their memory tells.

Expected figures: include/linux/poison.h and include/uapi/asm-generic/errno-base.h; which values are canonical: 4 and 5
levels of page tables in Documentation/arch/x86/x86_64/mm.rst.
"""

from __future__ import annotations

import errno
from functools import cache
from typing import TYPE_CHECKING

import pytest
from support.open_dumps import session_in

from kplug import model
from kplug.summary import summarize

if TYPE_CHECKING:
    from kplug.session import Session

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

LEVEL_5 = ("amd64-6.12", True)
KERNELS = [("amd64-6.1", False), ("amd64-6.12", False), ("amd64-6.1", True), LEVEL_5]


@cache
def session_of_dump(name: str, la57: bool) -> Session:
    from vmimages import dumps

    return session_in(dumps(name, ("elf",), quiet=True, la57=la57))


@pytest.fixture(params=KERNELS, ids=lambda kernel: f"{kernel[0]}, {5 if kernel[1] else 4} levels")
def session(request: pytest.FixtureRequest) -> Session:
    return session_of_dump(*request.param)


def readings(session: Session, address: int) -> list[tuple[str, str]]:
    """(what, name) of each reading of a value, the most telling first."""
    annotation = session.resolver.where(address)
    layers = [layer for layer in annotation.layers if layer.kind == model.SPECIAL]
    assert not annotation.warnings
    return [(layer.details["what"], layer.name) for layer in layers]


def area(session: Session, address: int) -> str:
    layer = session.resolver.where(address).first(model.AREA)
    assert layer is not None
    return layer.name


def test_null_and_small_offsets_are_per_cpu_offsets_as_well(session: Session) -> None:
    assert readings(session, 0) == [("null", "NULL"), ("percpu-offset", "per-CPU offset")]
    assert readings(session, 0x18) == [("null", "NULL+0x18"), ("percpu-offset", "per-CPU offset")]
    (annotation,) = session.where("0x18")
    assert str(summarize(annotation)).startswith("NULL+0x18, or per-CPU offset of fixed_percpu_data+0x18")
    assert annotation.region_class == "percpu"


def test_an_offset_of_a_variable_has_that_reading_alone(session: Session) -> None:
    (annotation,) = session.where("runqueues")
    assert readings(session, annotation.address) == [("percpu-offset", "per-CPU offset")]
    symbol = annotation.last(model.SYMBOL)
    assert symbol is not None
    assert symbol.name == "runqueues"


def test_every_error_pointer_by_name(session: Session) -> None:
    for number, name in errno.errorcode.items():
        if name in ("EWOULDBLOCK", "EDEADLOCK", "ENOTSUP"):
            continue
        first = readings(session, (1 << 64) - number)[0]
        assert first == ("errptr", f"ERR_PTR(-{name})")
        assert area(session, (1 << 64) - number) == "last 2 MiB"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0xDEAD000000000100, "LIST_POISON1"),
        (0xDEAD000000000108, "LIST_POISON1+0x8"),
        (0xDEAD000000000122, "LIST_POISON2"),
        (0xDEAD000000000300, "TIMER_ENTRY_STATIC"),
        (0xDEAD000000000400, "TAIL_MAPPING"),
        (0x6B6B6B6B6B6B6B6B, "POISON_FREE"),
        (0x6B6B6B6B6B6B6B7B, "POISON_FREE+0x10"),
        (0x5A5A5A5A5A5A5A5A, "POISON_INUSE"),
        (0xAAAAAAAAAAAAAAAA, "PAGE_POISON"),
        (0xCCCCCCCCCCCCCCCC, "POISON_FREE_INITMEM"),
        (0xBBBBBBBBBBBBBBBB, "SLUB_RED_INACTIVE"),
    ],
)
def test_poison_has_its_name_and_what_it_means(session: Session, value: int, name: str) -> None:
    found = readings(session, value)
    assert found[0] == ("poison", name)
    assert found[-1] == ("non-canonical", "non-canonical")
    layer = session.resolver.where(value).first(model.SPECIAL)
    assert layer is not None
    assert len(layer.details["meaning"]) > 20
    assert area(session, value) == "non-canonical"


def test_values_with_a_bad_upper_part_are_not_canonical_and_no_guess_is_a_fact(session: Session) -> None:
    for value in (0x8000000000000000, 0x0123456789ABCDEF, 0xFE00000000001000):
        layers = [layer for layer in session.resolver.where(value).layers if layer.kind == model.SPECIAL]
        bare, *guesses = layers
        assert bare.name == "non-canonical"
        assert not bare.details.get("guess")
        assert all(layer.details.get("guess") for layer in guesses)


def test_a_flipped_bit_is_told_of_a_real_address(session: Session) -> None:
    (annotation,) = session.where("schedule")
    layers = [layer for layer in session.resolver.where(annotation.address ^ 1 << 60).layers if layer.kind == "special"]
    assert annotation.address in [int(layer.details["meant"], 16) for layer in layers if "meant" in layer.details]


def test_user_addresses(session: Session) -> None:
    for value in (0x400000, 0x7FFDE0001234):
        assert readings(session, value) == [("user", "user address")]
        assert area(session, value) == "user"


@pytest.mark.parametrize(
    ("value", "four_levels", "five_levels"),
    [
        (0x0000_8000_0000_0000, "non-canonical", "user"),
        (0x00FF_0000_0000_0000, "non-canonical", "user"),
        (0xFF00_0000_0000_0000, "non-canonical", "guard hole"),
        (0xFF10_0000_0000_0000, "non-canonical", "LDT remap"),
        (0x0100_0000_0000_0000, "non-canonical", "non-canonical"),
        (0xFFFF_8000_0000_0000, "guard hole", None),  # with 5 levels, randomisation decides
    ],
)
def test_what_is_canonical_depends_on_the_level_that_memory_tells(
    session: Session, value: int, four_levels: str, five_levels: str | None
) -> None:
    assert session.space is not None
    if "5-level" in session.space.description:
        assert five_levels is None or area(session, value) == five_levels
    else:
        assert area(session, value) == four_levels
        layer = session.resolver.where(value).first(model.AREA)
        assert layer is not None
        assert "if" not in layer.details


def test_an_ordinary_address_says_nothing_special(session: Session) -> None:
    assert session.space is not None
    named = {each.name: each for each in session.space.areas}
    (schedule,) = session.where("schedule")
    for address in (schedule.address, named["direct map"].start + 0x1000, named["vmalloc"].start + 0x123):
        assert readings(session, address) == []
