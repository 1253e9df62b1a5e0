"""Kernels whose guests were asked about themselves: their truth stands for a running machine's /proc and /sys."""

from __future__ import annotations

import pytest
from support.saved_trees import Guest

KERNELS = ("amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12")


@pytest.fixture(scope="session", params=KERNELS)
def guest(request: pytest.FixtureRequest) -> Guest:
    from vmimages import dumps, fetch

    files = fetch(request.param, quiet=True)
    made = dumps(request.param, quiet=True)
    return Guest(files, made.truth.root, made.truth.symbols)
