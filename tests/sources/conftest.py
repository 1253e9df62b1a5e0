"""Each of Debian's kernels once: its full vmlinux, to which the answers from all other sources are compared."""

from __future__ import annotations

import pytest
from support.full_vmlinux import Full
from support.oracle import kernels


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    kernels.parametrize(metafunc, "full", kernels.ALL)


@pytest.fixture(scope="package")
def full(request: pytest.FixtureRequest) -> Full:
    """One kernel with its vmlinux. Some 300 MB, so only one at a time."""
    return Full(request.param)
