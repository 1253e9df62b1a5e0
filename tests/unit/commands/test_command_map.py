"""kmap with files alone, and the map of arm64 from the numbers of VMCOREINFO.

That the figures themselves are right is tests/unit/space and tests/runtime/map.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from support.bounded_kplug import BoundedKplug
from support.elf_builder import small_vmlinux

from kplug.commands import COMMANDS
from kplug.commands.map import MAP
from kplug.outputs import Column, HumanSize, Output, Problem, Table
from kplug.render.show import Renderer
from kplug.session import Session
from kplug.space.address_space import AddressSpaceFacts, Area

KASLR_4 = AddressSpaceFacts(
    pgtable_l5_enabled=False,
    has_randomize_memory=True,
    kernel_image_size=1 << 30,
    page_offset_base=0xFFFF89FAC0000000,
    vmalloc_base=0xFFFFCEB000000000,
    vmemmap_base=0xFFFFFB0880000000,
    direct_map_physmem_end=(1 << 46) - 1,
    max_pfn=65504,
    fixed_addresses=(
        ("VSYSCALL_PAGE", 511),
        ("FIX_DBGP_BASE", 512),
        ("FIX_APIC_BASE", 514),
        ("FIX_IO_APIC_BASE_0", 515),
        ("FIX_IO_APIC_BASE_END", 642),
        ("__end_of_permanent_fixed_addresses", 646),
        ("FIX_BTMAP_END", 1024),
        ("FIX_BTMAP_BEGIN", 1535),
        ("__end_of_fixed_addresses", 1536),
    ),
    cpu_entry_areas=((0, 0xFFFFFE280297E000), (1, 0xFFFFFE670CEFE000)),
    cpu_entry_area_size=0x3B000,
    cpu_entry_area_members=(("gdt", 0, 0x1000), ("tss", 0x2000, 0x5000)),
)


def run(*words: str, facts: AddressSpaceFacts = KASLR_4, machine: str = "x86_64", **more: Any) -> list[Output]:
    parser = argparse.ArgumentParser()
    MAP.add_arguments(parser)
    return list(MAP.run(Session([], facts=facts, machine=machine, **more), parser.parse_args(words)))


def rows(*words: str, **more: Any) -> list[dict[str, Any]]:
    return [dict(row) for output in run(*words, **more) if isinstance(output, Table) for row in output.rows]


def named(found: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(row for row in found if row["name"] == name)


def test_it_is_a_command_at_every_prompt() -> None:
    assert COMMANDS["map"] is MAP
    assert MAP.host_name == "kmap"


def test_the_whole_space_is_listed_without_a_gap() -> None:
    areas = [row for row in rows() if row["depth"] == 0]
    assert areas[0]["start"] == 0
    assert areas[-1]["end"] == 1 << 64
    assert all(low["end"] == high["start"] for low, high in zip(areas, areas[1:]))
    assert sum(row["size"] for row in areas) == 1 << 64


def test_how_far_each_area_was_moved_from_where_it_is_compiled_to_be() -> None:
    found = rows()
    assert named(found, "direct map")["moved"] == 0xFFFF89FAC0000000 - 0xFFFF888000000000
    assert named(found, "vmalloc")["moved"] == 0xFFFFCEB000000000 - 0xFFFFC90000000000
    assert named(found, "vmemmap")["moved"] == 0xFFFFFB0880000000 - 0xFFFFEA0000000000
    assert named(found, "CPU 1")["moved"] == 0xFFFFFE670CEFE000 - 0xFFFFFE0000001000 - 0x3B000
    assert named(found, "user")["moved"] is None


def test_the_direct_map_is_parted_where_ram_ends() -> None:
    found = rows("direct-map")
    assert [row["name"] for row in found] == ["direct map", "RAM", "beyond RAM"]
    assert found[1]["end"] == 0xFFFF89FAC0000000 + 65504 * 4096 == found[2]["start"]
    assert found[2]["end"] == found[0]["end"] == 0xFFFF89FAC0000000 + (1 << 46)


def test_the_fixmap_is_listed_by_slot_when_asked() -> None:
    assert "FIX_APIC_BASE" not in [row["name"] for row in rows()]
    for words in (("fixmap",), ("-v",)):
        found = rows(*words)
        assert named(found, "FIX_APIC_BASE")["start"] == 0xFFFFFFFFFF7FF000 - 514 * 4096
        io_apic = named(found, "FIX_IO_APIC_BASE_0 .. FIX_IO_APIC_BASE_END")
        assert (io_apic["slot"], io_apic["last_slot"]) == (515, 642)
        assert io_apic["end"] - io_apic["start"] == 128 * 4096
        early = named(found, "FIX_BTMAP_END .. FIX_BTMAP_BEGIN")
        assert early["start"] == 0xFFFFFFFFFF7FF000 - 1535 * 4096


def test_an_address_is_told_with_all_that_holds_it() -> None:
    address = 0xFFFFFFFFFF7FF000 - 520 * 4096 + 0x30
    found = rows(hex(address))
    assert [row["name"] for row in found] == ["fixmap", "FIX_IO_APIC_BASE_0[5]"]
    assert (found[1]["slot"], found[1]["address"], found[1]["input"]) == (520, address, hex(address))
    found = rows("fffffe6710000000", "0xfffffe670cf00010")
    assert [row["name"] for row in found] == ["cpu_entry_area", "cpu_entry_area", "CPU 1", "tss of CPU 1"]


def test_above_its_rows_an_address_stands_once_and_a_symbol_with_its_address() -> None:
    titles = [output.title for output in run("0x10", "FFFFFE6710000000", "0x00010") if isinstance(output, Table)]
    assert titles == ["0x10", "0xfffffe6710000000", "0x00010: 0x10"]


@pytest.mark.parametrize("word", ["direct map", "direct-map", "DIRECT_MAP", "cpu-entry-area", "KASAN"])
def test_areas_are_called_by_name(word: str) -> None:
    outputs = run(word)
    if word == "KASAN":
        assert [type(output) for output in outputs] == [Problem]
    else:
        assert isinstance(outputs[0], Table)


def test_an_area_that_is_one_of_several_has_the_names_of_each() -> None:
    unknown = AddressSpaceFacts(pgtable_l5_enabled=False, has_randomize_memory=True)
    for word in ("direct-map", "vmalloc", "vmemmap"):
        (row,) = rows(word, facts=unknown)
        assert row["name"] == "direct map, vmalloc or vmemmap (randomised, bases not known)"


def test_what_nobody_told_is_said_to_be_as_compiled() -> None:
    row = named(rows(facts=AddressSpaceFacts(pgtable_l5_enabled=False)), "direct map")
    assert row["nominal"] is True
    assert row["moved"] is None
    assert "the kernel may have moved it" in row["note"]


def test_refused_facts_are_named_above_the_map() -> None:
    problem, table = run(facts=AddressSpaceFacts(pgtable_l5_enabled=False, page_offset_base=0x1234))
    assert isinstance(problem, Problem)
    assert "page_offset_base is 0x1234" in problem.message
    assert isinstance(table, Table)


def test_modules_are_listed_with_v_and_overlaps_of_a_broken_list_left_out() -> None:
    def contents() -> Iterable[Area]:
        for name, start, end in (("a", 0, 0x2000), ("b", 0x1000, 0x3000), ("c", 0x3000, 0x4000), ("d", -1 << 40, 9)):
            yield Area(
                f"{name} text", 0xFFFFFFFFC0000000 + start, 0xFFFFFFFFC0000000 + end, "", details={"module": name}
            )

    found = rows("-v", contents=contents)
    assert [row["name"] for row in found if row["module"]] == ["a text", "c text"]
    assert "2 modules have 12 KiB" in named(found, "modules")["note"]
    assert not [row for row in rows(contents=contents) if row["module"]]


def test_json_has_one_object_for_each_row() -> None:
    (table,) = run()
    lines = list(Renderer(argparse.Namespace(json=True)).lines(table))
    objects = [json.loads(line) for line in lines]
    direct_map = named(objects, "direct map")
    assert direct_map["schema"] == "kplug.map/1"
    assert direct_map["start"] == "0xffff89fac0000000"
    assert direct_map["size"] == 1 << 46
    assert direct_map["moved"] == "0x17ac0000000"
    assert direct_map["kind"] == "area"
    assert all(each.keys() == objects[0].keys() for each in objects)


def test_text_has_addresses_in_full_and_sizes_in_units() -> None:
    (table,) = run()
    lines = list(Renderer(argparse.Namespace()).lines(table))
    assert lines[0] == "x86_64, 4-level page tables"
    line = next(line for line in lines if line.startswith("0xffff89fac0000000"))
    assert line.split()[:6] == ["0xffff89fac0000000", "0xffffc9fac0000000", "64", "TiB", "direct", "map"]
    assert next(line for line in lines if " user " in line).startswith("0x0000000000000000  0x00007ffffffff000")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 46, "64 TiB"),
        ((1 << 46) + 1, "64.0 TiB"),
    ],
)
def test_sizes_with_a_digit_behind_the_point_are_not_exact(size: int, words: str) -> None:
    table = Table("s", (Column("SIZE", "size"),), [{"size": HumanSize(size)}])
    assert list(Renderer(argparse.Namespace()).lines(table))[-1].strip() == words


def test_an_architecture_without_a_map() -> None:
    from kplug.errors import UsageError

    with pytest.raises(UsageError, match="no memory map of sparc64"):
        run(machine="sparc64")


def test_a_map_that_only_memory_tells() -> None:
    from kplug.errors import UsageError

    with pytest.raises(UsageError, match="s390x lays its memory out when it boots"):
        run(machine="s390x", facts=AddressSpaceFacts())


def test_addresses_of_a_machine_of_32_bits_have_8_digits() -> None:
    facts = AddressSpaceFacts(image_start=0xC1000000, high_memory=0xCFFE0000)
    (table,) = run("direct-map", machine="i386", facts=facts)
    lines = list(Renderer(argparse.Namespace()).lines(table))
    assert lines[-1].split()[:2] == ["0xc0000000", "0xcffe0000"]
    (problem,) = run("0x1c1dbaa13", machine="i386", facts=facts)
    assert problem == Problem("0x1c1dbaa13: more than 32 bits")


# arm64, from what VMCOREINFO of a real kind of kernel tells (arch/arm64/kernel/vmcore_info.c).


def arm64(**numbers: int) -> list[dict[str, Any]]:
    pytest.importorskip("drgn")
    from kplug.memory.kernel_note import with_vmcoreinfo
    from kplug.memory.vmcoreinfo import VmcoreInfo

    text = "\n".join(f"NUMBER({name})={value:#x}" for name, value in numbers.items())
    more = "\nPAGESIZE=4096\nSYMBOL(_stext)=ffffd2b280010000\nKERNELOFFSET=52b200000000\n"
    facts = with_vmcoreinfo(AddressSpaceFacts(has_early_init_stack=True), VmcoreInfo(text + more), "aarch64")
    return rows(facts=facts, machine="aarch64")


def test_arm64_with_48_bits_of_vmcoreinfo_alone() -> None:
    found = arm64(
        VA_BITS=48,
        TCR_EL1_T1SZ=16,
        MODULES_VADDR=0xFFFF800000000000,
        MODULES_END=0xFFFF800080000000,
        VMALLOC_START=0xFFFF800080000000,
        VMALLOC_END=0xFFFFFDFFBF800000,
        VMEMMAP_START=0xFFFFFDFFC0000000,
        VMEMMAP_END=0xFFFFFFFFC0000000,
        KERNELPACMASK=0x7F000000000000,
    )
    assert named(found, "direct map")["start"] == 0xFFFF000000000000
    assert named(found, "direct map")["end"] == 0xFFFF800000000000
    assert named(found, "vmalloc")["end"] == 0xFFFFFDFFBF800000
    assert named(found, "vmemmap")["end"] == 0xFFFFFFFFC0000000
    assert named(found, "PCI I/O")["start"] == 0xFFFFFFFFC0800000
    assert named(found, "fixmap")["end"] == 0xFFFFFFFFFF800000
    assert named(found, "modules")["nominal"] is True  # they follow the image, which was moved


def test_arm64_with_52_bits_on_a_cpu_with_48() -> None:
    found = arm64(
        VA_BITS=52,
        TCR_EL1_T1SZ=16,
        MODULES_VADDR=0xFFFF800000000000,
        MODULES_END=0xFFFF800080000000,
        VMALLOC_START=0xFFFF800080000000,
        VMALLOC_END=0xFFFFFDFFBF800000,
        VMEMMAP_START=0xFFFFC1FFC0000000,
        VMEMMAP_END=0xFFFFFFFFC0000000,
    )
    assert named(found, "user")["end"] == 1 << 48
    assert named(found, "direct map")["start"] == 0xFFFF000000000000
    assert named(found, "vmemmap")["start"] == 0xFFFFFDFFC0000000


# The command line, on a file.


@pytest.fixture
def vmlinux(tmp_path: Path) -> str:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    return str(path)


def test_with_a_file_alone_the_map_says_what_it_does_not_know(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("map", "-s", vmlinux)
    assert answer.status == 0
    assert "x86_64, 4-level page tables" in answer.out.splitlines()[0]
    assert "as compiled; the kernel may have moved it" in answer.out
    assert "vmlinux" in answer.out


def test_what_cannot_be_resolved_keeps_no_other_from_its_answer(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("map", "-s", vmlinux, "nothing", "vsyscall", "start_kernel")
    assert answer.status == 1
    assert "nothing: no such symbol" in answer.err
    assert "vsyscall" in answer.out
    assert "kernel image mapping" in answer.out
