"""`kplug annotate`: a kernel's log, with an answer for each address and symbol in it."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO, Union

from kplug.annotate.answers import LogAnswers
from kplug.annotate.facts import Boot, Pair, boots, in_boots, machine_in, offset_of_pairs, wrong_build
from kplug.arch.registry import named
from kplug.assembly import Found, FrontEnd, session_of
from kplug.commands.base import HelpFormatter, Parser
from kplug.commands.map import with_contents
from kplug.errors import UsageError
from kplug.frozen import replace
from kplug.log.pieces import Kind, Piece, pieces
from kplug.opening import NothingKnownError, open_session
from kplug.render.log_marks import MARK, without_annotations
from kplug.render.log_text import LogText
from kplug.render.safe import safe
from kplug.render.style import Style
from kplug.session import Session
from kplug.shell.arguments import HINTS, add_color_argument, add_files_arguments, add_memory_arguments, source_of
from kplug.shell.log_input import follower, open_log, reader
from kplug.shell.log_jobs import Part, in_processes, parts, reader_of
from kplug.source import Source

if TYPE_CHECKING:  # the grammar of events takes 40 ms to import, which what prints none does not need
    from kplug.arch.types.memory_map import Area
    from kplug.render.log_events import LogSummary
    from kplug.render.log_html import LogHtml, Page
    from kplug.render.log_json import LogJson, Open

    # What prints a log.
    _Form = Union[LogText, LogJson, LogSummary, LogHtml]

_DESCRIPTION = """Print a kernel's log as it is, and below each line what the addresses and symbols in it are: symbol,
section, region and, with debug information, the source line with its inlined callers; registers by value (poison,
ERR_PTR, NULL and near it, ...). FILE may be `-` or missing: standard input, line by line as it comes.

Annotations are lines that begin with `#> `: `sed '/^#> /d'` removes them, and --strip does so exactly for any log.
With --margin they stand at the end of the line itself, after `  #> `.

The KASLR offset is that of --kaslr, of the log ("Kernel Offset:", in a file also where it comes later), or of the lines
that have both an address and its symbol. symbol+0xoff/0xsize needs none."""
_EPILOG = """examples:
  dmesg -w | kplug annotate                      the running kernel
  kplug annotate -s vmlinux oops.txt             with source lines, where vmlinux has DWARF
  kplug annotate -s vmlinux --module-dir DIR -   with the modules' debug files
  kplug annotate --summary console.log           the events in it, a line each
  kplug annotate --json -s vmlinux oops.txt      events and addresses as objects (docs/json.md)
  kplug annotate --html -s vmlinux oops.txt > oops.html      a page for a browser

exit status: 0 all answered; 1 something could not be resolved; 2 usage, or an input that cannot be read"""

# Reasons for what could not be resolved; the further ones are much the same.
_MOST_REASONS = 5

_MOST_JOBS = 256

# Kernels of a log that stay open: it may have a thousand boots, each at another place.
_MOST_OPEN = 4

# Of a shorter log, one process is done before others have begun. A longer one may have a million distinct addresses,
# and the source line of each takes a tenth of a millisecond or more.
_LONG_LOG = 1 << 25


def parser() -> Parser:
    """The parser of the command's own words."""
    made = Parser(prog="kplug annotate", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=HelpFormatter)
    made.add_argument("files", nargs="*", metavar="FILE", help="a log (default: standard input, as is `-`)")
    made.add_argument(
        "-f", "--follow", action="store_true", help="wait for more at the end of the file; what replaces it is read too"
    )
    form = made.add_mutually_exclusive_group()
    form.add_argument("--inline", action="store_true", help="annotations below each line (the default)")
    form.add_argument("--margin", action="store_true", help="annotations at the end of each line")
    form.add_argument("--json", action="store_true", help="objects for events and addresses, one per line")
    form.add_argument("--summary", action="store_true", help="one line for each event: an oops, a warning, a stall")
    form.add_argument("--html", action="store_true", help="one page: the log with what it names, its events, and a map")
    made.add_argument("--strip", action="store_true", help="remove the annotations of an annotated log")
    made.add_argument(
        "-j",
        "--jobs",
        type=_count,
        metavar="N",
        help="processes for a file's text (default: processors, if it is long)",
    )
    lines = made.add_mutually_exclusive_group()
    lines.add_argument(
        "-l",
        "--lines",
        action="store_true",
        default=None,
        help="source lines (default: if there are, and FILE is not long)",
    )
    lines.add_argument("--no-lines", dest="lines", action="store_false", help="no source lines")
    which = made.add_argument_group("the kernel")
    add_memory_arguments(which)
    add_files_arguments(which)
    add_color_argument(made)
    return made


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MOST_JOBS:
        raise argparse.ArgumentTypeError(f"not a number of processes: {text!r}")
    return int(text)


