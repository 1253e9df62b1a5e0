"""The names that distributions declare, beside what Python's own importlib.metadata finds."""

from __future__ import annotations

import sys
from importlib.metadata import distributions
from pathlib import Path

from kplug.entry_points import declared_names

TEXT = """
[console_scripts]
drgn.plugins = other:main

[drgn.plugins]
# last = commented:out
first = one.module
second=another.module:attribute [extra]

[drgn.plugins.more]
third = one.module
"""


def test_names_are_those_of_the_group_alone(tmp_path: Path) -> None:
    for name in ("one-1.0.dist-info", "two-2.0.egg-info", "two", "broken-1.0.dist-info"):
        (tmp_path / name).mkdir()
    (tmp_path / "one-1.0.dist-info" / "entry_points.txt").write_text(TEXT)
    (tmp_path / "two-2.0.egg-info" / "entry_points.txt").write_text("[drgn.plugins]\nfourth = two\n")
    (tmp_path / "two" / "entry_points.txt").write_text("[drgn.plugins]\nno_distribution = two\n")
    assert declared_names("drgn.plugins", [str(tmp_path), str(tmp_path / "none")]) == {"first", "second", "fourth"}
    assert declared_names("drgn", [str(tmp_path)]) == frozenset()


def test_what_is_installed_here_is_as_python_finds_it() -> None:
    found = {entry.name for each in distributions() for entry in each.entry_points if entry.group == "console_scripts"}
    assert declared_names("console_scripts", sys.path) == found
