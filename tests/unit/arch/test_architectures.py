"""The registry: an architecture is one, by whichever name a file, a dump or a machine has for it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kplug.arch import registry
from kplug.image.elf.header_only import bare_elf
from kplug.memory.dump_header import read_header

DECLARED = {architecture.name: architecture for architecture in registry.declared()}


def core(path: Path, machine: int, bits: int, order: str) -> str:
    """An ELF core file with one segment of no bytes."""
    identification = b"\x7fELF" + bytes((bits // 32, 1 if order == "<" else 2, 1))
    if bits == 64:
        header = struct.pack(order + "16sHHIQQQIHHHHHH", identification, 4, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        segment = struct.pack(order + "IIQQQQQQ", 1, 6, 0, 0, 0, 0, 0, 0)
    else:
        header = struct.pack(order + "16sHHIIIIIHHHHHH", identification, 4, machine, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        segment = struct.pack(order + "8I", 1, 0, 0, 0, 0, 0, 6, 0)
    path.write_bytes(header + segment + bytes(64))
    return str(path)


@pytest.mark.parametrize("name", DECLARED)
def test_a_vmlinux_and_its_dump_are_of_one_architecture(name: str, tmp_path: Path) -> None:
    """A vmlinux of riscv64 or s390x was refused for its own dump."""
    architecture = DECLARED[name]
    for machine in architecture.names.elf:
        assert bare_elf("vmlinux", name, machine.bits).machine == name
        for byte_order in architecture.byte_orders:
            dump = core(tmp_path / "core", *machine, "<" if byte_order == "little" else ">")
            assert read_header(dump).machine == name


def test_a_list_of_symbols_that_does_not_tell_is_of_no_architecture() -> None:
    """It was of one called "none", and refused for a dump of any other."""
    assert bare_elf("System.map", "", 32).machine == ""


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("i486", "i386"), ("i686", "i386"), ("armv7l", "arm"), ("amd64", "x86_64"), ("x86-64", "x86_64"),
        ("arm64", "aarch64"), ("aarch64_be", "aarch64"), ("ppc64le", "ppc64"), ("ppc64el", "ppc64"),
        ("armhf", "arm"), ("s390x", "s390x"), ("riscv64", "riscv64"), ("loong64", "loongarch64"),
        ("i386:x86-64", "x86_64"), ("riscv:rv64", "riscv64"),
    ],
)  # fmt: skip
def test_what_people_and_programs_call_it(word: str, name: str) -> None:
    found = registry.by_word(word)
    assert found is not None
    assert found.name == name


def test_the_class_tells_two_of_one_number_apart() -> None:
    names = [
        each and each.name for each in (registry.by_elf(243, 64), registry.by_elf(243, 32), registry.by_elf(8, 64))
    ]
    assert names == ["riscv64", "riscv32", "mips64"]


def test_no_two_declarations_have_the_same_name_in_a_format() -> None:
    for names in (
        [name for each in DECLARED.values() for name in {each.name, *each.names.uname, *each.names.debian}],
        [machine for each in DECLARED.values() for machine in each.names.elf],
        [each.names.drgn for each in DECLARED.values() if each.names.drgn],
        [name for each in DECLARED.values() for name in each.names.gdb],
        [each.names.pe for each in DECLARED.values() if each.names.pe],
        [each.names.uimage for each in DECLARED.values() if each.names.uimage],
    ):
        assert len(names) == len(set(names))


def test_an_architecture_that_nobody_declared_has_nothing_declared() -> None:
    assert registry.find("vax") is None
    unknown = registry.named("vax")
    assert (unknown.name, unknown.memory_map, unknown.poison_deltas) == ("vax", None, ())
    assert registry.find("registry") is None
    assert registry.find("types") is None
