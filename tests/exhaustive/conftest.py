"""Fixtures: each real kernel once, with its oracle and kplug's image of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The tests run from a checkout that is not installed, too.
_TESTS = Path(__file__).resolve().parents[1]
for _folder in (str(_TESTS), str(_TESTS.parent)):
    if _folder not in sys.path:
        sys.path.insert(0, _folder)

from oracle import kernels  # noqa: E402

from exhaustive.comparison import Subject  # noqa: E402


@pytest.fixture(scope="module", params=(*kernels.NAMES, "riscv64-6.12"))
def subject(request: pytest.FixtureRequest) -> Subject:
    """One kernel: what the oracle knows of it and what kplug does. Some 300 MB, so only one at a time."""
    return Subject(kernels.vmlinux(request.param))
