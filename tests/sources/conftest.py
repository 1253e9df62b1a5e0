"""Each of Debian's kernels once: its full vmlinux, to which the answers from all other sources are compared."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parents[1]
for _folder in (str(_TESTS), str(_TESTS.parent), str(_TESTS.parent / "vm-images")):
    if _folder not in sys.path:
        sys.path.insert(0, _folder)

from oracle import kernels  # noqa: E402

from sources.full import Full  # noqa: E402


@pytest.fixture(scope="module", params=kernels.ALL)
def full(request: pytest.FixtureRequest) -> Full:
    """One kernel with its vmlinux. Some 300 MB, so only one at a time."""
    return Full(request.param)
