"""A command, the same at every prompt: a declaration and a function that yields outputs.

A front end passes a `Session` and the parsed words, and shows the outputs; it decides nothing else.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from kplug.errors import UsageError
from kplug.frozen import Frozen
from kplug.outputs import Output

if TYPE_CHECKING:
    from kplug.session import Session


class HelpRequestedError(Exception):
    """-h was given: `str()` is the help to show. Not a failure."""


T = TypeVar("T")


def _in_english(work: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Do it with argparse's own words as they are. It looks for files with a translation of each of them, every time,
    which is a large part of what a parser takes; what kplug says is English."""
    names = vars(argparse)
    former, names["_"] = names["_"], str
    try:
        return work(*arguments, **options)
    finally:
        names["_"] = former


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal. argparse finds the width for each argument, with imports that take milliseconds."""

    def __init__(self, prog: str, **options: Any) -> None:
        try:
            width = os.get_terminal_size().columns - 2
        except (OSError, ValueError):
            width = 100
        super().__init__(prog, **{"width": max(width, 40), **options})


class Parser(argparse.ArgumentParser):
    """argparse that raises errors for the front end to show, instead of printing and exiting."""

    def __init__(self, **options: Any) -> None:
        _in_english(super().__init__, **options)

    def format_help(self) -> str:
        return _in_english(super().format_help)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (try {self.prog} --help)")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """As argparse's, but options may stand between the words as well: `schedule -b jiffies`."""
        found, extra = self.parse_known_args(args)
        return self.parse_intermixed_args(args) if extra else found

    def print_help(self, file: Any = None) -> None:
        raise HelpRequestedError(self.format_help())


class Command(Frozen):
    """One k-command. `name` is the shell's word; in debuggers a `k` goes before it (see `host_name`).

    `add_arguments` declares its arguments, the same at every prompt; `examples` are lines without the command's name;
    `takes_symbols` says that its words complete as symbols, `takes_modules` as the names of loaded modules. `words` is
    the name of the argument with the words to answer, "" if there is none; a front end may pass an iterator for it (at
    the shell `-` means the words on standard input). `file_word` is the name of the argument for a file that is
    inspected on its own: if it is given, no kernel is opened. `needs_types`: most calls read the kernel's types, so
    these are read while the kernel is opened.
    """

    name: str
    summary: str
    description: str
    examples: tuple[tuple[str, str], ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Session, argparse.Namespace], Iterator[Output]]
    takes_symbols: bool = False
    takes_modules: bool = False
    words: str = ""
    file_word: str = ""
    needs_types: bool = True

    @property
    def host_name(self) -> str:
        """The name at a debugger's prompt: kwhere, ksym, ...; kaslr and kplug already begin with a k."""
        return self.name if self.name.startswith("k") else "k" + self.name

    def parser(self, prog: str, more: str = "") -> Parser:
        """A parser for the command's words, called `prog` in its messages; `more` follows the examples."""
        parser = Parser(
            prog=prog,
            description=self.description,
            epilog="\n".join(filter(None, (self.examples_text(prog), more))),
            formatter_class=HelpFormatter,
        )
        self.add_arguments(parser)
        return parser

    def examples_text(self, prog: str) -> str:
        """The examples, as shown in the help."""
        lines = [f"  {prog} {words}".rstrip() for words, _ in self.examples]
        width = max(map(len, lines), default=0)
        shown = [f"{line:<{width}}  {meaning}" for line, (_, meaning) in zip(lines, self.examples)]
        return "\n".join(["examples:", *shown]) if shown else ""


def add_pid_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pid", type=int, metavar="PID", help="the process that user addresses belong to")


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object for each answer, one per line")
