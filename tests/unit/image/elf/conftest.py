"""A file that is written again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """Writes a file and gives its path; the same one each time."""
    path = tmp_path / "vmlinux"

    def write(data: bytes) -> str:
        path.write_bytes(data)
        return str(path)

    yield write
    path.unlink(missing_ok=True)
