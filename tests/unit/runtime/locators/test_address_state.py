"""Page tables (kplug/runtime/tables/translation.py) and what they say of an address (locators/address_state.py), and
whether the kernel freed memory of its image (locators/freed.py).

The fake kernel's page tables, and the PG_reserved of its struct pages, are what is expected.
"""

from __future__ import annotations

from typing import cast

import pytest

pytest.importorskip("drgn")

from support.fake_kernel import DATA, IMAGE, IMAGE_SIZE, INIT_END, INIT_TEXT, RAM, RODATA, TOP_TABLE, FakeKernel
from support.fake_machines import (
    AARCH64,
    LARGE,
    MACHINES,
    NO_EXECUTE,
    PAGE,
    PRESENT,
    READ_ONLY,
    VALID,
    WRITE,
    X86_64,
    Machine,
)

from kplug.arch.types.page_tables import Translation
from kplug.errors import TargetError
from kplug.model import UNKNOWN_STATE, State
from kplug.resolver import StateError
from kplug.runtime.locators.address_state import MemoryState
from kplug.runtime.locators.freed import is_freed, owned_address
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.threads.user_space import UserSpace

each_machine = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)


def free(fake: FakeKernel, start: int, end: int) -> None:
    """free_reserved_area() of a part of the image."""
    for place in range(start, end, PAGE):
        fake.page((fake.image_physical + place) // PAGE)


# -- page tables -------------------------------------------------------------------------------------------------------


@each_machine
def test_the_direct_map_is_found_by_its_page_tables(machine: Machine) -> None:
    tables = page_tables(FakeKernel(machine).kernel)
    assert tables.paging is not None
    root = machine.ram + IMAGE + TOP_TABLE
    assert (tables.paging.direct_offset, tables.paging.root) == (machine.direct_map - machine.ram, root)
    start = machine.direct_map
    assert tables.linear_physical(start + 0x1234) == machine.ram + 0x1234
    found = tables.translate(start + 0x1234)
    assert found == Translation(machine.ram + 0x1234, (1 << 30) - 0x1234, "rw-", 1 << 30, 2)
    assert tables.translate(start + (1 << 30)) is None


@each_machine
def test_the_bounds_of_the_direct_map_and_of_the_image(machine: Machine) -> None:
    tables = page_tables(FakeKernel(machine).kernel)
    start = machine.direct_map
    assert [tables.in_direct_map(place) for place in (start - 1, start, start + RAM - 1, start + RAM)] == [
        False, True, True, False,
    ]  # fmt: skip
    start, end = machine.image, machine.image + IMAGE_SIZE
    assert [tables.in_image(place) for place in (start - 1, start, end - 1, end)] == [False, True, True, False]
    last = machine.ram + RAM - 1
    assert tables.direct_address(last) == machine.direct_map + RAM - 1
    assert tables.direct_address(last + 1) is None
    assert tables.image_address(machine.ram + IMAGE) == machine.image
    assert tables.image_address(machine.ram + IMAGE - 1) is None
    assert tables.image_address(machine.ram + IMAGE + IMAGE_SIZE) is None


@each_machine
def test_page_tables_that_cannot_be_read(machine: Machine) -> None:
    fake = FakeKernel(machine)
    tables = page_tables(fake.kernel)
    assert tables.paging is not None
    fake.lose(fake.direct_table, PAGE)
    physical = fake.physical(fake.direct_table)
    with pytest.raises(TargetError, match=f"the page table entry at physical {physical:#x} cannot be read"):
        tables.translate(machine.direct_map)


def test_entries_of_the_direct_map_follow_the_page_table() -> None:
    fake = FakeKernel()
    fake.words(fake.direct_table + 8, 0x40000000 | PRESENT | LARGE | NO_EXECUTE)
    found = page_tables(fake.kernel).translate(X86_64.direct_map + (1 << 30))
    assert found is not None
    assert (found.physical, found.permissions) == (0x40000000, "r--")
    top = X86_64.direct_map + IMAGE + TOP_TABLE + 273 * 8
    fake.words(top, fake.physical(fake.direct_table) | WRITE)
    assert page_tables(fake.kernel).translate(X86_64.direct_map) is None


def test_entries_of_arm64_follow_the_page_table() -> None:
    fake = FakeKernel(AARCH64)
    fake.words(fake.direct_table + 8, 0x80000000 | VALID | READ_ONLY)
    found = page_tables(fake.kernel).translate(AARCH64.direct_map + (1 << 30))
    assert found is not None
    assert (found.physical, found.permissions) == (0x80000000, "r-x")
    fake.words(AARCH64.direct_map + IMAGE + TOP_TABLE, fake.physical(fake.direct_table) | 2)
    assert page_tables(fake.kernel).translate(AARCH64.direct_map) is None


# -- the state of an address -------------------------------------------------------------------------------------------


@each_machine
@pytest.mark.parametrize(
    ("place", "permissions", "freed"),
    [
        (0, "r-x", False),
        (RODATA - 1, "r-x", False),
        (RODATA, "r--", False),
        (DATA, "rw-", False),
        (INIT_TEXT, "r-x", False),
        (IMAGE_SIZE - 1, "rw-", False),
    ],
)
def test_the_rights_of_the_images_pages(machine: Machine, place: int, permissions: str, freed: bool | None) -> None:
    state = MemoryState(FakeKernel(machine).kernel).state(machine.image + place)
    assert state == State(True, permissions, freed, PAGE)


@each_machine
def test_what_is_not_mapped(machine: Machine) -> None:
    states = MemoryState(FakeKernel(machine).kernel)
    assert states.state(machine.vmalloc) == State(False, None, None, None)
    assert states.state(machine.image + IMAGE_SIZE).mapped is False
    assert states.state(1 << 62) == State(False, None, None, None)  # no canonical address


@each_machine
def test_user_addresses_are_known_with_a_program_only(machine: Machine) -> None:
    fake = FakeKernel(machine)
    root = fake.take(PAGE)
    fake.map(0x400000, machine.ram, "rw-", root=root)

    class Program:
        def root(self, address: int) -> int:
            return fake.physical(root)

    assert MemoryState(fake.kernel).state(0x400000) == UNKNOWN_STATE
    states = MemoryState(fake.kernel, cast(UserSpace, Program()))
    assert states.state(0x400FFF) == State(True, "rw-", None, PAGE)
    assert [states.state(place).mapped for place in (0x3FFFFF, 0x401000)] == [False, False]


@each_machine
def test_a_state_of_which_a_part_cannot_be_read(machine: Machine) -> None:
    fake = FakeKernel(machine)
    fake.map(machine.vmalloc, machine.ram)
    fake.lose(machine.direct_map + IMAGE + TOP_TABLE, PAGE)
    with pytest.raises(StateError, match="page table entry") as caught:
        MemoryState(fake.kernel).state(machine.image + INIT_TEXT)
    assert caught.value.state == State(None, None, False, None)


# -- freed memory of the image -----------------------------------------------------------------------------------------


@each_machine
def test_what_the_kernel_freed_of_its_image(machine: Machine) -> None:
    fake = FakeKernel(machine)
    free(fake, INIT_TEXT, INIT_END)
    places = (INIT_TEXT - 1, INIT_TEXT, INIT_END - 1, INIT_END)
    assert [is_freed(fake.kernel, machine.image + place) for place in places] == [False, True, True, False]
    direct = machine.direct_map + IMAGE
    owned = [owned_address(fake.kernel, machine.image + place) for place in places]
    assert owned == [None, direct + INIT_TEXT, direct + INIT_END - 1, None]
    assert owned_address(fake.kernel, direct + 5) == direct + 5
    assert owned_address(fake.kernel, machine.direct_map + RAM) is None


def test_a_page_at_a_time_may_be_freed() -> None:
    fake = FakeKernel()
    free(fake, INIT_TEXT, INIT_TEXT + PAGE)
    places = (INIT_TEXT, INIT_TEXT + PAGE - 1, INIT_TEXT + PAGE)
    assert [is_freed(fake.kernel, X86_64.image + place) for place in places] == [True, True, False]


def test_what_is_no_part_of_the_image_is_not_freed() -> None:
    fake = FakeKernel()
    places = (X86_64.direct_map, X86_64.vmalloc, X86_64.image - 1, X86_64.image + IMAGE_SIZE)
    assert [is_freed(fake.kernel, place) for place in places] == [None] * 4


def test_memory_that_is_freed_after_boot_only_is_not_known_to_be_before() -> None:
    fake = FakeKernel()
    free(fake, INIT_TEXT, INIT_END)
    fake.poke(fake.system_state, bytes(4))  # SYSTEM_BOOTING
    assert is_freed(fake.kernel, X86_64.image + INIT_TEXT) is None
    fake.poke(fake.system_state, b"\x01\0\0\0")  # SYSTEM_SCHEDULING
    fake.kernel.resumed()
    assert is_freed(fake.kernel, X86_64.image + INIT_TEXT) is True


def test_data_and_text_are_never_freed_whatever_their_struct_pages_say() -> None:
    fake = FakeKernel()
    free(fake, 0, IMAGE_SIZE)
    assert is_freed(fake.kernel, X86_64.image) is False
    assert is_freed(fake.kernel, X86_64.image + DATA) is False


def test_a_struct_page_that_cannot_be_read_leaves_the_question_open() -> None:
    fake = FakeKernel()
    fake.lose_pages((fake.image_physical + INIT_TEXT) // PAGE)
    with pytest.raises(TargetError, match="the struct page of page frame 0x10e"):
        is_freed(fake.kernel, X86_64.image + INIT_TEXT)
    with pytest.raises(StateError, match="the struct page of page frame 0x10e") as caught:
        MemoryState(fake.kernel).state(X86_64.image + INIT_TEXT)
    assert caught.value.state == State(True, "r-x", None, PAGE)
