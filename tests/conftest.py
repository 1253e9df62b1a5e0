"""What all tests need: Ctrl-C that children hear, and memory that is given back."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import pytest

# An open kernel takes some 200 MB, and is held by circles of references.
_COLLECTED_EACH = 1 << 29
_collected_at = 0


def pytest_configure() -> None:
    """Where tests run in the background of a shell, SIGINT is ignored, in the programs they start as well."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def _forget(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a file of tests keeps open for its tests in a cache is closed after them."""
    yield
    for value in vars(request.module).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    gc.collect()


def pytest_runtest_logfinish() -> None:
    global _collected_at
    if _memory() > _collected_at + _COLLECTED_EACH:
        gc.collect()
        _collected_at = _memory()


def _memory() -> int:
    """The bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
