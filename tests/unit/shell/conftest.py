"""A small vmlinux and a module at the shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.elf_builder import FUNC, LOCAL, Sym, small_vmlinux


@pytest.fixture(scope="package")
def vmlinux(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("cli") / "vmlinux"
    path.write_bytes(bytes(small_vmlinux()))
    return str(path)


@pytest.fixture
def module(tmp_path: Path) -> str:
    elf = small_vmlinux(type=1, segments=[])
    for section in elf.sections:
        section.address = 0
    elf.symbols = [Sym("mod_open", 0x8, 0x20, ".text", FUNC, LOCAL), Sym("mod_data", 0, 8, ".data", 1)]
    path = tmp_path / "my-mod.ko"
    path.write_bytes(bytes(elf))
    return str(path)


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    """`main` turns the collector off for its short life; these tests live on."""
    import gc

    yield
    gc.enable()
