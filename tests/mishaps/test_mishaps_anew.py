"""Everything that the module `mishaps` has happen, in kernels booted for it: what kplug says of each log."""

from __future__ import annotations

import pytest
from support.mishaps import answers, truths

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


@pytest.mark.parametrize("name", ["amd64-6.1", "amd64-6.12", "amd64-sid", "arm64-6.12"])
def test_what_happened(name: str) -> None:
    from vmimages.mishaps import mishap_logs

    found, expected = {}, {}
    for way, log in mishap_logs(name, quiet=True):
        expected[way] = truths(way, name.partition("-")[0], log)
        found[way] = answers(log.encode(), expected[way])
    assert len(found) > 30
    assert all(expected.values())
    assert found == expected