def run(words: Sequence[str], style_of: Callable[[str, TextIO], Style]) -> bool:
    """Run one command line; returns whether all was resolved. KplugError."""
    arguments = parser().parse_args(list(words))
    paths = arguments.files or ["-"]
    if arguments.follow and (len(paths) > 1 or paths == ["-"]):
        raise UsageError("kplug annotate: -f follows one FILE")
    if arguments.strip and (arguments.json or arguments.summary or arguments.html or arguments.follow):
        raise UsageError("kplug annotate: --strip gives the log back: without --json, --summary, --html and -f")
    if arguments.html and arguments.follow:
        raise UsageError("kplug annotate: --html is of a whole log: without -f")
    logs = [open_log(path) for path in paths]
    if arguments.strip:
        for descriptor in logs:
            _strip(descriptor, arguments.margin)
        return True
    run = _Run(arguments, style_of(arguments.color, sys.stdout))
    for path, descriptor in zip(paths, logs):
        run.annotate(path, descriptor)
    run.end()
    return run.is_answered()


def _strip(descriptor: int, margin: bool) -> None:
    with os.fdopen(descriptor, "rb", closefd=descriptor != 0) as log:
        sys.stdout.buffer.writelines(without_annotations(log, margin))
    sys.stdout.buffer.flush()


