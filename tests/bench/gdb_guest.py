"""gdb on a stopped QEMU guest with KASLR: tests/gdb/measure.py. A command's time is taken inside gdb."""

from __future__ import annotations

import sys

from bench.report import Report
from bench.setting import ROOT, Setting

# What is measured, how it is called there, and its limit in milliseconds.
_ROWS = (
    ("source kplug.py", "load", 40),
    ("first kwhere after connecting", "first", 1000),
    ("next kwhere, same address, no line", "next", 2),
    ("next kwhere, other addresses, no line", "next, other addresses", 2),
    ("next kwhere, with its source line", "next, with lines", None),
)


def gdb(report: Report, setting: Setting) -> None:
    sys.path.append(str(ROOT / "tests" / "gdb"))
    import measure

    report.section(f"gdb on a stopped guest of {setting.kernel}")
    found = measure.runs(setting.kernel)
    for what, name, limit in _ROWS:
        report.processor(what, found[name], found[f"{name}, processor"], limit)
