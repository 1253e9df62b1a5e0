"""Which tests stay in one process when several run them, and which come first."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from support.paths import TESTS

#: Folders whose files have fixtures in common that none of them keeps.
_FILES_APART = ("exhaustive",)


def group_of(file: Path) -> str:
    """The tests of a file stay together; those of a folder too whose files share a guest or a dump that is open."""
    folder = file.parent
    shared = (folder / "conftest.py").exists() and folder.name not in _FILES_APART
    return str((folder if shared else file).relative_to(TESTS))


class InGroups(LoadScopeScheduling):
    """Gives each process one group after the other, in their order.

    xdist's own --dist loadgroup writes the group into the test's node ID. pytest 9.2 has that elsewhere, so that the
    groups were lost: every process booted every guest and opened every dump.
    """

    def __init__(self, config: pytest.Config, log: object) -> None:
        config.option.loadscopereorder = False  # it would put the groups of many tests first, which are the fast ones
        super().__init__(config, log)
        self._root = config.rootpath

    def _split_scope(self, nodeid: str) -> str:
        return group_of(self._root / nodeid.partition("::")[0])
