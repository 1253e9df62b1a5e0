"""The k-commands at gdb's prompt: the core's own, each a `gdb.Command`. What runs them is imported when one is run."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import gdb
from kplug.commands import COMMANDS
from kplug.commands.base import Command, HelpRequestedError
from kplug.errors import UsageError
from kplug.frozen import replace
from kplug.outputs import NamedFacts, Output
from kplug_gdb import words
from kplug_gdb.functions import FUNCTIONS
from kplug_gdb.guard import guard
from kplug_gdb.names import Owners, is_registered, shown


class KCommand(gdb.Command):
    """One command of the core. `define` makes a subclass for each, with the command's help as its docstring.

    `displaced` is the command of another plugin that had the name before.
    """

    command: Command

    def __init__(self, name: str, owners: Owners) -> None:
        super().__init__(name, gdb.COMMAND_DATA)
        self.displaced = owners.displaced(name)

    def invoke(self, argument: str, from_tty: bool) -> None:
        with guard():
            try:
                arguments = words.parse(self.command, words.parser_of(self.command), argument)
            except HelpRequestedError as text:
                gdb.write(str(text))
                return
            self.answer(arguments, argument, from_tty)

    def answer(self, arguments: argparse.Namespace, line: str, from_tty: bool) -> None:
        """Run the command and show its output."""
        from kplug_gdb.output import show
        from kplug_gdb.waiting import Waiting

        with Waiting() as waiting:
            show(waiting.each(self.outputs(arguments, line)), arguments, from_tty)

    def outputs(self, arguments: argparse.Namespace, line: str) -> Iterator[Output]:
        from kplug_gdb.host import HOST

        return self.command.run(HOST.session(), arguments)

    def complete(self, text: str, word: str | None) -> list[str] | int:
        if word is None:
            return []  # gdb asks for break characters first: its default ones
        from kplug_gdb import completion

        try:
            with guard():
                return completion.complete(self.command, text, word)
        except gdb.GdbError:
            return []  # no error messages while a line is being typed


class WhereCommand(KCommand):
    """kwhere: without arguments it asks about $pc, and a line of several words may be one expression."""

    def outputs(self, arguments: argparse.Namespace, line: str) -> Iterator[Output]:
        from kplug.commands.words import with_expressions
        from kplug_gdb.host import HOST
        from kplug_gdb.reading import has_process

        if not arguments.expressions and not has_process():
            raise UsageError(f"{shown(self.command)}: no address given, and without a target there is no $pc")
        session = HOST.session()
        parsed = with_expressions(arguments, line, words.parser_of(self.command), session.places)
        return self.command.run(session, parsed)


class KaslrCommand(KCommand):
    """kaslr: in gdb it can also move gdb's own symbols."""

    def answer(self, arguments: argparse.Namespace, line: str, from_tty: bool) -> None:
        if arguments.apply:
            from kplug_gdb.apply import apply
            from kplug_gdb.waiting import Waiting

            self.dont_repeat()
            with Waiting():
                message = apply()
            gdb.write(f"{message}\n")
            return
        super().answer(arguments, line, from_tty)

    def outputs(self, arguments: argparse.Namespace, line: str) -> Iterator[Output]:
        from kplug_gdb import linked
        from kplug_gdb.host import HOST

        session = HOST.session()
        for output in self.command.run(session, arguments):
            if isinstance(output, NamedFacts) and session.main is not None:
                facts = {**output.facts, "gdb": linked.description(session.main)}
                facts["ways"] = facts.pop("ways", [])  # the longest comes last
                if session.warnings:
                    facts["warnings"] = list(session.warnings)
                output = replace(output, facts=facts)
            yield output


class StatusCommand(KCommand):
    """kplug: shows what there is even if something is missing for answers."""

    def outputs(self, arguments: argparse.Namespace, line: str) -> Iterator[Output]:
        from kplug_gdb.host import HOST

        return self.command.run(HOST.status_session(), arguments)


_KINDS: dict[str, type[KCommand]] = {
    "where": WhereCommand,
    "kaslr": KaslrCommand,
    "kplug": StatusCommand,
}


class GivenUpCommand(gdb.Command):
    """A name that kplug no longer uses: gdb cannot take a command away."""

    def __init__(self, name: str, new: str) -> None:
        super().__init__(name, gdb.COMMAND_OBSCURE)
        self._message = f"{name}: kplug calls this {new} now (`show kplug prefix`)"

    def invoke(self, argument: str, from_tty: bool) -> None:
        raise gdb.GdbError(self._message)


_defined: dict[str, KCommand] = {}


def define_all() -> None:
    """Register the commands and functions under the names that they have with the current prefix, and give up those
    that they had before. It is said whose names were taken, unless an earlier loading said so.
    """
    before = dict(_defined)
    _defined.clear()
    owners = Owners([shown(command) for command in COMMANDS.values()])
    for command in COMMANDS.values():
        _defined[shown(command)] = _kind_of(command)(shown(command), owners)
    for function in FUNCTIONS:
        function()
    for name, defined in before.items():
        if name not in _defined and is_registered(defined) and not (defined.displaced and defined.displaced.put_back()):
            GivenUpCommand(name, shown(defined.command))
    if owners.taken:
        gdb.write(
            f"kplug: took over from other plugins: {', '.join(owners.taken)} "
            "(`set kplug prefix PREFIX` gives kplug's commands other names, and those back)\n"
        )


def rename() -> None:
    """Use the current prefix, if the commands are defined already."""
    if _defined:
        define_all()


def _kind_of(command: Command) -> type[KCommand]:
    kind = _KINDS.get(command.name, KCommand)
    return type(f"K{command.name}", (kind,), {"command": command, "__doc__": help_text(command)})


def help_text(command: Command) -> str:
    """The text of `help kwhere`. Its first line is shown by `help data` and `apropos`."""
    summary = command.summary[0].upper() + command.summary[1:]
    summary += "" if summary.endswith((".", "?")) else "."
    return f"{summary}\n\n{words.parser_of(command).format_help().rstrip()}"
