"""The words of a command line in gdb: gdb splits them, the command's own parser reads them."""

from __future__ import annotations

import argparse

import gdb
from kplug.commands.base import Command, Parser
from kplug.errors import UsageError


def parse(command: Command, parser: Parser, line: str) -> argparse.Namespace:
    """The arguments of a line. UsageError if they are wrong."""
    if line.count('"') % 2:
        raise UsageError(f'{parser.prog}: a " is not closed')
    return parser.parse_args(gdb.string_to_argv(line))
