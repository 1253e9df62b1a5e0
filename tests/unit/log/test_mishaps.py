"""Real events of real kernels: what is found in each log of `tests/data/logs/mishaps`, held against what the module
that had it happen said of it (`support.mishaps`). `vm-images/vm.py mishaps NAME -o FOLDER` makes such logs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.mishaps import MEANT, answers, truths

from kplug.log import events

LOGS = {path.stem: path for path in sorted((Path(__file__).parents[2] / "data" / "logs" / "mishaps").glob("*.log"))}
WAYS = {name: next(way for way in MEANT if name.endswith(f"-{way}")) for name in LOGS}


@pytest.mark.parametrize("name", LOGS)
def test_what_happened(name: str) -> None:
    log = LOGS[name].read_bytes()
    expected = truths(WAYS[name], name.partition("-")[0], log.decode())
    assert expected
    assert answers(log, expected) == expected
    assert len(list(events(log.split(b"\n")))) == len(expected)


def test_each_way_is_in_some_log() -> None:
    assert set(WAYS.values()) == set(MEANT)
