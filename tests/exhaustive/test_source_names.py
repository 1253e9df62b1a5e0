"""The names of functions in the source, of a real kernel's symbols: those of DWARF, BTF and the kernel's own rule."""

from __future__ import annotations

import functools

import drgn
import pytest
from support.oracle import kernels
from support.sampling import Sampling

from kplug.image.btf import FUNC, Btf
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import open_vmlinux
from kplug.image.symbols.source_names import source_name
from kplug.image.symbols.symbol import Symbol

pytestmark = pytest.mark.kernel
KERNEL = "amd64-6.1"


@functools.cache
def image() -> KernelImage:
    return open_vmlinux(kernels.vmlinux(KERNEL))


@functools.cache
def renamed() -> list[Symbol]:
    """The functions to whose name the compiler added something."""
    table = image().symbols
    functions = (symbol for symbol in map(table.symbol, table.places()) if symbol.letter in "tTwW")
    return [symbol for symbol in functions if source_name(symbol.name).name != symbol.name]


def test_dwarf_has_the_same_names(sampling: Sampling) -> None:
    """The outermost function at the symbol's address. gcc's identical code folding leaves one of several names."""
    program = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    made = program.extra_module(KERNEL, create=True)
    module = made[0] if isinstance(made, tuple) else made  # a tuple up to drgn 0.2
    code = [section for section in image().sections if section.occupies_addresses and section.address]
    module.address_range = (min(section.address for section in code), max(section.end for section in code))
    module.try_file(kernels.vmlinux(KERNEL))
    asked = sampling.of(renamed(), 32)
    found = [program.source_location(symbol.address)[-1].name() for symbol in asked]
    other = [symbol.name for symbol, name in zip(asked, found) if source_name(symbol.name).name != name]
    assert len(asked) > 100
    assert len(other) <= 1 + len(asked) // 400, other


def test_btf_has_no_name_with_anything_added() -> None:
    """pahole writes functions by the names of their DWARF."""
    section = image().elf.section(".BTF")
    assert section is not None
    btf = Btf(image().elf.section_bytes(section), KERNEL)
    entries = [btf.type(number) for number in range(1, btf.count)]
    names = {entry.name for entry in entries if entry.kind == FUNC}
    assert len(names) > 40000
    assert {name for name in names if source_name(name).name != name} == set()


@pytest.mark.parametrize("name", [KERNEL, "amd64-sid"])
def test_the_kernels_rule_leaves_the_same(name: str, sampling: Sampling) -> None:
    """cleanup_symbol_name() in kernel/kallsyms.c (5.14): nothing from the first dot on."""
    with (kernels.root(name) / "System.map").open() as lines:
        rows = [line.split() for line in lines]
    functions = [row[2] for row in rows if row[1] in "tTwW"]
    changed = [
        each for each in functions if source_name(each).name != each and not each.startswith(("__pfx_", "__cfi_"))
    ]
    assert len(changed) > 1000
    assert [each for each in changed if source_name(each).name != each.partition(".")[0]] == []
