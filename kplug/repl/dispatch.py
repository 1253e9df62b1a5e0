"""Recognises and runs a line: a k-command, one of the prompt's own commands, a shell command, or Python."""

from __future__ import annotations

import argparse
import builtins
import contextlib
import importlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from kplug.arch.registers import is_register
from kplug.commands import COMMANDS
from kplug.commands.base import Command, HelpRequestedError, Parser
from kplug.commands.words import Line, split_for, with_expressions
from kplug.errors import ExpressionError, InputError, KplugError, UsageError
from kplug.outputs import Output, Problem
from kplug.render.safe import safe
from kplug.render.show import Renderer
from kplug.repl.builtin import PromptCommand
from kplug.repl.chunks import chunks
from kplug.repl.frames import FRAME_COMMANDS
from kplug.repl.output import Screen, reader_is_gone, shell_words, waited_for
from kplug.repl.python import Python, exception_line, exception_text, is_assignment, is_python

if TYPE_CHECKING:
    from kplug.runtime.drgn_target import DrgnTarget
    from kplug.session import Session

_FIRST_WORD = re.compile(r"\s*(?P<name>[A-Za-z_]\w*|\?)(?P<rest>(?:[\s|>].*)?)", re.DOTALL)


class Status(IntEnum):
    """The result of a line; the worst one is the exit status."""

    ANSWERED = 0
    NOT_ALL_ANSWERED = 1
    UNUSABLE = 2


