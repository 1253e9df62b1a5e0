"""Cells of the matrix: `make test` has none of their tests, `--kernel NAME` says which kernel they are of."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.full_vmlinux import Full
from support.oracle import kernels


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if not config.option.kernel else None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kernels.parametrize(metafunc, "kernel", ())
    kernels.parametrize(metafunc, "full", ())


@pytest.fixture(scope="package")
def kernel(request: pytest.FixtureRequest) -> str:
    """The name of the kernel of the cell."""
    return str(request.param)


@pytest.fixture(scope="package")
def full(request: pytest.FixtureRequest) -> Full:
    """The kernel of the cell, with its vmlinux."""
    return Full(request.param)
