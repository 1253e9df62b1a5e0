"""How the tests are dealt out to several processes."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

from support.groups import group_of


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
