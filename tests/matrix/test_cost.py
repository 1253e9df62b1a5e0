"""What the first answer from a file costs: the processor's time, and memory."""

from __future__ import annotations

import pytest
from support.first_answer import first_answer
from support.oracle import kernels
from support.recorder import Recorder

pytestmark = pytest.mark.kernel

_OPTIONS = {"vmlinux": "-s", "vmlinuz": "--vmlinuz", "System.map": "--system-map"}


@pytest.mark.parametrize("source", _OPTIONS)
def test_the_first_answer(kernel: str, source: str, cell: Recorder) -> None:
    files = kernels.files(kernel)
    cell.about("release", files.release)
    first_answer(cell, _OPTIONS[source], files.root / source, kernel)
