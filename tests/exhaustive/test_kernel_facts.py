"""What is told of a kernel's files as a whole: `kplug info`, `kplug notes`, and the values that it poisons with.

Beside readelf, the bytes of the vmlinux, and the configuration that Debian has beside it.
"""

from __future__ import annotations

import re
from typing import Literal

import pytest
from support.oracle import binutils, kernels
from support.recorder import Recorder
from support.told_facts import info, put_together, same_header, same_notes, same_tables

from kplug.space.special import POISON, specials

pytestmark = pytest.mark.kernel

KERNELS = ("amd64-5.10", "amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kernel_name" in metafunc.fixturenames:
        metafunc.parametrize("kernel_name", metafunc.config.option.kernel or KERNELS)


def test_a_vmlinux_is_told_as_readelf_does(kernel_name: str, cell: Recorder) -> None:
    path = kernels.vmlinux(kernel_name)
    of_info = info(path)
    same_header(path, of_info.facts)
    same_tables(path, of_info)
    same_notes(path, of_info.rows("notes"))
    listed = re.search(r"Build ID: ([0-9a-f]+)", binutils.run("readelf", "-nW", path))
    assert listed is not None
    assert of_info.facts["build_id"] == listed[1]
    cell.compared("notes", len(of_info.rows("notes")))


def test_every_note_of_a_kernel_has_a_name_and_a_value(kernel_name: str) -> None:
    for row in info(kernels.vmlinux(kernel_name)).rows("notes"):
        assert row["name"] is not None
        assert row["value"] is not None


def test_the_notes_put_together_again_are_the_section(kernel_name: str) -> None:
    """Nothing is left out or made up: the bytes that readelf says .notes has."""
    [notes] = [section for section in binutils.sections(kernels.vmlinux(kernel_name)) if section.name == ".notes"]
    with open(kernels.vmlinux(kernel_name), "rb") as file:
        file.seek(notes.offset)
        data = file.read(notes.size)
    order: Literal["<", ">"] = ">" if binutils.byte_order(kernels.vmlinux(kernel_name)) == "big" else "<"
    assert put_together(info(kernels.vmlinux(kernel_name)).rows("notes"), order) == data


def test_the_banner_is_that_of_the_vmlinux(kernel_name: str) -> None:
    path = kernels.vmlinux(kernel_name)
    listed = (kernels.root(kernel_name) / "System.map").read_text()
    [place] = re.findall(r"^([0-9a-f]+) \w linux_banner$", listed, re.MULTILINE)
    expected = binutils.data(path, int(place, 16), 512).partition(b"\n")[0].decode()
    for file in ("vmlinux", "vmlinuz"):
        facts = info(str(kernels.root(kernel_name) / file)).facts
        assert facts["banner"] == expected
        assert facts["release"] == expected.split()[2]
        assert expected.endswith(facts["version"])


def test_a_vmlinuz_tells_what_its_vmlinux_does(kernel_name: str, cell: Recorder) -> None:
    packed, whole = info(str(kernels.root(kernel_name) / "vmlinuz")), info(kernels.vmlinux(kernel_name))
    keys = ("release", "version", "banner", "compiler", "linker", "build_id", "build_salt", "machine", "config")
    other = [key for key in keys if packed.facts[key] != whole.facts[key]]
    cell.compared("facts", len(keys), len(other))
    assert other == []
    said = [[(row["owner"], row["name"], row["value"]) for row in each.rows("notes")] for each in (packed, whole)]
    assert said[0] == said[1]


def test_poisoned_pointers_are_known_by_their_values(kernel_name: str) -> None:
    """include/linux/poison.h: LIST_POISON1 and 2 are POISON_POINTER_DELTA and 0x100, 0x122."""
    facts = info(kernels.vmlinux(kernel_name)).facts
    text = (kernels.root(kernel_name) / "config").read_text()
    configured = re.search(r"^CONFIG_ILLEGAL_POINTER_VALUE=(.*)$", text, re.MULTILINE)
    delta = int(configured[1], 16) if configured else 0
    for offset, name in ((0x100, "LIST_POISON1"), (0x122, "LIST_POISON2")):
        found = [each.name for each in specials(delta + offset, facts["machine"], None) if each.what == POISON]
        assert name in found


def test_error_pointers_have_the_width_of_the_kernel(kernel_name: str) -> None:
    facts = info(kernels.vmlinux(kernel_name)).facts
    bits = {"ELF32": 32, "ELF64": 64}[facts["class"]]
    found = specials((1 << bits) - 12, facts["machine"], None)
    assert [each.name for each in found] == ["ERR_PTR(-ENOMEM)"]
