"""What the unit tests share. They run from a checkout that is not installed, too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parents[1]
for _folder in (str(_TESTS), str(_TESTS.parent)):
    if _folder not in sys.path:
        sys.path.insert(0, _folder)

from bounded_kplug import BoundedKplug  # noqa: E402


@pytest.fixture(scope="session")
def kplug() -> Iterator[BoundedKplug]:
    """The command line, in a child that has 1 GiB of address space."""
    bounded = BoundedKplug()
    yield bounded
    bounded.close()
