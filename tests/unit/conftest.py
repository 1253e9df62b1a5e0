"""What the unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.bounded_kplug import BoundedKplug


@pytest.fixture(scope="session")
def kplug() -> Iterator[BoundedKplug]:
    """The command line, in a child that has 1 GiB of address space."""
    bounded = BoundedKplug()
    yield bounded
    bounded.close()
