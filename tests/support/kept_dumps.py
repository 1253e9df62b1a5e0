"""The dumps of a kernel in all formats, out of the cache of vm-images."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vmimages import DumpSet


@lru_cache
def dumped(name: str) -> DumpSet:
    from vmimages import dumps

    return dumps(name, quiet=True)


def dump(name: str, format: str) -> Path:
    files = dumped(name).paths
    if format not in files:
        pytest.skip(f"no tool here makes {format}")
    return Path(files[format])


def vmlinux(name: str) -> str:
    return str(dumped(name).files.vmlinux)