class Leave(Exception):
    """The user wants to leave, with this exit status (None: that of the lines run)."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__()
        self.status = status


class Prompt:
    """One session at a prompt or in a script: runs what was typed and shows the output.

    `origin` is a prefix for error messages, where the user cannot see which line they belong to.
    """

    def __init__(self, session: Session, target: DrgnTarget, screen: Screen) -> None:
        self.session = session
        self.target = target
        self.screen = screen
        self.origin = ""
        # Held while drgn is used: at a terminal there is a second thread.
        self.lock = threading.RLock()
        self.commands: dict[str, Command] = {}
        for command in (*COMMANDS.values(), *FRAME_COMMANDS, *_OWN):
            for name in (command.host_name, *getattr(command, "other_names", ())):
                self.commands[name] = command
        self.python = Python(target.kernel.prog, self._register)
        target.evaluate_with(self.python.value)

    # -- lines ---------------------------------------------------------------------------------------------------------

    def is_command(self, line: str) -> bool:
        """Whether the line is a command, not Python."""
        if line.lstrip().startswith(("!", "%")):
            return True
        match = _FIRST_WORD.fullmatch(line)
        if match is None or match.group("name") not in self.commands:
            return False
        name = match.group("name")
        if is_assignment(line):
            return False
        return not (self.python.is_own(name) and is_python(line))

    def is_apart(self, text: str) -> bool:
        """Whether the text is Python that has nothing of the kernel's: it need not wait for who uses the target."""
        return not self.is_command(text) and self.python.is_apart(text)

    def run_all(self, lines: Iterable[str], origin: Callable[[int], str] = lambda number: "") -> Status:
        """Run a text of many lines; the worst of the statuses. `origin` gives the message prefix for a line number."""
        worst = Status.ANSWERED
        for number, text in chunks(lines, self.is_command):
            self.origin = origin(number)
            worst = max(worst, self.run(text))
        return worst

    def run(self, text: str) -> Status:
        """Run one command, or Python statements. Raises Leave, and KeyboardInterrupt if the user interrupts."""
        if self.target.kernel.live and not self.is_apart(text):
            self.target.kernel.resumed()
        try:
            if not self.is_command(text):
                return self._python(text)
            line = text.strip()
            if line.startswith("!"):
                return self._shell(line[1:].strip())
            if line.startswith("%"):
                return self._drgn_command(line[1:])
            match = _FIRST_WORD.fullmatch(line)
            assert match is not None
            return self._command(match.group("name"), match.group("rest"))
        except KplugError as error:
            self.complain(str(error))
            return Status.UNUSABLE if isinstance(error, (UsageError, InputError)) else Status.NOT_ALL_ANSWERED
        except Leave:
            raise
        except Exception as error:  # a bug in kplug: a traceback only on request
            if os.environ.get("KPLUG_TRACEBACK") or (isinstance(error, BrokenPipeError) and reader_is_gone()):
                raise
            self.complain(f"internal error: {exception_line(error)} (KPLUG_TRACEBACK=1 shows where)")
            return Status.UNUSABLE

    def interrupted(self) -> None:
        """Clean up after a KeyboardInterrupt in a line: after one in exec("text"), Python would exit by SIGINT."""
        exec("")  # running another text undoes that

    def complain(self, message: str) -> None:
        """One line on standard error."""
        sys.stdout.flush()
        print(safe(self.origin + message), file=sys.stderr, flush=True)

    # -- k-commands ----------------------------------------------------------------------------------------------------

    def _command(self, name: str, rest: str) -> Status:
        command = self.commands[name]
        try:
            parser = self.parser(command)
            line = split_for(command, parser, rest)
            arguments = parser.parse_args(line.words)
        except UsageError as error:
            named = str(error).startswith(f"{command.host_name}:")
            raise UsageError(str(error) if named else f"{command.host_name}: {error}") from None
        except HelpRequestedError as text:
            self._show_text(str(text), line)
            return Status.ANSWERED
        if isinstance(command, OwnCommand):
            return command.act(self, arguments, line)
        return self._answer(command, arguments, line, parser)

    def _answer(self, command: Command, arguments: argparse.Namespace, line: Line, parser: Parser) -> Status:
        status = Status.ANSWERED
        with self.screen.opened(line) as writer:
            renderer = Renderer(arguments, self.screen.style(writer))
            for output in self._outputs(command, arguments, line, parser):
                if isinstance(output, Problem):
                    status = Status.NOT_ALL_ANSWERED
                    if self.origin or not writer.terminal:
                        self.complain(output.message)
                        continue
                for text in renderer.lines(output):
                    writer.write(text)
        return status

    def _outputs(self, command: Command, arguments: argparse.Namespace, line: Line, parser: Parser) -> Iterator[Output]:
        if command.name == "where":
            arguments = with_expressions(arguments, line.text, parser, self.session.places)
        return command.run(self.session, arguments)

    def parser(self, command: Command) -> Parser:
        """The command's parser, with the help text for this prompt."""
        return command.parser(command.host_name, _HERE.get(command.name, ""))

    def _register(self, name: str) -> int:
        if not is_register(name, self.target.kernel.machine):
            raise ExpressionError(f"${name}: no such register")
        return self.target.evaluate(f"${name}")

    def _show_text(self, text: str, line: Line | None = None) -> None:
        with self.screen.opened(line) as writer:
            for each in text.rstrip("\n").split("\n"):
                writer.write(each)

    # -- the shell, drgn's commands, Python ----------------------------------------------------------------------------

    def _shell(self, command: str) -> Status:
        import subprocess

        sys.stdout.flush()
        status = waited_for(
            subprocess.Popen(shell_words(command) if command else [os.environ.get("SHELL") or "/bin/sh"])
        )
        return Status.ANSWERED if status == 0 else Status.NOT_ALL_ANSWERED

    def _drgn_command(self, command: str) -> Status:
        """A line as drgn's own prompt takes it after a %."""
        # Not done when the target was opened.
        for plugin in ("drgn.commands._builtin", "drgn.commands._crash", "kplug.drgn_plugin"):
            with contextlib.suppress(ImportError):
                importlib.import_module(plugin)
        from drgn.commands import CommandNotFoundError, run_command

        try:
            value = run_command(self.target.kernel.prog, command, globals=self.python.namespace)
        except CommandNotFoundError as error:
            raise UsageError(f"%{error}") from None
        except Exception as error:  # drgn's commands may raise anything
            self.complain(" ".join(str(error).split()) or type(error).__name__)
            return Status.NOT_ALL_ANSWERED
        if value is not None:
            builtins._ = value  # type: ignore[attr-defined]
        return Status.ANSWERED

    def _display(self, value: Any) -> None:
        self.python.show(value, self._show_text)

    def _python(self, text: str) -> Status:
        hook, sys.displayhook = sys.displayhook, self._display
        if text.strip().startswith("$"):
            sys.displayhook = self._display_address
        try:
            self.python.run(text)
        except SystemExit as leaving:
            raise _leave(leaving) from None
        except KplugError:
            raise
        except Exception as error:  # the user's code may raise anything
            if isinstance(error, BrokenPipeError) and reader_is_gone():
                raise
            return self._users_error(error, text)
        finally:
            sys.displayhook = hook
            sys.stdout.flush()
        return Status.ANSWERED

    def _display_address(self, value: Any) -> None:
        """The value of `$rsp + 8`: an address."""
        if isinstance(value, int):
            self._show_text(f"{value:#x}")
            builtins._ = value  # type: ignore[attr-defined]
        else:
            self._display(value)

    def _users_error(self, error: Exception, text: str) -> Status:
        if isinstance(error, (SyntaxError, NameError)):
            command = self._like_a_command(text)
            if command is not None:
                what = "command" if isinstance(error, SyntaxError) else "command or Python name"
                raise UsageError(f"{text.split()[0].partition('/')[0]}: no such {what} (did you mean {command}?)")
        sys.stdout.flush()
        *before, last = exception_text(error) if not self.origin else [exception_line(error)]
        print("".join(line + "\n" for line in (*before, self.origin + last)), end="", file=sys.stderr, flush=True)
        return Status.UNUSABLE if isinstance(error, SyntaxError) else Status.NOT_ALL_ANSWERED

    def _like_a_command(self, text: str) -> str | None:
        """The command that was probably meant by a line that Python cannot run; None if it resembles no command."""
        match = re.fullmatch(r"\s*(?P<name>\w+)(?:/\w+)?(?:\s+[^\s=].*)?\s*", text)  # gdb's x/4gx too
        if match is None:
            return None
        name = match.group("name")
        if name in _ELSEWHERE or f"k{name}" in self.commands:
            return _ELSEWHERE.get(name, f"k{name}")
        from difflib import get_close_matches

        return next(iter(get_close_matches(name, self.commands, 1, 0.7)), None)


