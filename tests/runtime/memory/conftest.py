"""Dumps of amd64 kernels for questions about memory."""

from __future__ import annotations

import pytest
from support.memory_dumps import MemoryDump


@pytest.fixture(scope="package", params=["amd64-6.1", "amd64-6.12", "amd64-6.12 alone"])
def dumped(request: pytest.FixtureRequest) -> MemoryDump:
    """With the vmlinux, and alone: by the symbols and types that the kernel has in its memory."""
    name, _, alone = request.param.partition(" ")
    return MemoryDump.open(name, vmlinux=not alone)


@pytest.fixture(scope="package")
def isolated() -> MemoryDump:
    """With page-table isolation, under which the kernel unmaps what it freed of its image."""
    return MemoryDump.open("amd64-6.12", pti=True)
