"""The destination of a command's lines: the terminal, its pager, a shell pipeline or a file."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Protocol

from kplug.commands.words import Line
from kplug.errors import InputError
from kplug.render.style import COLOURED, PLAIN, Style

if TYPE_CHECKING:
    import subprocess


class Writer(Protocol):
    """Takes lines, without newlines. `terminal` says whether the user reads them as they come."""

    terminal: bool

    def write(self, line: str) -> None: ...


@contextlib.contextmanager
def _named(output: str) -> Iterator[None]:
    """A full disk is not a bug in kplug: InputError that names what could not be written."""
    try:
        yield
    except BrokenPipeError:  # the reader has gone, which is not an error
        raise
    except OSError as error:
        raise InputError(f"{output}: {error.strerror or error}") from None


def reader_is_gone() -> bool:
    """Whether nobody reads standard output any more, as with `| head`."""
    try:
        waiting = select.poll()
        waiting.register(sys.stdout.fileno(), 0)
        return any(events & select.POLLERR for _, events in waiting.poll(0))
    except (OSError, ValueError):
        return False


class _Direct:
    terminal = True

    def write(self, line: str) -> None:
        with _named("standard output"):
            sys.stdout.write(line + "\n")

    def close(self) -> None:
        with _named("standard output"):
            sys.stdout.flush()


class _File:
    terminal = False

    def __init__(self, path: str, append: bool) -> None:
        try:
            self._file = open(os.path.expanduser(path), "a" if append else "w", errors="backslashreplace")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        self._path = path

    def write(self, line: str) -> None:
        with _named(self._path):
            self._file.write(line + "\n")

    def close(self) -> None:
        with _named(self._path):
            self._file.close()


class _Pipeline:
    """A shell command line that reads what is written. BrokenPipeError from `write` once it reads no more."""

    terminal = False

    def __init__(self, command: str, environment: dict[str, str] | None = None) -> None:
        import subprocess  # few questions need it, and what follows it here

        sys.stdout.flush()
        self._process = subprocess.Popen(
            shell_words(command), stdin=subprocess.PIPE, text=True, errors="backslashreplace", env=environment
        )

    @property
    def _input(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def write(self, line: str) -> None:
        self._input.write(line + "\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._input.close()
        waited_for(self._process)


def shell_words(command: str) -> list[str]:
    """The program that runs a command line. The shell ignores Ctrl-C, so that it does not exit before `less`."""
    return ["/bin/sh", "-c", f"trap : INT\n{command}"]


def waited_for(process: subprocess.Popen[Any]) -> int:
    """The exit status of a program that has the terminal; it handles Ctrl-C itself."""
    import signal

    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, former)


class _Paged:
    """Writes output that fits to the terminal, and longer output to the pager.

    Only the number of rows decides, never the time they take: lines are kept until they fill the screen or end, as with
    `less -F`.
    """

    terminal = True

    def __init__(self, pager: str) -> None:
        self._command = pager
        self._pager: _Pipeline | None = None
        self._kept: list[str] = []
        import shutil

        self._columns, rows = shutil.get_terminal_size()
        self._rows_left = rows - 1

    def write(self, line: str) -> None:
        if self._pager is not None:
            self._pager.write(line)
            return
        self._kept.append(line)
        self._rows_left -= sum(max(1, -(-len(row) // max(1, self._columns))) for row in line.split("\n"))
        if self._rows_left < 0:
            self._pager = _Pipeline(self._command, {"LESS": "FRX", **os.environ})
            for kept in self._kept:
                self._pager.write(kept)

    def close(self) -> None:
        if self._pager is not None:
            self._pager.close()
            return
        sys.stdout.write("".join(line + "\n" for line in self._kept))
        sys.stdout.flush()


class Screen:
    """The output of a session. `color` is auto, always or never; both may be changed at any time."""

    def __init__(self, color: str = "auto", paging: bool = True) -> None:
        self.color = color
        self.paging = paging

    def page(self, paging: bool) -> None:
        """Show long output in the pager from now on, or do not."""
        self.paging = paging

    def paint(self, color: str) -> None:
        """Colour output from now on: auto, always or never."""
        self.color = color

    @contextlib.contextmanager
    def opened(self, line: Line | None = None) -> Iterator[Writer]:
        """The sink for a command's lines. The command ends when its reader stops reading."""
        writer: _Direct | _File | _Pipeline | _Paged
        if line is not None and line.pipeline is not None:
            writer = _Pipeline(line.pipeline)
        elif line is not None and line.file is not None:
            writer = _File(line.file, line.append)
        else:
            pager = self._pager()
            writer = _Paged(pager) if pager else _Direct()
        try:
            yield writer
        except BrokenPipeError:
            if reader_is_gone():  # not only this command's reader
                raise
        finally:
            writer.close()

    def style(self, writer: Writer) -> Style:
        """The colours for output to that sink."""
        if self.color == "auto":
            return COLOURED if writer.terminal and colourful() else PLAIN
        return COLOURED if self.color == "always" else PLAIN

    def _pager(self) -> str | None:
        """The pager's command line; None if there is no pager, or it is off."""
        if not self.paging or not (sys.stdin.isatty() and sys.stdout.isatty()) or is_dumb():
            return None
        import shutil

        command = os.environ.get("KPLUG_PAGER", os.environ.get("PAGER") or "less")
        try:
            words = shlex.split(command)
        except ValueError:
            return None
        return command if words and words[0] != "cat" and shutil.which(words[0]) else None


def colourful() -> bool:
    """Whether standard output shows colours, and they are wanted (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and not is_dumb()


def is_dumb() -> bool:
    """Whether this is a terminal that can only show text line by line."""
    return os.environ.get("TERM", "") in ("", "dumb")