def _leave(leaving: SystemExit) -> Leave:
    code = leaving.code
    if code is None or isinstance(code, int):
        return Leave(code)
    print(code, file=sys.stderr)
    return Leave(1)


# Other debuggers' names for commands that exist here.
_ELSEWHERE = {"backtrace": "bt", "info": "kregs, thread or ksections", "lsmod": "kmod", "rd": "kx", "vtop": "kwhere"}


# -- the prompt's own commands -----------------------------------------------------------------------------------------

# Help for a command at this prompt, shown after its examples.
_HERE = {
    "where": """  kwhere prog["init_task"].stack   a Python expression

Without EXPR it asks about $pc. Registers ($rip, $rsp + 8) are the selected frame's (bt, frame, thread, cpu);
anything else is evaluated as Python, with drgn's prog at hand.""",
}
_KEYS = """
Any other line is Python, with drgn's prog and helpers. $rip, $rsp, ... are registers of the selected frame.
  COMMAND | less     give a command's output to a shell command       COMMAND > FILE   write it to a file
  !COMMAND           run a shell command                               %COMMAND         one of drgn's own commands
  Tab completes, Ctrl-R searches the history, Ctrl-C leaves the line, Ctrl-D leaves the prompt."""


class OwnCommand(PromptCommand):
    """A command for the prompt itself: it acts instead of answering."""

    def act(self, prompt: Prompt, arguments: argparse.Namespace, line: Line) -> Status:
        raise NotImplementedError


class _Help(OwnCommand):
    def act(self, prompt: Prompt, arguments: argparse.Namespace, line: Line) -> Status:
        name = arguments.command
        if name is None:
            prompt._show_text(_overview(prompt.commands.values()), line)
            return Status.ANSWERED
        command = prompt.commands.get(name) or prompt.commands.get(f"k{name}")
        if command is None:
            raise UsageError(f"help: no command {name} (for Python: help({name}))")
        prompt._show_text(prompt.parser(command).format_help(), line)
        return Status.ANSWERED


def _overview(commands: Iterable[Command]) -> str:
    listed = list(dict.fromkeys(commands))
    width = max(len(command.host_name) for command in listed)
    return "\n".join([*(f"  {each.host_name:<{width}}  {each.summary}" for each in listed), _KEYS])


class _Quit(OwnCommand):
    def act(self, prompt: Prompt, arguments: argparse.Namespace, line: Line) -> Status:
        raise Leave(None)


_SETTINGS = {"pager": ("on", "off"), "color": ("auto", "always", "never")}


class _Set(OwnCommand):
    def act(self, prompt: Prompt, arguments: argparse.Namespace, line: Line) -> Status:
        screen = prompt.screen
        if arguments.name is None:
            prompt._show_text(f"pager  {'on' if screen.paging else 'off'}\ncolor  {screen.color}", line)
            return Status.ANSWERED
        values = _SETTINGS[arguments.name]
        if arguments.value not in values:
            raise UsageError(f"set {arguments.name}: must be one of {', '.join(values)}")
        if arguments.name == "pager":
            screen.page(arguments.value == "on")
        else:
            screen.paint(arguments.value)
        return Status.ANSWERED


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def _help_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="the command to explain")


def _set_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", choices=tuple(_SETTINGS), metavar="NAME", help="pager or color")
    parser.add_argument("value", nargs="?", metavar="VALUE", help="on, off; auto, always, never")


def _nothing(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    return iter(())


def _own(
    kind: type[OwnCommand],
    name: str,
    summary: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    examples: Sequence[tuple[str, str]] = (),
    other_names: Sequence[str] = (),
) -> OwnCommand:
    description = summary[0].upper() + summary[1:] + "."
    return kind(name, summary, description, tuple(examples), add_arguments, _nothing, other_names=tuple(other_names))


_OWN = (
    _own(_Help, "help", "list the commands, or explain one", _help_arguments, (("kwhere", ""),), ("?",)),
    _own(
        _Set,
        "set",
        "settings of this session: pager on|off, color auto|always|never",
        _set_arguments,
        (("pager off", "write long output to the terminal"), ("", "the settings")),
    ),
    _own(_Quit, "quit", "leave", _no_arguments, (), ("exit", "q")),
)
