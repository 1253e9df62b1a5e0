"""Which tests stay in one process of `make test`: what is booted or opened once must not be so in each."""

from __future__ import annotations

import pytest

pytest.importorskip("xdist")

from support.scheduler import InGroups


def test_the_tests_of_a_file_stay_together_and_of_a_folder_that_shares_fixtures(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytestconfig.option, "tx", ["2*popen"])
    monkeypatch.setattr(pytestconfig.option, "loadscopereorder", True)
    scheduler = pytestconfig.hook.pytest_xdist_make_scheduler(config=pytestconfig, log=None)
    assert isinstance(scheduler, InGroups)
    assert not pytestconfig.option.loadscopereorder  # the slowest come first
    groups = {
        "tests/live/test_live.py::test_vmalloc[amd64-6.1]": "live",
        "tests/live/test_live_without_option.py::test_nobody": "live",
        "tests/gdb/test_gdb_live.py::TestMoved::test_symbols": "gdb",
        "tests/exhaustive/test_info.py::test_modules[a::b]": "exhaustive",
        "tests/runtime/map/test_map.py::test_it": "runtime/map/test_map.py",
    }
    assert {test: scheduler._split_scope(test) for test in groups} == groups
