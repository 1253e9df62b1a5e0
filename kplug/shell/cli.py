"""The shell front end: `kplug COMMAND` answers a question, `kplug` without a command opens the prompt."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TextIO

from kplug import __version__
from kplug.assembly import Found, FrontEnd, session_of
from kplug.commands import COMMANDS
from kplug.commands.base import Command, HelpRequestedError
from kplug.errors import InputError, KplugError, UsageError
from kplug.opening import NothingKnownError, open_session
from kplug.outputs import Output, Problem
from kplug.render.safe import safe
from kplug.render.show import Renderer
from kplug.render.style import COLOURED, PLAIN, Style
from kplug.session import Session
from kplug.shell.arguments import HINTS, command_parser, help_text, prompt_arguments, source_of

# The running kernel's memory.
_MEMORY = "/proc/kcore"

# Outputs that are printed together, if they are those for words that are there at once.
_MOST_TOGETHER = 256

ANSWERED, NOT_ALL_ANSWERED, UNUSABLE = 0, 1, 2


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    words = list(sys.argv[1:] if words is None else words)
    # A short-lived command makes no cycles worth collecting; the collector would only walk its big tables.
    gc.disable()
    try:
        _prepare_streams()
        return _run(words)
    except KplugError as error:
        _complain(str(error))
        return UNUSABLE
    except BrokenPipeError:  # the reader (head, less) has gone
        _abandon_output()
        return ANSWERED
    except OSError as error:  # a full disk; reading files has its own errors
        _complain(f"standard input or output: {error.strerror or error}")
        _abandon_output()
        return UNUSABLE
    except MemoryError:
        _complain("out of memory")
        return UNUSABLE
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # a bug in kplug: a traceback only on request
        if os.environ.get("KPLUG_TRACEBACK"):
            raise
        _complain(f"internal error: {type(error).__name__}: {error} (KPLUG_TRACEBACK=1 shows where)")
        return UNUSABLE


def _prepare_streams() -> None:
    """Have input bytes and output names that do not fit the encoding escaped instead of raising an error."""
    if sys.stdout is None:
        raise UsageError("kplug: standard output is closed")
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _abandon_output() -> None:
    """Discard unwritten output: Python would report the error again when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    try:
        return _command(words)
    except HelpRequestedError as text:
        print(text, end="", flush=True)
        return ANSWERED


def _command(words: list[str]) -> int:
    if not words and not os.path.exists(_MEMORY):
        print(help_text(), end="", flush=True)
    name = words[0] if words else ""
    if name in ("-h", "--help", "help"):
        raise HelpRequestedError(help_text())
    if name in ("-V", "--version", "version"):
        print(f"kplug {__version__}")
        return ANSWERED
    if name == "gdb-script":
        print(gdb_script())
        return ANSWERED
    if name == "completion":
        from kplug.shell.completion import completion_script

        print(completion_script(words[1:]), end="")
        return ANSWERED
    if name == "extract":
        from kplug.shell import extract

        extract.run(words[1:])
        return ANSWERED
    if name == "annotate":
        from kplug.shell import annotate

        return ANSWERED if annotate.run(words[1:], _style) else NOT_ALL_ANSWERED
    if name == "doctor":
        from kplug.shell import doctor

        diagnosis = doctor.run(words[1:])
        renderer = Renderer(diagnosis.arguments, _style("auto", sys.stdout), _width(sys.stdout))
        for table in diagnosis.tables:
            for line in renderer.lines(table):
                print(line)
        return ANSWERED if diagnosis.answers else NOT_ALL_ANSWERED
    if not name or name.startswith("-"):
        return _prompt(prompt_arguments(words))
    command = COMMANDS.get(name.removeprefix("k") if name.startswith("k") and name not in COMMANDS else name)
    if command is None:
        # Files are arguments in other debuggers.
        meant = "files are given with -c VMCORE and -s VMLINUX" if os.path.isfile(name) else "try kplug --help"
        raise UsageError(f"kplug: no command {name!r} ({meant})")
    parser = command_parser(command)
    arguments = parser.parse_args(words[1:])
    return _answer(command, arguments)


def _answer(command: Command, arguments: argparse.Namespace) -> int:
    if command.words and not getattr(arguments, command.words):
        raise UsageError(f"kplug {command.name}: no words given (- reads words from standard input)")
    session = _command_session(command, arguments)
    renderer = Renderer(arguments, _style(arguments.color, sys.stdout), _width(sys.stdout))
    printer = _Printer(renderer, together=not sys.stdout.isatty())
    try:
        for output in _outputs(command, session, arguments, printer):
            printer.add(output)
    finally:
        printer.print_now()
    return printer.status


