"""What kplug reads of bit masks, nodes and memory sections itself, beside drgn's own helpers."""

from __future__ import annotations

import subprocess
import sys

import drgn
import pytest
from drgn.helpers.linux.bitops import for_each_set_bit
from drgn.helpers.linux.mmzone import for_each_online_pgdat, valid_section_nr
from support.fake_kernel import RAM, FakeKernel
from support.fake_zones import FakeZones
from support.python_imports import of_colours

from kplug.errors import TargetError
from kplug.runtime.kernel.masks import numbers_in
from kplug.runtime.kernel.nodes import online_nodes
from kplug.runtime.tables.memory_sections import first_struct_page, has_struct_pages

FORMS = {
    "pointer": "struct mem_section **",
    "pointers": "struct mem_section *[8]",
    "rows": "struct mem_section [8][128]",
}


def mask_of(fake: FakeKernel, count: int | None) -> drgn.Object:
    fake.words(fake.variable("mask", "unsigned long [3]"), 1 << 63 | 0b101, 1, (1 << 64) - 1)
    if count is not None:
        fake.variable("nr_ids", "unsigned int", count)
    return fake.prog["mask"]


@pytest.mark.parametrize("count", [1, 63, 64, 65, 130, 192, None])
def test_the_numbers_of_a_mask_are_those_of_drgns_helper(count: int | None) -> None:
    mask = mask_of(FakeKernel(), count)
    assert list(numbers_in(mask, "nr_ids")) == list(for_each_set_bit(mask, count or 192))


@pytest.mark.parametrize("count", [0, 193, 0xFFFFFFFF])
def test_a_limit_that_was_overwritten(count: int) -> None:
    """What comes after a mask is not taken for more of it."""
    with pytest.raises(TargetError, match=f"^nr_ids is {count}, and the kernel has room for 192$"):
        list(numbers_in(mask_of(FakeKernel(), count), "nr_ids"))


def test_a_node_without_numa_is_that_of_drgns_helper() -> None:
    fake = FakeKernel()
    FakeZones(fake)
    places = [node.value_() for node in online_nodes(fake.prog)]
    assert (
        places
        == [node.value_() for node in for_each_online_pgdat(fake.prog)]
        == [fake.prog["contig_page_data"].address_]
    )


def test_the_nodes_with_numa_are_those_of_drgns_helper() -> None:
    fake = FakeKernel()
    FakeZones(fake)
    fake.words(fake.prog["node_states"].address_ or 0, 7, 0b101)
    fake.variable("nr_node_ids", "unsigned int", 4)
    place = fake.variable("node_data", "struct pglist_data *[4]", size=32)
    fake.words(place, *(fake.make("pglist_data") for _ in range(4)))
    places = [node.value_() for node in online_nodes(fake.prog)]
    assert places == [node.value_() for node in for_each_online_pgdat(fake.prog)]
    assert len(places) == 2


def in_form(form: str, coded: int | None = None) -> FakeKernel:
    """A kernel whose `mem_section` is declared in that form, and `section_mem_map` of its only section."""
    fake = FakeKernel()
    row = fake.prog["mem_section"].read_()[0].value_()
    if coded is not None:
        number = fake.machine.ram // RAM
        fake.words(row + 32 * number, coded)
    if form != "pointer":
        place = fake.take(8 * 128 * 32)
        fake.known("mem_section", FORMS[form], place)
        if form == "pointers":
            fake.words(place, row)
        else:
            fake.poke(place, bytes(fake.prog.read(row, 128 * 32)))
    return fake


@pytest.mark.parametrize("form", FORMS)
def test_the_first_struct_page_is_where_a_section_says(form: str) -> None:
    fake = in_form(form, 0xFFFFED81C0000000 | 0x1F)
    assert first_struct_page(fake.prog) == 0xFFFFED81C0000000
    assert first_struct_page(in_form(form, 0xFFFFED81C0000000 | 0x1D).prog) is None  # none of its own


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("has_enum", [False, True])
def test_sections_have_struct_pages_as_drgns_helper_says(form: str, has_enum: bool) -> None:
    fake = in_form(form)
    if has_enum:
        fake.enum("", SECTION_MARKED_PRESENT_BIT=0, SECTION_HAS_MEM_MAP_BIT=1, SECTION_MAP_LAST_BIT=5)
    numbers = (*range(40), 127, 128, 1023, 1024, 1 << 40)
    found = [number for number in numbers if has_struct_pages(fake.prog, number)]
    assert found == [number for number in numbers if valid_section_nr(fake.prog, number)]
    assert found


def test_a_session_is_made_without_drgns_helpers_and_what_few_answers_need() -> None:
    ask = (
        "import sys, kplug.runtime.session, kplug.repl.dispatch; from kplug.runtime.locators import registry;"
        "registry.load(); print(*sys.modules)"
    )
    found = subprocess.check_output([sys.executable, "-c", ask], text=True).split()
    assert "kplug.runtime.locators.slab" in found
    heavy = {"drgn.helpers.linux", "drgn.cli", "drgn.commands", "importlib.metadata", "inspect", "json", "pathlib"}
    assert heavy.union({"shutil", "socket", "subprocess"}).intersection(found) <= of_colours()
