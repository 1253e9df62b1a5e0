"""A kernel's own build tree: its link map and its linker script, against binutils' reading of what was built.

$KPLUG_BUILD_TREE names it (the O= folder); .ci/build-tree makes one in some minutes: `make test-all` has it do so.
"""

from __future__ import annotations

import os
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from kplug.linker.boundary_table import table_symbols
from kplug.linker.link_map import parse_link_map
from kplug.linker.region_builder import build_region_tree
from kplug.linker.script import Assignment
from kplug.linker.script_brackets import brackets
from kplug.linker.script_parser import read_linker_script

TREE = Path(os.environ.get("KPLUG_BUILD_TREE", "none"))
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not TREE.is_dir(), reason="a kernel is built by make test-all only"),
]


def run(*command: str) -> list[str]:
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@cache
def symbols() -> list[tuple[str, int, int, str, str]]:
    """(name, address, size, type, binding) of vmlinux's symbols, by readelf."""
    found = []
    for line in run("readelf", "-sW", "vmlinux"):
        words = line.split()
        if len(words) >= 8 and words[0].rstrip(":").isdigit() and words[6] not in ("UND", "ABS"):
            found.append((words[7], int(words[1], 16), int(words[2], 0), words[3], words[4]))
    return found


@cache
def definers() -> dict[str, set[str]]:
    """The object files that define each symbol, by nm. (Several may: static functions of one name.)"""
    objects = ["init/version-timestamp.o"]
    for archive in ("vmlinux.a", "lib/lib.a", "arch/x86/lib/lib.a"):
        objects += run("ar", "t", archive) if (TREE / archive).exists() else []
    found = defaultdict(set)
    for file in objects:
        for line in run("nm", file):
            words = line.split()
            if len(words) == 3 and words[1] not in "Uw":
                found[words[2]].add(file)
    return found


def test_the_object_file_of_every_symbol() -> None:
    link = parse_link_map(str(TREE / "vmlinux.map"))
    wrong, checked = [], 0
    for name, address, size, kind, _ in symbols():
        if size and kind in ("FUNC", "OBJECT") and name in definers():
            entry = link.at(address)
            checked += 1
            if entry is None or entry.object_file not in definers()[name]:
                wrong.append((name, hex(address), entry))
    assert checked > 10_000
    assert wrong == []


def test_the_regions_that_the_script_brackets() -> None:
    script = read_linker_script(str(next(TREE.glob("arch/*/kernel/vmlinux.lds"))))
    candidates = {
        name: address
        for name, address, size, kind, binding in symbols()
        if kind == "NOTYPE" and size == 0 and (binding != "LOCAL" or name in table_symbols())
    }
    tree = build_region_tree(candidates, TREE_MACHINE, script)
    spans = {(region.start, region.end) for region in (*tree.regions, *tree.empty)}
    missing = [
        bracket
        for bracket in brackets(script, known={"_text", "_end"} | _ONE_ENDED)
        if (candidates[bracket.start_symbol], candidates[bracket.end_symbol]) not in spans
    ]
    assert missing == []


def test_the_symbols_of_one_output_section_rise_as_the_script_assigns_them() -> None:
    script = read_linker_script(str(next(TREE.glob("arch/*/kernel/vmlinux.lds"))))
    addresses = {name: address for name, address, *_ in symbols()}
    checked = 0
    for section in script.sections:
        marks = [item for item in section.statements if isinstance(item, Assignment) and item.here]
        values = [addresses[mark.symbol] for mark in marks if mark.symbol in addresses]
        assert values == sorted(values), section.name
        checked += len(values)
    assert checked > 100


# What ends where the next one starts pairs up by position only; the table knows better.
_ONE_ENDED = {name for name in table_symbols() if name.endswith("_of_table") or name.startswith("__initcall")}
TREE_MACHINE = "x86_64"
