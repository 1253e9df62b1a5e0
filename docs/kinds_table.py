#!/usr/bin/env python3
"""Writes the tables of kinds in docs/json.md: each kind's row is what it declares of itself (kplug/kinds.py)."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import kplug.members  # noqa: E402  (it and what follows declare their kinds)
import kplug.resolver  # noqa: E402, F401
from kplug.kinds import all_kinds, details_text  # noqa: E402
from kplug.runtime.locators import registry  # noqa: E402

PAGE = ROOT / "docs" / "json.md"
HEADING = "| kind | details |"


def written(page: str) -> str:
    """The page with the table of kinds as it is declared."""
    registry.load()
    rows = [HEADING, "| --- | --- |", *(f"| `{kind.name}` | {details_text(kind)} |" for kind in all_kinds())]
    before, _, rest = page.partition(HEADING)
    _, _, after = rest.partition("\n\n")
    return f"{before}{chr(10).join(rows)}\n\n{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
