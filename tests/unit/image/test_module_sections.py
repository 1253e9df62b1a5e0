"""Where a module's sections are: by name, and those of one name by their order (gABI: names need not be unique)."""

from __future__ import annotations

from kplug.frozen import replace
from kplug.image.elf.sections import PERCPU_SECTION, Section, extent
from kplug.image.module_sections import section_addresses


def sections(*given: tuple[str, int]) -> list[Section]:
    """Allocated sections of these names and sizes, numbered from 1, behind the null section."""
    made = [replace(extent(n, name, 0, size, 0), size=size) for n, (name, size) in enumerate(given, 1)]
    return [extent(0, "", 0, 0, 0), *made]


def test_each_by_its_name() -> None:
    file = sections((".text", 0x100), (".data", 0x20), (".not_loaded", 8))
    assert section_addresses(file, [(".data", 0x2000), (".text", 0x1000), (".strtab", 0x9000)]) == {
        1: 0x1000,
        2: 0x2000,
    }


def test_two_of_one_name_by_their_order() -> None:
    file = sections((".text.unlikely", 0x10), (".data", 8), (".text.unlikely", 0x30))
    loaded = [(".text.unlikely", 0x1000), (".data", 0x3000), (".text.unlikely", 0x2000)]
    assert section_addresses(file, loaded) == {1: 0x1000, 2: 0x3000, 3: 0x2000}


def test_fewer_addresses_than_sections_of_a_name_place_none_of_them() -> None:
    """/sys has one file a name: which of the two it is of is not known."""
    file = sections((".text.unlikely", 0x10), (".data", 8), (".text.unlikely", 0x30))
    assert section_addresses(file, [(".text.unlikely", 0x1000), (".data", 0x3000)]) == {2: 0x3000}


def test_more_addresses_than_sections_of_a_name_place_none_of_them() -> None:
    assert section_addresses(sections((".data", 8)), [(".data", 0x1000), (".data", 0x2000)]) == {}


def test_an_empty_section_takes_no_turn() -> None:
    file = sections((".text", 0), (".text", 0x10))
    assert section_addresses(file, [(".text", 0x1000)]) == {2: 0x1000}


def test_an_empty_one_alone_has_its_address() -> None:
    assert section_addresses(sections((".bss", 0)), [(".bss", 0x1000)]) == {1: 0x1000}


def test_freed_memory_keeps_its_turn() -> None:
    file = sections((".init.text", 0x10), (".init.text", 0x20))
    loaded = [(".init.text", 0x1000), (".init.text", 0x8000)]
    assert section_addresses(file, loaded, holds=lambda start, end: start >= 0x8000) == {2: 0x8000}


def test_what_would_reach_beyond_64_bits_is_not_placed() -> None:
    assert section_addresses(sections((".data", 0x20)), [(".data", (1 << 64) - 0x10)]) == {}


def test_per_cpu_variables() -> None:
    file = sections((PERCPU_SECTION, 0x40), (".data", 8))
    assert section_addresses(file, [(".data", 0x1000)], percpu=0x29000) == {1: 0x29000, 2: 0x1000}
    assert section_addresses(file, [(".data", 0x1000)]) == {2: 0x1000}
