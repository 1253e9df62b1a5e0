"""Pages in parts of a split dump that are missing (kplug/runtime/tables/missing_parts.py).

Of a Program that somebody else opened: drgn's library calls all pages excluded that are not in its file.
"""

from __future__ import annotations

import pytest

pytest.importorskip("drgn")

import drgn
from support.fake_kernel import FakeKernel
from support.fake_machines import MACHINES, PAGE, Machine

from kplug.errors import ExpressionError, TargetError
from kplug.memory.reading import FaultError, MissingPartError
from kplug.runtime.kernel.kernel import MISSING_PART
from kplug.runtime.kernel.values import address_of
from kplug.runtime.tables.translation import page_tables

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
EXCLUDED = "could not read memory from kdump: Excluded page: 0x1"


def made(machine: Machine, *, missing: bool = True) -> tuple[FakeKernel, int]:
    """A kernel, and a page of its direct map that the file does not contain."""
    fake = FakeKernel(machine)
    place = fake.take(PAGE)
    fake.lose(place, PAGE, EXCLUDED)
    if missing:
        fake.missing.append(range(fake.physical(place), fake.physical(place) + PAGE))
    return fake, place


@each_machine
def test_a_page_of_the_direct_map_and_its_frame(machine: Machine) -> None:
    fake, place = made(machine)
    for read, address in ((fake.kernel.read, place + 8), (fake.kernel.read_physical, fake.physical(place) + 8)):
        with pytest.raises(MissingPartError, match=f"^{MISSING_PART}: {address:#x}$"):
            read(address, 8)


@each_machine
def test_objects_of_drgn(machine: Machine) -> None:
    fake, place = made(machine)
    word = drgn.Object(fake.prog, "unsigned long", address=place)
    with pytest.raises(TargetError, match=f"^the word: {MISSING_PART}: {place:#x}$"), fake.kernel.reading("the word"):
        word.value_()
    with pytest.raises(ExpressionError, match=f"^a word: {MISSING_PART}: {place:#x}$"):
        address_of(word, "a word", fake.kernel)


@each_machine
def test_a_page_that_was_excluded(machine: Machine) -> None:
    fake, place = made(machine, missing=False)
    fake.missing.append(range(0x1000, 0x2000))
    with pytest.raises(FaultError, match="excluded when it was written, or no memory") as caught:
        fake.kernel.read(place, 8)
    assert not isinstance(caught.value, MissingPartError)


@each_machine
def test_the_variables_that_tell_of_the_mappings(machine: Machine) -> None:
    """They may be what is missing: none of them is asked where they are."""
    fake, _ = made(machine)
    place = fake.image_physical
    fake.lose(machine.direct_map + place - machine.ram, 0xB000, EXCLUDED)  # up to the page tables
    fake.missing.append(range(place, place + 0xB000))
    with pytest.raises(MissingPartError):
        fake.kernel.read(fake.system_state, 4)
    assert page_tables(fake.kernel).paging is not None


@each_machine
def test_a_page_whose_table_is_missing(machine: Machine) -> None:
    fake = FakeKernel(machine)
    page = fake.take(PAGE)
    first = fake.take(PAGE) + PAGE
    fake.map(machine.vmalloc, fake.physical(page))
    fake.lose(page, PAGE, EXCLUDED)
    fake.lose(first, PAGE, EXCLUDED)
    fake.missing.append(range(fake.physical(first), fake.physical(first) + PAGE))
    with pytest.raises(MissingPartError, match=f"{machine.vmalloc:#x}$"):
        fake.kernel.read(machine.vmalloc, 8)
