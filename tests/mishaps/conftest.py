"""Minutes of guests, and of scripts: with --whole only."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return (collection_path.name.startswith("test_") and not config.option.whole) or None
