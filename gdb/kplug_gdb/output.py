"""Showing a command's outputs through gdb: its pager, and its own setting of colours."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable

import gdb
from kplug.commands.base import Output, Problem
from kplug_gdb.settings import SETTINGS


def styled(from_tty: bool) -> bool:
    """Whether to use colours: `set kplug color`, else gdb's `set style enabled` where the user's terminal shows it.

    gdb does not say where its output goes. What is typed at the prompt goes to the terminal, but for `pipe`, which the
    history tells of; what a script executes may be kept by it.
    """
    if SETTINGS.color != "auto":
        return SETTINGS.color == "on"
    if not from_tty or not gdb.parameter("style enabled"):
        return False
    return os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb" and not _piped()


def _piped() -> bool:
    typed = (gdb.execute("show commands", to_string=True).strip().splitlines() or [""])[-1]
    return re.match(r"\s*\d+\s+(?:\||pip)", typed) is not None


def show(outputs: Iterable[Output], arguments: argparse.Namespace, from_tty: bool) -> None:
    """Write the outputs as they come. What could not be answered becomes gdb's error, after everything else."""
    from kplug.render.show import Renderer
    from kplug.render.text import COLOURED, PLAIN

    renderer = Renderer(arguments, COLOURED if styled(from_tty) else PLAIN)
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
