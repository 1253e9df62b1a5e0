"""`kplug.open`: the one way in, as a program uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.elf_builder import BASE_64, small_vmlinux

import kplug
from kplug.errors import InputError, UsageError


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("open") / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    return str(path)


def test_a_kernel_as_linked_and_moved(vmlinux: str) -> None:
    linked, moved = kplug.open(vmlinux, kaslr_offset=0), kplug.open(vmlinux, kaslr_offset=0x200000)
    (answer,) = linked.where(hex(BASE_64))
    assert answer.link_address == answer.address == BASE_64
    (answer,) = moved.where(hex(BASE_64 + 0x200000))
    assert (answer.address, answer.link_address) == (BASE_64 + 0x200000, BASE_64)
    assert moved.resolver.bulk([BASE_64 + 0x200000]).symbol == linked.resolver.bulk([BASE_64]).symbol


@pytest.mark.parametrize(
    ("named", "error", "words"),
    [
        ({"vmlinux": "/nowhere/vmlinux"}, InputError, "/nowhere/vmlinux: No such file"),
        ({"core": "a", "qemu": "b"}, UsageError, "only one kernel"),
        ({"core": "a", "kallsyms": "b"}, UsageError, "memory already has the kernel's kallsyms"),
        ({"colour": "red"}, TypeError, "colour"),
    ],
)
def test_what_cannot_be_opened(named: dict[str, str], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        kplug.open(**named)


def test_an_offset_that_no_kernel_is_moved_by(vmlinux: str) -> None:
    with pytest.raises(UsageError, match="not a multiple of the page size"):
        kplug.open(vmlinux, kaslr_offset=0x123)


@pytest.mark.parametrize("offset", [1 << 32, -1 << 33])
def test_an_offset_that_the_machine_does_not_have(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(small_vmlinux(32)))
    with pytest.raises(UsageError, match=f"--kaslr {offset:#x}: an address of this kernel has 32 bits"):
        kplug.open(str(path), kaslr_offset=offset)
