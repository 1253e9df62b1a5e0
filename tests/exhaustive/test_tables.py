"""Sections, segments, their mapping and the symbols of real kernels and modules: as readelf and nm print them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.oracle import binutils, kernels
from support.oracle_comparison import Subject
from support.oracle_tables import assert_as_readelf, assert_symbols_as_nm
from support.recorder import Recorder

from kplug.image.elf.file import ElfFile
from kplug.image.kernel_image import KernelImage

pytestmark = pytest.mark.kernel

MODULES_OF_A_KERNEL = 12


def test_a_kernel_as_readelf(subject: Subject, cell: Recorder) -> None:
    assert_as_readelf(subject.path)
    cell.compared("sections", len(subject.oracle.section_rows))
    cell.compared("segments", len(subject.elf.segments))
    # The image's own view is the same.
    names = [[section.name for section in row] for row in subject.image.section_to_segment]
    assert names == binutils.mapping(subject.path)


def test_every_symbol_of_a_kernel_as_nm(subject: Subject, cell: Recorder) -> None:
    assert len(subject.oracle.symbol_rows) > subject.least(60_000)
    assert_symbols_as_nm(subject.image, subject.oracle.symbol_rows, subject.oracle.letter)
    cell.compared("symbols", len(subject.oracle.symbol_rows))


def test_modules_as_readelf_and_nm(modules_of: str, tmp_path: Path) -> None:
    paths = kernels.modules(modules_of, MODULES_OF_A_KERNEL, tmp_path)
    if not paths:
        pytest.skip(f"of {modules_of} the kernel alone is fetched")
    assert len(paths) >= kernels.least(modules_of, MODULES_OF_A_KERNEL + 1)
    for path in paths:
        assert_as_readelf(path)
        assert_symbols_as_nm(KernelImage(ElfFile(path)), binutils.symbols(path))