class _Printer:
    """Prints outputs; with `together` some hundred at a time, if the words for them are there at once: to answer all of
    these, and then to lay them out, is faster than to do both for each of them. The first are still printed at once.
    """

    def __init__(self, renderer: Renderer, together: bool) -> None:
        self._renderer = renderer
        self._outputs: list[Output] = []
        self._count = 1
        self._most = _MOST_TOGETHER if together else 1
        self.status = ANSWERED

    def add(self, output: Output) -> None:
        self._outputs.append(output)
        if len(self._outputs) >= self._count:
            self._count = min(2 * self._count, self._most)
            self.print()

    def print_now(self) -> None:
        """Print what is left, and let whoever reads it have it."""
        self.print()
        sys.stdout.flush()

    def print(self) -> None:
        outputs, self._outputs = self._outputs, []
        write = sys.stdout.write
        for output in outputs:
            if isinstance(output, Problem):
                self.status = NOT_ALL_ANSWERED
                sys.stdout.flush()
                _complain(output.message)
                continue
            for line in self._renderer.lines(output):
                write(line + "\n")


def _command_session(command: Command, arguments: argparse.Namespace) -> Session:
    """The session of the kernel; an empty one for a command that inspects a file on its own."""
    if not command.file_word or getattr(arguments, command.file_word) is None:
        try:
            words = getattr(arguments, command.words) if command.words else ()
            asked = words if command.needs_types and not command.file_word else None
            return open_session(source_of(arguments), HINTS, asked=asked)
        except NothingKnownError:
            if not command.file_word:
                raise
            # No addresses are known, but what the kernel shows about itself does not need them.
            return session_of(Found(is_running=True), front_end=FrontEnd(HINTS))
    for option in ("vmlinux", "vmlinuz", "system_map", "kallsyms", "core", "qemu"):
        if getattr(arguments, option):
            name = "--" + option.replace("_", "-")
            raise UsageError(f"kplug {command.name}: a FILE is inspected on its own, without {name}")
    return session_of(Found(), front_end=FrontEnd(HINTS))


def _outputs(command: Command, session: Session, arguments: argparse.Namespace, printer: _Printer) -> Iterator[Output]:
    """The command's outputs; among its words, `-` stands for those on standard input, one per line."""
    given = getattr(arguments, command.words) if command.words else ()
    if "-" not in given:
        return command.run(session, arguments)
    from kplug.shell.words import words  # only standard input has lines

    more = partial(words, sys.stdin, printer.print_now)
    lines = (word for each in given for word in (more() if each == "-" else (each,)) if word)
    return command.run(session, argparse.Namespace(**{**vars(arguments), command.words: lines}))


def _prompt(arguments: argparse.Namespace) -> int:
    """The prompt, a script on standard input, or the commands of -e. Returns the exit status."""
    if not arguments.core and not arguments.qemu and not os.access(_MEMORY, os.R_OK):
        if not os.path.exists(_MEMORY):
            raise UsageError(
                f"kplug: no {_MEMORY} here: the running kernel's memory cannot be read (-c VMCORE opens a dump)"
            )
        raise UsageError("kplug: only root can read the running kernel's memory: sudo kplug (-c VMCORE opens a dump)")
    source = source_of(arguments)
    from kplug.repl.main import run

    return run(source, arguments.commands, arguments.color)


def _style(when: str, stream: TextIO) -> Style:
    """Colours if requested; by default on a terminal that has them, unless NO_COLOR is set (no-color.org)."""
    if when == "auto":
        wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    else:
        wanted = when == "always"
    return COLOURED if wanted else PLAIN


def _width(stream: TextIO) -> int | None:
    """The width of the terminal; None if output goes elsewhere, so that nothing is cut."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _complain(message: str) -> None:
    if sys.stderr is not None:
        named = message.startswith(("kplug: ", "kplug "))
        print(safe(message if named else f"kplug: {message}"), file=sys.stderr)


def gdb_script() -> str:
    """The path of the script to source in gdb: the checkout's, or the one in the installed package."""
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    parent = os.path.dirname(package)
    for path in (os.path.join(parent, "gdb", "kplug.py"), os.path.join(parent, "kplug_gdb", "kplug.py")):
        if os.path.isfile(path):
            return path
    raise InputError("the gdb script is missing from the package: install kplug again")
