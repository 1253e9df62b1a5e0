"""Which tests stay in one process when several run them, and which come first."""

from __future__ import annotations

from pathlib import Path

from support.paths import TESTS


def group_of(file: Path) -> str:
    """The tests of a file stay together; those of a folder too whose files share a guest or a dump that is open."""
    folder = file.parent
    return str((folder if (folder / "conftest.py").exists() else file).relative_to(TESTS))
