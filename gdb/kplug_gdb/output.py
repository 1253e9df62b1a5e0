"""Showing a command's outputs through gdb: its pager, and its own setting of colours."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable

import gdb
from kplug.commands.base import Output, Problem
from kplug_gdb.settings import SETTINGS


def styled() -> bool:
    """Whether to use colours: `set kplug color`, else gdb's `set style enabled` on a terminal that takes them."""
    if SETTINGS.color != "auto":
        return SETTINGS.color == "on"
    return bool(gdb.parameter("style enabled")) and os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb"


def show(outputs: Iterable[Output], arguments: argparse.Namespace) -> None:
    """Write the outputs as they come. What could not be answered becomes gdb's error, after everything else."""
    from kplug.render.show import Renderer
    from kplug.render.text import COLOURED, PLAIN

    renderer = Renderer(arguments, COLOURED if styled() else PLAIN)
    problems = 0
    pending: str | None = None
    for output in outputs:
        if pending is not None:
            gdb.write(f"{pending}\n", gdb.STDERR)
            pending = None
        text = "\n".join(renderer.lines(output))
        if isinstance(output, Problem):
            problems += 1
            pending = text
        else:
            gdb.write(f"{text}\n")
    if pending is not None:
        raise gdb.GdbError(pending)
    if problems:
        raise gdb.GdbError(f"{problems} of the above could not be answered")
