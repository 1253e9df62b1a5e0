"""Dumps of amd64 kernels for questions about memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.memory_dumps import MemoryDump

_WHOLE = ("test_page_owner.py", "test_sweeps_damaged.py")


@pytest.fixture(scope="package", params=["amd64-6.1", "amd64-6.12", "amd64-6.12 alone"])
def dumped(request: pytest.FixtureRequest) -> MemoryDump:
    """With the vmlinux, and alone: by the symbols and types that the kernel has in its memory."""
    name, _, alone = request.param.partition(" ")
    return MemoryDump.open(name, vmlinux=not alone)


@pytest.fixture(scope="package")
def isolated() -> MemoryDump:
    """With page-table isolation, under which the kernel unmaps what it freed of its image."""
    return MemoryDump.open("amd64-6.12", pti=True)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What takes minutes, or a kernel that is built for it, is asked by `make test-all` alone."""
    return (collection_path.name in _WHOLE and not config.option.whole) or None
