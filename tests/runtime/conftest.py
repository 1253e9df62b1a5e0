"""The dumps that many tests ask of: those of a 6.1 and of a 6.12, in all formats, from the cache if they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vmimages import DumpSet


def _made(name: str) -> DumpSet:
    from vmimages import dumps

    return dumps(name, ("elf",), quiet=True)


@pytest.fixture(scope="module", params=["amd64-6.1", "amd64-6.12"])
def dumps(request: pytest.FixtureRequest) -> DumpSet:
    return _made(request.param)


@pytest.fixture(scope="session")
def dumps_61() -> DumpSet:
    return _made("amd64-6.1")


@pytest.fixture(scope="session")
def dumps_612() -> DumpSet:
    return _made("amd64-6.12")


@pytest.fixture(scope="session")
def crashed() -> DumpSet:
    """A kernel that crashed: /proc/vmcore as its capture kernel copied it, and what makedumpfile makes of that."""
    from vmimages import kexec_dumps

    return kexec_dumps("amd64-6.1", quiet=True)
