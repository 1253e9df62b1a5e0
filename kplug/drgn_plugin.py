"""The k-commands at drgn's own prompt: `%kwhere`, `%ksym`, ...

drgn loads this module in every process that opens a program (entry points of the group `drgn.plugins`). So it imports
nothing from kplug: the commands' declarations and everything else are imported by the first `%k...` that is typed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from drgn.commands import DEFAULT_COMMAND_NAMESPACE, CommandArgumentError, CommandError, ParsedCommand, ShellRedirection

if TYPE_CHECKING:
    import argparse

    from drgn import Program

    from kplug.commands.base import Command, Parser
    from kplug.commands.words import Line

# The names at the prompt of all commands in kplug.commands.COMMANDS, which would have to be imported for them.
NAMES = (
    *("kwhere", "kregs", "kstack", "kx", "ksym", "kregions", "ksections", "ksegments", "kmap", "kmod"),
    *("klog", "kinfo", "knotes", "kaslr", "kplug"),
)


class DrgnCommand:
    """One k-command, with the interface of drgn's commands (`drgn.commands.Command`). Imports nothing before use."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def command(self) -> Command:
        """The declaration that all prompts share."""
        from kplug.commands import COMMANDS

        return next(command for command in COMMANDS.values() if command.host_name == self._name)

    def description(self) -> str:
        return self.command.summary

    def format_usage(self) -> str:
        return self._parser().format_usage()[len("usage: ") :].rstrip()

    def format_help(self, *, indent: str = "") -> str:
        import textwrap

        parser = self._parser()
        return textwrap.indent(parser.format_help()[len(parser.format_usage()) :].strip(), indent)

    def enabled(self, prog: Program) -> bool:
        # Always: for a program that is not a kernel, the command's error says more than "command not found".
        return True

    def parse(self, source: str, /) -> ParsedCommand[Line]:
        """The words, as at kplug's own prompt: `&init_task` and `(long)x` need no quotes; `|` and `>` work as usual."""
        from kplug.commands.words import split_for
        from kplug.errors import UsageError

        try:
            line = split_for(self.command, self._parser(), source)
        except UsageError as error:
            raise SyntaxError(str(error)) from None
        files = () if line.file is None else (ShellRedirection(1, ">>" if line.append else ">", line.file),)
        return ParsedCommand(line, files, line.pipeline)

    def run(self, prog: Program, name: str, line: Line, /, *, globals: dict[str, Any], **_: Any) -> None:
        """Answer. What cannot be answered is a CommandError of one line, raised after everything else was shown."""
        from kplug.commands.base import HelpRequestedError
        from kplug.errors import KplugError, UsageError

        try:
            self._answer(prog, line, globals)
        except HelpRequestedError as text:
            print(text, end="")
        except UsageError as error:
            message = str(error)
            raise CommandArgumentError(message if message.startswith(name) else f"{name}: {message}") from None
        except KplugError as error:
            raise CommandError(str(error)) from None

    def _parser(self) -> Parser:
        return self.command.parser(self._name)

    def _answer(self, prog: Program, line: Line, names: dict[str, Any]) -> None:
        from kplug.commands.words import with_expressions
        from kplug.runtime.attached import evaluating, session_for

        parser = self._parser()
        arguments = parser.parse_args(line.words)
        session = session_for(prog)
        with evaluating(session, names):
            if self._name == "kwhere":
                arguments = with_expressions(arguments, line.text, parser, session.places)
            _show(self.command.run(session, arguments), arguments)


def _show(outputs: Any, arguments: argparse.Namespace) -> None:
    """Print the outputs as they come. The last problem becomes the command's error, after everything else."""
    from kplug.outputs import Problem
    from kplug.render.safe import safe
    from kplug.render.show import Renderer

    renderer = Renderer(arguments, _style())
    problems, pending = 0, ""
    for output in outputs:
        if pending:
            print(f"drgn: error: {pending}", file=sys.stderr)
            pending = ""
        if isinstance(output, Problem):
            problems += 1
            pending = safe(output.message)
            continue
        for text in renderer.lines(output):
            print(text)
    if pending:
        raise CommandError(pending)
    if problems:
        raise CommandError(f"{problems} of the above could not be answered")


def _style() -> Any:
    """Colours on a terminal that has them, unless NO_COLOR is set (no-color.org)."""
    import os

    from kplug.render.style import COLOURED, PLAIN

    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return COLOURED if wanted else PLAIN


for _name in NAMES:
    DEFAULT_COMMAND_NAMESPACE.register(_name, DrgnCommand(_name))
