"""A 6.1 and a 6.12, their dumps open once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.open_dumps import session_in

from kplug.runtime.drgn_target import DrgnTarget
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import DumpSet


@pytest.fixture(scope="package", params=["amd64-6.1", "amd64-6.12"])
def dumps(request: pytest.FixtureRequest) -> DumpSet:
    from vmimages import dumps

    return dumps(request.param, ("elf", "kdump-zlib", "makedumpfile-zlib-d31"), quiet=True)


@pytest.fixture(scope="package")
def session(dumps: DumpSet) -> Session:
    return session_in(dumps)


@pytest.fixture
def target(session: Session) -> Iterator[DrgnTarget]:
    assert isinstance(session.target, DrgnTarget)
    session.target.selection.select_cpu(0)
    yield session.target
    session.target.selection.select_cpu(0)
