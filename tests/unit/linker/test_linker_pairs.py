"""Regions that no table knows: pairs of symbols by their names, and by the linker script.

Symbols of real kernels are those of tests/linker_kernel/data; what they bound was read off the kernels' own scripts.
"""

from __future__ import annotations

import time

import pytest
from support.linker_kernels import named, names, symbols_of, tree_of

from kplug.linker.region_builder import build_region_tree
from kplug.linker.regions import Region, RegionTree
from kplug.linker.script_parser import parse_linker_script

IMAGE = {"_text": 0x10000, "_stext": 0x10000, "_etext": 0x20000, "_sdata": 0x20000, "_edata": 0x30000, "_end": 0x40000}


def extra(**symbols: int) -> set[str]:
    """The regions that these symbols add to a small image."""
    plain = {region.name for region in build_region_tree(IMAGE, "x86_64").regions}
    return {region.name for region in build_region_tree({**IMAGE, **symbols}, "x86_64").regions} - plain


@pytest.mark.parametrize(
    ("start", "end", "name"),
    [
        ("__start_novel", "__stop_novel", "novel"),
        ("__start___novel", "__stop___novel", "novel"),
        ("__start_novel", "__end_novel", "novel"),
        ("__novel_start", "__novel_end", "novel"),
        ("novel_start", "novel_end", "novel"),
        ("__novel_begin", "__novel_end", "novel"),
        ("__novel", "__novel_end", "novel"),
    ],
)
def test_pairs_that_no_table_knows_are_found_by_their_names(start: str, end: str, name: str) -> None:
    tree = build_region_tree({**IMAGE, start: 0x21000, end: 0x22000}, "x86_64")
    found = named(tree, name)
    assert (found.start, found.end, found.start_symbol, found.end_symbol) == (0x21000, 0x22000, start, end)
    assert found.source == "boundary symbols by naming convention"


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("amd64-6.1", ""),
        ("amd64-6.12", "runtime_shift_d_hash_shift runtime_ptr_dentry_hashtable runtime_ptr_USER_PTR_MAX"),
        (
            "arm64-6.12",
            "aarch32_sigret_code kuser_helper vdso vdso32 dtb_empty_root"
            " runtime_shift_d_hash_shift runtime_ptr_dentry_hashtable",
        ),
    ],
)
def test_what_the_naming_convention_adds_on_real_kernels(kernel: str, expected: str) -> None:
    # docs/regions.md has the verdict on each.
    added = [region for region in tree_of(kernel).regions if region.source.endswith("by naming convention")]
    assert [region.name for region in added] == expected.split()


def test_a_text_region_that_no_table_knows_is_found() -> None:
    assert extra(__novel_text_start=0x11000, __novel_text_end=0x12000) == {"novel_text"}


@pytest.mark.parametrize(
    "symbols",
    [
        {"abort_guest_exit_start": 0x11000, "abort_guest_exit_end": 0x11004},  # labels inside an arm64 function
        {"__retry_start": 0x11000, "__retry_end": 0x11010},
        {"novel_start": 0x22000, "novel_end": 0x21000},  # the wrong way round
        {"novel_start": 0x1F000, "novel_end": 0x21000},  # half in text, half in data
        {"novel_start": 0x50000, "novel_end": 0x51000},  # outside the image
        {"novel_start": 0x21000},
        {"novel_end": 0x21000},
        {"novel": 0x21000, "novel_end": 0x22000},  # a variable and another one
        {"__ksymtab_audit_log_start": 0x21000, "__ksymtab_audit_log_end": 0x2100C},  # an exported function's entry
        {"__crc_kernel_neon_begin": 0x21000, "__crc_kernel_neon_end": 0x21004},
        {"__tracepoint_contention_begin": 0x21000, "__tracepoint_contention_end": 0x21050},
        {"_start": 0x21000, "_end_": 0x22000},
        {"kernel_sec_start": 0x21000, "kernel_sec_end": 0x21008},  # two variables of arm
        {"io_tlb_start": 0x21004, "io_tlb_end": 0x21010},  # and two with others between them
    ],
)
def test_names_that_only_look_like_a_pair_are_no_region(symbols: dict[str, int]) -> None:
    assert extra(**symbols) == set()


@pytest.mark.parametrize(
    ("machine", "start", "end", "name", "read_only"),
    [
        ("arm", "_text", "_stext", "head.text", False),  # pages below _stext are made writable data
        ("riscv64", "__end_rodata", "_data", "srodata", True),  # mark_rodata_ro() goes to _data
        (
            "s390x",
            "__ftrace_hotpatch_trampolines_start",
            "__ftrace_hotpatch_trampolines_end",
            "ftrace_hotpatch_trampolines",
            None,
        ),
    ],
)
def test_regions_of_one_architecture(machine: str, start: str, end: str, name: str, read_only: bool | None) -> None:
    symbols = {"_text": 0x1000, "_end": 0x90000, start: 0x1000, end: 0x3000}
    region = next(each for each in build_region_tree(symbols, machine).regions if each.name == name)
    assert (region.start, region.end, region.read_only_after_init) == (0x1000, 0x3000, read_only)