class _Run:
    """One call: the kernel, opened when the first line needs it, and what was said of it."""

    def __init__(self, arguments: argparse.Namespace, style: Style) -> None:
        self._arguments = arguments
        self._style = style
        self._source = source_of(argparse.Namespace(**{**vars(arguments), "lines": False}))
        self._texts: dict[tuple[int | None, str | None, str | None, tuple[Pair, ...], tuple[str, bool]], _Form] = {}
        self._unresolved: dict[str, None] = {}
        self._assumed: dict[str, None] = {}
        self._said: dict[str, None] = {}
        self._is_wrong = False
        self._has_kernel = True
        self._is_long = False
        self._open: Open | None = None
        self._summary: LogSummary | None = None
        self._page: Page | None = None
        self._machine = ""  # where there is no kernel to tell

    def annotate(self, path: str, descriptor: int) -> None:
        """One log. KplugError."""
        self._begin(None if path == "-" else path)
        write, flush = sys.stdout.buffer.write, sys.stdout.buffer.flush
        status = os.fstat(descriptor)
        self._is_long = stat.S_ISREG(status.st_mode) and status.st_size >= _LONG_LOG
        known = self._boots(descriptor)
        jobs = self._jobs() if known else 1
        if jobs > 1:
            self._in_processes(descriptor, known, jobs)
            return
        boot = Boot()
        line, position, text = 1, 0, None
        first = 0  # bytes of the first line, which are shown before the kernel is opened
        is_followed = self._arguments.follow
        for piece in pieces(follower(descriptor, path) if is_followed else reader(descriptor)):
            if is_followed and position >= status.st_size:
                known = []  # the file has grown
            whole = in_boots(piece.data, boot) if piece.kind is Kind.LINES else ((piece.data, boot),)
            for part, boot in whole:
                while len(known) > 1 and known[1].start <= position:
                    known.pop(0)
                if text is None and self._is_text() and not self._arguments.margin and not part.startswith(MARK):
                    first = part.find(b"\n") + 1
                    write(part[:first])
                    flush()
                if text is None or piece.kind in (Kind.LINES, Kind.BEGIN):
                    text = self._text(known[0] if known else boot, part)
                write(memoryview(text.feed(Piece(piece.kind, part), line))[first:])
                first = 0
                line += part.count(b"\n")
                position += len(part)
            flush()
        if text is not None:
            write(text.close())
            flush()

    def _begin(self, path: str | None) -> None:
        """Make ready what prints events, which go on from one boot of a log to the next, but not from log to log."""
        if self._arguments.json:
            from kplug.render.log_json import Open

            self._open = self._open or Open()
            self._open.begin(path)
        elif self._arguments.summary:
            from kplug.render.log_events import LogSummary

            self._summary = LogSummary(self._style, path if len(self._arguments.files) > 1 else None)
        elif self._arguments.html:
            from kplug.render.log_html import Page

            self._page = self._page or Page()
            sys.stdout.buffer.write(self._page.begin(path))

    def end(self) -> None:
        """Write what follows the last log."""
        if self._page is not None:
            sys.stdout.buffer.writelines(self._page.end([*self._said, *self._assumed, *self._reasons()]))
            sys.stdout.buffer.flush()

    def _is_text(self) -> bool:
        return not (self._arguments.json or self._arguments.summary or self._arguments.html)

    def _jobs(self) -> int:
        """How many processes the file is worth. An event may go on in the next part; annotations do not."""
        if self._arguments.follow or not self._is_text():
            return 1
        if self._arguments.jobs is not None:
            return int(self._arguments.jobs)
        return len(os.sched_getaffinity(0)) if self._is_long else 1

    def _in_processes(self, descriptor: int, known: Sequence[Boot], jobs: int) -> None:
        boot_of = {boot.start: boot for boot in known}
        starts = sorted(boot_of)

        def work(part: Part) -> Iterator[bytes]:
            text = self._text(boot_of[starts[bisect_right(starts, part.start) - 1]])
            yield from (text.feed(piece, 1) for piece in pieces(reader_of(descriptor, part)))
            yield text.close()

        def report() -> bytes:
            said = ("\0".join(each) for each in (self._assumed, self._unresolved))
            return "\n".join(said).encode("utf-8", "surrogateescape")

        for boot in known[:_MOST_OPEN]:  # what is said of them is said once, and what is opened is shared
            self._text(boot)
        for said in in_processes(jobs, list(parts(descriptor, starts[1:])), work, report):
            assumed, _, reasons = said.decode("utf-8", "surrogateescape").partition("\n")
            self._assumed.update(dict.fromkeys(filter(None, assumed.split("\0"))))
            self._unresolved.update(dict.fromkeys(filter(None, reasons.split("\0"))))

    def is_answered(self) -> bool:
        """Whether all was resolved; says what was not."""
        for assumed in self._assumed:
            self._say(assumed)
        for why in self._reasons():
            self._say(why)
        return not self._unresolved and not self._is_wrong

    def _reasons(self) -> Sequence[str]:
        """Why something could not be resolved, not all of it."""
        reasons = sorted(self._unresolved)
        others = ["and others that could not be resolved"] if len(reasons) > _MOST_REASONS else []
        return [*reasons[:_MOST_REASONS], *others]

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said[sentence] = None
            sys.stdout.flush()
            print(safe(f"kplug: {sentence}"), file=sys.stderr)

    def _boots(self, descriptor: int) -> list[Boot]:
        """What a whole file says of its kernels, before it is read; none of what cannot be read twice."""
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or os.lseek(descriptor, 0, os.SEEK_CUR):
            return []
        found = boots(pieces(reader(descriptor)))
        os.lseek(descriptor, 0, os.SEEK_SET)
        return found

    def _text(self, boot: Boot, data: bytes = b"") -> _Form:
        """What annotates the lines of one boot; `data` are some of them."""
        if self._summary is not None:
            return self._summary  # which needs no kernel
        if not self._has_kernel and not self._machine:
            self._machine = machine_in(data)
        offset = boot.kaslr_offset if self._takes_offset() else None
        key = offset, boot.release, boot.build, boot.pairs[:1] if offset is None else (), (self._machine, self._is_long)
        if key not in self._texts:
            while len(self._texts) >= _MOST_OPEN:
                del self._texts[next(iter(self._texts))]
            session = self._session(offset, boot, data)
            self._texts[key] = self._made(LogAnswers(session, self._unresolved, self._assumed), session)
        return self._texts[key]

    def _made(self, answers: LogAnswers, session: Session) -> _Form:
        if self._page is not None:
            from kplug.render.log_html import LogHtml

            return LogHtml(answers, self._page, *_map_of(session))
        if self._open is None:
            return LogText(answers, self._style, self._arguments.margin)
        from kplug.render.log_json import LogJson

        return LogJson(answers, self._open)

    def _takes_offset(self) -> bool:
        """Whether the log's KASLR offset counts: not where the kernel's place is known otherwise."""
        source = self._source
        return not source.has_memory and source.kallsyms is None and self._arguments.kaslr == "auto"

    def _session(self, offset: int | None, boot: Boot, data: bytes) -> Session:
        """The kernel, moved by the offset; without images if there is none, or if the log is of another one."""
        wanted = self._arguments.lines
        source = replace(self._source, lines=not self._is_long if wanted is None else wanted)
        is_named = source.has_memory or source.files
        if offset is not None and is_named:
            source = replace(source, kaslr_offset=offset)
        try:
            session = self._opened(source)
        except NothingKnownError:
            self._say("no vmlinux (-s FILE): only what the log itself says is known")
            self._has_kernel = False
            self._machine = self._machine or machine_in(data)
            return session_of(Found(machine=self._machine), front_end=FrontEnd(HINTS))
        for warning in session.warnings if wanted else ():
            self._say(warning)
        main = session.main
        wrong = wrong_build(boot, main.image) if main is not None else None
        if wrong is None:
            moved = None
            if main is not None and offset is None and not main.placement.known and self._takes_offset():
                moved = offset_of_pairs(boot.pairs, main.image)
            return session if moved is None else self._opened(replace(source, kaslr_offset=moved))
        if is_named:
            self._is_wrong = True
            self._say(f"wrong vmlinux: {wrong}: it is not used")
        else:
            self._say(f"{wrong}, which runs here (-s FILE names another)")
        assert main is not None
        return session_of(Found(machine=main.image.machine), front_end=FrontEnd(HINTS))

    def _opened(self, source: Source) -> Session:
        if self._arguments.lines:
            return open_session(source, HINTS)
        try:
            return open_session(source, HINTS)
        except NothingKnownError:
            raise
        except UsageError:
            if not source.lines:
                raise
            return open_session(replace(source, lines=False), HINTS)  # without drgn


def _map_of(session: Session) -> tuple[str, Callable[[], Sequence[Area]]]:
    """The kernel's name, and what gives its address space."""

    def areas() -> Sequence[Area]:
        space = session.space
        return () if space is None else with_contents(session, space)

    main = session.main
    if main is None:
        return named(session.machine).title, areas
    offset = main.placement.kaslr_offset_text if main.placement.known else "not known"
    return f"{main.image.name} {main.image.release or ''}, KASLR offset {offset}", areas
