"""Fixtures: each real kernel once, with its oracle and kplug's image of it."""

from __future__ import annotations

from functools import partial

import pytest
from support.oracle import kernels
from support.oracle_comparison import Subject


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kernels.parametrize(metafunc, "subject", (*kernels.NAMES, "riscv64-6.12"))
    kernels.parametrize(metafunc, "modules_of", kernels.NAMES)


@pytest.fixture(scope="package")
def subject(request: pytest.FixtureRequest) -> Subject:
    """One kernel: what the oracle knows of it and what kplug does. Some 300 MB, so only one at a time."""
    return Subject(kernels.vmlinux(request.param), least=partial(kernels.least, request.param))


@pytest.fixture(scope="package")
def modules_of(request: pytest.FixtureRequest) -> str:
    """The name of a kernel whose modules are asked."""
    return str(request.param)
