"""The words of a command line in gdb: gdb splits them, the command's own parser reads them."""

from __future__ import annotations

import argparse

import gdb
from kplug.commands.base import Command, Parser
from kplug.errors import UsageError
from kplug_gdb import names
from kplug_gdb.settings import SETTINGS


def parse(command: Command, parser: Parser, line: str) -> argparse.Namespace:
    """The arguments of a line. UsageError if they are wrong."""
    from kplug.commands.words import pasted  # defining the commands does not need what this imports

    log_line = pasted(line, parser) if command.words == "expressions" else None
    if log_line is not None:
        return parser.parse_args(log_line)
    if line.count('"') % 2:
        raise UsageError(f'{parser.prog}: a " is not closed')
    return parser.parse_args(gdb.string_to_argv(line))


def parser_of(command: Command) -> Parser:
    """The command's parser, with the options and the help text for gdb alone."""
    name = names.shown(command)
    if (command.name, name) not in _parsers:
        _parsers[command.name, name] = _made(command, name)
    return _parsers[command.name, name]


# By the command's name in the core, and here.
_parsers: dict[tuple[str, str], Parser] = {}


def _made(command: Command, name: str) -> Parser:
    more = _IN_GDB.get(command.name, "").format(name=name, prefix=SETTINGS.prefix)
    parser = command.parser(name, more)
    if command.name == "kaslr":
        parser.add_argument(
            "--apply", action="store_true", help="give gdb itself the moved symbols, for bt, break and p"
        )
    return parser


# Shown after the examples.
_IN_GDB = {
    "where": """  {name} *(void **)$sp           a gdb expression

Without EXPR it asks about $pc. Anything else is evaluated by gdb: $rdi + 8, &init_task.comm.
In gdb's own expressions the answers are values: ${prefix}where(ADDRESS), ${prefix}section, ${prefix}region,
${prefix}class ("help function").""",
    "kaslr": "  {name} --apply  move gdb's own symbols to where the kernel is",
}
