"""What the unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from support.bounded_kplug import BoundedKplug

# A busy machine is slow: hypothesis else fails an example that takes more than 200 ms.
settings.register_profile("kplug", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kplug")


@pytest.fixture(scope="session")
def kplug() -> Iterator[BoundedKplug]:
    """The command line, in a child that has 1 GiB of address space."""
    bounded = BoundedKplug()
    yield bounded
    bounded.close()