def test_init_code_is_init_where_only_code_has_symbols() -> None:
    """kallsyms without CONFIG_KALLSYMS_ALL have neither __init_begin nor __init_end."""
    symbols = {"_text": 0x1000, "_stext": 0x1000, "_etext": 0x2000, "_sinittext": 0x3000, "_einittext": 0x4000}
    tree = build_region_tree(symbols, "i386")
    assert tree.region_class(0x3000) == "init"
    assert tree.chain(0x3000)[-1].freed_after_boot


def test_a_second_name_for_a_region_adds_nothing() -> None:
    assert extra(__other_start=0x20000, __other_end=0x30000) == set()


@pytest.mark.parametrize(
    "symbols",
    [
        {"__bss_start": 0x38000, "__bss_stop": 0x37000},
        {"__bss_start": 0x38000, "__bss_stop": 0x50000},
        {"__bss_start": 0x8000, "__bss_stop": 0x38000},
        {"__per_cpu_start": 0, "__per_cpu_end": 1 << 40},
        {"__init_scratch_begin": 0x60000, "__init_scratch_end": 1 << 50},
    ],
)
def test_insane_bounds_are_dropped(symbols: dict[str, int]) -> None:
    assert extra(**symbols) == set()


def test_another_architectures_rows_do_not_count() -> None:
    # arm64's page table; on x86 the name is a variable's.
    symbols = {**IMAGE, "reserved_pg_dir": 0x31000, "swapper_pg_dir": 0x32000}
    assert "reserved_pg_dir" not in names(build_region_tree(symbols, "x86_64").regions)


@pytest.mark.parametrize("name", ["aarch64", "arm64"])
def test_an_architecture_may_go_by_either_name(name: str) -> None:
    assert "head.text" in names(build_region_tree(symbols_of("arm64-6.12"), name).regions)


def test_regions_that_overlap_in_part_are_both_in_the_chain_the_wider_first() -> None:
    wide, narrow = Region("wide", 0, 100, "a", "b"), Region("narrow", 50, 120, "c", "d")
    tree = RegionTree(None, [narrow, wide])
    assert names(tree.chain(60)) == ["wide", "narrow"]
    assert names(tree.chain(110)) == ["narrow"]
    assert tree.parent(narrow) is None


SCRIPT = """
SECTIONS {
 .data : { _sdata = .; *(.data) first_odd = .; *(.odd.things) last_odd = .; __novel_start = .; *(.x) __novel_end = .;
   _edata = .; }
}
"""
IN_SCRIPT = {**IMAGE, "first_odd": 0x21000, "last_odd": 0x22000, "__novel_start": 0x22000, "__novel_end": 0x23000}


def test_the_script_names_pairs_that_have_no_common_name() -> None:
    tree = build_region_tree(IN_SCRIPT, "x86_64", parse_linker_script(SCRIPT, "build/arch/x86/kernel/vmlinux.lds"))
    odd = named(tree, "odd.things")
    assert (odd.start, odd.end, odd.source) == (0x21000, 0x22000, "linker script vmlinux.lds")


def test_the_scripts_word_goes_before_the_symbols_stem() -> None:
    assert "novel" in names(build_region_tree(IN_SCRIPT, "x86_64").regions)
    tree = build_region_tree(IN_SCRIPT, "x86_64", parse_linker_script(SCRIPT, "vmlinux.lds"))
    assert "novel" not in names(tree.regions)
    assert (named(tree, "x").start, named(tree, "x").end) == (0x22000, 0x23000)


def test_regions_of_one_extent_nest_as_the_script_opens_them() -> None:
    text = """SECTIONS { __start_ro_after_init = .; .a : { __start_rodata = .; *(.a) __end_rodata = .; }
        __end_ro_after_init = .; }"""
    symbols = {"__start_ro_after_init": 1, "__start_rodata": 1, "__end_rodata": 9, "__end_ro_after_init": 9}
    tree = build_region_tree(symbols, "x86_64", parse_linker_script(text, "vmlinux.lds"))
    assert names(tree.chain(1)) == ["ro_after_init", "rodata"]
    assert names(build_region_tree(symbols, "x86_64").chain(1)) == ["rodata", "ro_after_init"]


def test_a_script_of_another_kernel_adds_nothing_that_has_no_address() -> None:
    tree = build_region_tree(IMAGE, "x86_64", parse_linker_script(SCRIPT, "vmlinux.lds"))
    assert names(tree.regions) == names(build_region_tree(IMAGE, "x86_64").regions)


def test_a_symbol_table_made_to_be_slow_is_not() -> None:
    symbols = dict(IMAGE)
    for index in range(20_000):
        symbols[f"__start_x{index}"], symbols[f"__stop_x{index}"] = 0x20000 + index, 0x30000 - index
    before = time.process_time()
    build_region_tree(symbols, "x86_64")
    assert time.process_time() - before < 10  # about one second; without the limit it takes minutes


def test_five_thousand_candidates_take_milliseconds() -> None:
    symbols = symbols_of("amd64-6.12")
    symbols.update({f"some_label_{index}": 0xFFFFFFFF81000000 + index for index in range(5000)})
    before = time.process_time()
    build_region_tree(symbols, "x86_64")
    assert time.process_time() - before < 1  # measured: 3 ms; each with each other takes seconds
