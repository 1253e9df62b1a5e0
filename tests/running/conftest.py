"""Kernels whose guests were asked about themselves: their truth stands for a running machine's /proc and /sys."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

_HERE = Path(__file__).resolve()
sys.path.append(str(_HERE.parents[2] / "vm-images"))
sys.path.append(str(_HERE.parent))

if TYPE_CHECKING:
    from vmimages import KernelFiles
    from vmimages.truth import Symbol


class Guest(NamedTuple):
    """A kernel's files, what its guest said of itself, and the lines of that guest's /proc/kallsyms."""

    files: KernelFiles
    truth: Path
    symbols: Sequence[Symbol]


KERNELS = ("amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12")


@pytest.fixture(scope="session", params=KERNELS)
def guest(request: pytest.FixtureRequest) -> Guest:
    from vmimages import dumps, fetch

    files = fetch(request.param, quiet=True)
    made = dumps(request.param, quiet=True)
    return Guest(files, made.truth.root, made.truth.symbols)
