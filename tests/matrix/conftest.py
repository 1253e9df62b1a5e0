"""Cells of the matrix of kernels: `make test` has none of them, `--kernel NAME` says which kernels they are of."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if not config.option.kernel else None
