"""Sections, segments, their mapping and the symbols of real kernels and modules: as readelf and nm print them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.oracle import binutils, kernels
from support.oracle_comparison import Subject
from support.oracle_tables import assert_as_readelf, assert_symbols_as_nm

from kplug.image.elf.file import ElfFile
from kplug.image.kernel_image import KernelImage

pytestmark = pytest.mark.kernel

MODULES_OF_A_KERNEL = 12


def test_a_kernel_as_readelf(subject: Subject) -> None:
    assert_as_readelf(subject.path)
    # The image's own view is the same.
    names = [[section.name for section in row] for row in subject.image.section_to_segment]
    assert names == binutils.mapping(subject.path)


def test_every_symbol_of_a_kernel_as_nm(subject: Subject) -> None:
    assert len(subject.oracle.symbol_rows) > 100_000
    assert_symbols_as_nm(subject.image, subject.oracle.symbol_rows)


@pytest.mark.parametrize("name", kernels.NAMES)
def test_modules_as_readelf_and_nm(name: str, tmp_path: Path) -> None:
    paths = kernels.modules(name, MODULES_OF_A_KERNEL, tmp_path)
    assert len(paths) > MODULES_OF_A_KERNEL
    for path in paths:
        assert_as_readelf(path)
        assert_symbols_as_nm(KernelImage(ElfFile(path)), binutils.symbols(path))
