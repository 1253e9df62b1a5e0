"""Showing a command's outputs through gdb: its pager, and its own setting of colours."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable

import gdb
from kplug.outputs import Output, Problem
from kplug_gdb.settings import SETTINGS

# gdb's value for lines of unlimited length.
_UNLIMITED = 1 << 15


def styled(from_tty: bool) -> bool:
    """Whether to use colours: `set kplug color`, else gdb's `set style enabled` if output goes to the user's terminal.

    gdb does not say where its output goes. The output of typed commands goes to the terminal, except with `pipe`, which
    the history shows; a script may capture the output of its commands.
    """
    if SETTINGS.color != "auto":
        return SETTINGS.color == "on"
    return bool(gdb.parameter("style enabled")) and os.environ.get("TERM", "dumb") != "dumb" and _is_seen(from_tty)


def _is_seen(from_tty: bool) -> bool:
    """Whether the output goes to the terminal, as far as gdb shows it."""
    return from_tty and os.isatty(1) and not _piped()


def _width(from_tty: bool) -> int | None:
    """The width of tables: gdb's `set width`, on a terminal only."""
    width = gdb.parameter("width") if _is_seen(from_tty) else None
    return width if isinstance(width, int) and 0 < width < _UNLIMITED else None


def _piped() -> bool:
    typed = (gdb.execute("show commands", to_string=True).strip().splitlines() or [""])[-1]
    return re.match(r"\s*\d+\s+(?:\||pip)", typed) is not None


def show(outputs: Iterable[Output], arguments: argparse.Namespace, from_tty: bool) -> None:
    """Write the outputs as they come. Problems become gdb's error, after everything else."""
    from kplug.render.show import Renderer
    from kplug.render.style import COLOURED, PLAIN

    renderer = Renderer(arguments, COLOURED if styled(from_tty) else PLAIN, _width(from_tty))
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
