"""What the shell tells of a vmlinux and of modules: tables, KASLR offsets, and where a module's sections are.

The files are made by elf_builder: what they were made with is what must be told.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.bounded_kplug import BoundedKplug
from support.elf_builder import BASE_64, FUNC, Elf, Sym, small_vmlinux

START_KERNEL = f"{BASE_64 + 0x10:#x}"

# -- tables ------------------------------------------------------------------------------------------------------------

ROW_KEYS = {
    "sym": "address link_address size type binding name image section file part_of",
    "regions": "kind name depth class start end size link_start start_symbol end_symbol bounds freed_after_boot "
    "read_only_after_init after_boot source",
    "sections": "index name type start end size flags segments link_start offset entry_size link info alignment image",
    "segments": "index type start end size file_size flags offset link_start physical alignment sections image",
}


@pytest.mark.parametrize("command", ROW_KEYS)
def test_rows_have_the_keys_that_scripts_rely_on(kplug: BoundedKplug, vmlinux: str, command: str) -> None:
    """docs/json.md, "Tables"."""
    answer = kplug.run(command, "--json", "-s", vmlinux, *(["*"] if command == "sym" else []))
    assert answer.status == 0
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert rows
    for row in rows:
        assert row["schema"] == f"kplug.{command}/1"
        assert set(ROW_KEYS[command].split()) <= set(row)
        for key in ("address", "link_address", "start", "end", "link_start", "offset", "physical"):
            assert row.get(key) is None or re.fullmatch(r"0x[0-9a-f]+", row[key])
        for key in ("size", "index", "depth", "alignment"):
            assert row.get(key) is None or type(row[key]) is int


def test_sections_are_as_they_were_made(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("sections", "--json", "-s", vmlinux, "--kaslr", "0x8a00000")
    rows = {row["name"]: row for row in map(json.loads, answer.out.splitlines())}
    text, bss = rows[".text"], rows[".bss"]
    assert (text["start"], text["end"], text["link_start"]) == (
        hex(BASE_64 + 0x8A00000), hex(BASE_64 + 0x8A00200), hex(BASE_64),
    )  # fmt: skip
    assert (text["type"], text["flags"], text["size"], text["alignment"]) == ("PROGBITS", "AX", 0x200, 16)
    assert (bss["type"], bss["flags"], bss["size"]) == ("NOBITS", "WA", 0x100)
    assert (rows[".symtab"]["start"], rows[".symtab"]["end"]) == (None, None)


def test_segments_hold_the_sections_they_were_made_to_cover(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("segments", "--json", "-s", vmlinux)
    rows = [json.loads(line) for line in answer.out.splitlines()]
    assert [(row["type"], row["flags"], row["sections"]) for row in rows] == [
        ("LOAD", "R E", [".text", ".rodata", ".notes"]),
        ("LOAD", "RW", [".data", ".bss"]),
        ("LOAD", "RWE", [".init.text"]),
        ("NOTE", "R", [".notes"]),
    ]


def test_every_byte_of_the_image_is_in_a_region_or_a_gap(kplug: BoundedKplug, vmlinux: str) -> None:
    """Every byte of [_text, _end) gets an answer."""
    rows = [json.loads(line) for line in kplug.run("regions", "--json", "-s", vmlinux).out.splitlines()]
    covered = BASE_64
    for row in rows[1:]:
        start, end = int(row["start"], 16), int(row["end"], 16)
        assert start <= covered
        covered = max(covered, end)
    assert covered == BASE_64 + 0x4000
    assert rows[0]["name"] == "image"


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["start_kernel"], {"start_kernel"}),
        (["__*_rodata"], {"__start_rodata", "__end_rodata"}),
        (["-p", "_s"], {"_stext", "_sdata", "_sinittext"}),
        ([START_KERNEL], {"start_kernel"}),
        (["start_kernel+0x5"], {"start_kernel"}),
        (["twin"], {"twin"}),
        (["setup", "jiffies"], {"setup", "jiffies"}),
    ],
)
def test_symbols_are_found_by_name_pattern_prefix_and_address(
    kplug: BoundedKplug, vmlinux: str, words: list[str], names: set[str]
) -> None:
    answer = kplug.run("sym", "--json", "-s", vmlinux, *words)
    assert {json.loads(line)["name"] for line in answer.out.splitlines()} == names


# -- KASLR offsets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kaslr", "kaslr_offset"),
    [
        ("none", 0),
        ("0", 0),
        ("0x0", 0),
        ("0x8a00000", 0x8A00000),
        ("8a00000", 0x8A00000),  # as KERNELOFFSET= in a vmcoreinfo
        ("0X8A00000", 0x8A00000),
        ("+0x200000", 0x200000),
        ("-0x200000", -0x200000),
    ],
)
def test_the_kaslr_offset_may_be_given(kplug: BoundedKplug, vmlinux: str, kaslr: str, kaslr_offset: int) -> None:
    answer = kplug.run("where", "--json", "-s", vmlinux, f"--kaslr={kaslr}", "start_kernel")
    assert answer.status == 0
    given = json.loads(answer.out)
    assert given["address"] == hex(BASE_64 + 0x10 + kaslr_offset)
    assert given["link_address"] == hex(BASE_64 + 0x10)


@pytest.mark.parametrize("kaslr", ["", "x", "0x", "1.5", "--0x200000", "0x200000 ", "0x1" + "0" * 16, "yes", "\n"])
def test_a_kaslr_offset_that_is_none_is_refused(kplug: BoundedKplug, vmlinux: str, kaslr: str) -> None:
    answer = kplug.run("where", "-s", vmlinux, f"--kaslr={kaslr}", "start_kernel")
    assert (answer.status, answer.out, answer.crash) == (2, "", None)
    assert "--kaslr" in answer.err


def test_a_link_address_given_for_a_moved_kernel_gets_a_hint(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("where", "--json", "-s", vmlinux, "--kaslr", "0x8a00000", START_KERNEL)
    (warning,) = json.loads(answer.out)["warnings"]
    assert hex(BASE_64 + 0x8A00010) in warning


# -- modules -----------------------------------------------------------------------------------------------------------


def test_a_module_is_answered_where_it_was_placed(kplug: BoundedKplug, vmlinux: str, module: str) -> None:
    words = ("--module", f"{module}@0xffffffffc0400000", "0xffffffffc040000c")
    answer = kplug.run("where", "--json", "-s", vmlinux, *words)
    assert answer.status == 0
    given = json.loads(answer.out)
    layers = {layer["kind"]: layer for layer in given["layers"]}
    assert layers["module"]["name"] == "my_mod"
    assert layers["section"]["name"] == ".text"
    assert (layers["symbol"]["name"], layers["symbol"]["offset"]) == ("mod_open", "0x4")
    assert given["link_address"] is None


@pytest.mark.parametrize("at", ["0xffffffffc0400000", "ffffffffc0400000", ".text=0xffffffffc0400000"])
def test_a_modules_address_has_these_forms(kplug: BoundedKplug, module: str, at: str) -> None:
    answer = kplug.run("where", "-b", "--module", f"{module}@{at}", "mod_open+1")
    assert (answer.status, answer.out.split()[:2]) == (0, ["0xffffffffc0400009", "mod_open+0x1"])


def test_a_modules_data_has_its_own_address(kplug: BoundedKplug, module: str) -> None:
    specification = f"{module}@0xffffffffc0400000,.data=0xffffffffc0402000"
    answer = kplug.run("where", "-b", "--module", specification, "0xffffffffc0402004", "mod_data")
    assert [line.split()[1] for line in answer.out.splitlines()] == ["mod_data+0x4", "mod_data+0x0"]


def test_of_a_modules_section_without_an_address_nothing_is_claimed(kplug: BoundedKplug, module: str) -> None:
    answer = kplug.run("where", "--module", f"{module}@0xffffffffc0400000", "mod_data")
    assert answer.status == 1
    assert ".data" in answer.err
    assert "mod_data" not in kplug.run("where", "--json", "--module", f"{module}@0xffffffffc0400000", "0", "0x4").out


@pytest.mark.parametrize(
    "at",
    [
        "", "@", "@x", "@-1000", "@1_0", "@0x", "@0x1ffffffffffffffff", "@.data", "@.data=", "@.data=zz", "@=0x10",
        "@0x10,", "@,0x10", "@.nothing=0x10", "@.symtab=0x10", "@0xffffffffffffff00", "@ 0x10", "@0x10 ",
    ],
)  # fmt: skip
def test_a_module_without_a_place_is_refused(kplug: BoundedKplug, module: str, at: str) -> None:
    answer = kplug.run("where", "--module", f"{module}{at}", "0x10")
    assert (answer.status, answer.out, answer.crash) == (2, "", None)
    assert answer.err.count("\n") == 1
    assert "--module" in answer.err


@pytest.mark.parametrize("number", [0xFF00, 0xFFF2, 0xFFFF, 200])
def test_a_symbol_of_a_module_may_claim_a_section_that_is_not_there(
    kplug: BoundedKplug, tmp_path: Path, number: int
) -> None:
    elf = small_vmlinux(type=1, segments=[], symbols=[Sym("lost", 0, 4, number, FUNC)])
    path = tmp_path / "m.ko"
    path.write_bytes(bytes(elf))
    answer = kplug.run("where", "--module", f"{path}@0xffffffffc0400000", "lost")
    assert (answer.status, answer.out, answer.crash) == (1, "", None)
    assert "lost" in answer.err


def test_a_vmlinux_is_no_module(kplug: BoundedKplug, vmlinux: str) -> None:
    answer = kplug.run("where", "--module", f"{vmlinux}@0xffffffffc0000000", "0")
    assert answer.status == 2
    assert "not a module" in answer.err


def test_the_text_sections_of_a_module_follow_each_other_as_the_loader_lays_them(
    kplug: BoundedKplug, tmp_path: Path
) -> None:
    """kernel/module/main.c, layout_sections(): .text of 0x200 bytes at 16, then a section of alignment 0x100."""
    elf = small_vmlinux(type=1, segments=[])
    for section in elf.sections:
        section.address = 0
    elf.sections[1].flags |= 4  # .rodata is executable here, and lies between
    elf.sections[1].align = 0x100
    elf.sections[1].name = ".text.unlikely"
    elf.symbols = [
        Sym("hot", 0, 4, ".text", FUNC),
        Sym("cold", 8, 4, ".text.unlikely", FUNC),
        Sym("init", 0, 4, ".init.text"),
    ]
    elf.sections[0].data = b"\x90" * 0x210
    path = tmp_path / "m.ko"
    path.write_bytes(bytes(elf))
    answer = kplug.run("where", "-b", "--module", f"{path}@0xffffffffc0000000", "hot", "cold")
    assert [line.split()[0] for line in answer.out.splitlines()] == ["0xffffffffc0000000", "0xffffffffc0000308"]
    assert kplug.run("where", "--module", f"{path}@0xffffffffc0000000", "init").status == 1


def test_a_vmlinux_of_each_kind_is_answered(kplug: BoundedKplug, tmp_path: Path) -> None:
    for bits, little, machine in ((64, True, 62), (64, False, 21), (32, True, 3), (32, False, 20)):
        path = tmp_path / f"{bits}{little}"
        path.write_bytes(bytes(Elf(**vars(small_vmlinux(bits, little, machine)))))
        answer = kplug.run("where", "-b", "-s", str(path), "start_kernel+4")
        assert (answer.status, answer.out.split()[1:]) == (0, ["start_kernel+0x4", ".text", "[text]"])
