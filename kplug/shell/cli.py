"""The shell front end: `kplug COMMAND` answers a question, `kplug` without a command opens the prompt."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from kplug import __version__
from kplug.commands import COMMANDS
from kplug.commands.base import Command, HelpFormatter, HelpRequestedError, Parser
from kplug.errors import InputError, KplugError, UsageError
from kplug.expressions import MAX_LENGTH, Hints
from kplug.image.kernel_image import KernelImage
from kplug.image.opening.files import open_module, open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import Placement, as_linked, slid
from kplug.live import running_slide, running_vmlinux
from kplug.outputs import Output, Problem
from kplug.render.safe import safe
from kplug.render.show import Renderer
from kplug.render.style import COLOURED, PLAIN, Style
from kplug.session import Session

if TYPE_CHECKING:
    from kplug.image.opening.sources import Joined
    from kplug.runtime.opening.opening import Request

_HINTS = Hints(
    vmlinux="give one with -s FILE",
    module="--module FILE@ADDR,SECTION=ADDR",
    slide="--kaslr OFFSET; an oops prints it as Kernel Offset",
    memory="-c VMCORE, or --qemu QMP",
)
# The least that any architecture moves a kernel by.
_SMALLEST_PAGE = 0x1000

# The running kernel's memory.
_MEMORY = "/proc/kcore"

ANSWERED, NOT_ALL_ANSWERED, UNUSABLE = 0, 1, 2

_DESCRIPTION = "What is this kernel address? Symbol, section, segment and linker-script region, from a vmlinux."
_EPILOG = """Without a command a prompt opens, on a vmcore, a guest or the running kernel (see `kplug -c FILE --help`).

commands:
{commands}
  extract     write the kernel that is packed in a vmlinuz
  doctor      what there is to answer about the running kernel, and what is missing
  gdb-script  print the path of the script to source in gdb
  completion  print a completion script for bash, zsh or fish

examples:
  kplug -c vmcore -s vmlinux                    a prompt; sudo kplug opens one on the running kernel
  kplug where -s vmlinux 0xffffffff81a114f4 schedule+0x10
  grep -o 'ffffffff[0-9a-f]*' oops.txt | kplug where -s vmlinux --kaslr 0x8a00000 --brief -
  kplug where -s vmlinux --module ext4.ko@0xffffffffc0400000 0xffffffffc0401234
  kplug regions -s vmlinux

exit status: 0 answered; 1 answered, but something could not be resolved as asked; 2 usage, or an input that
cannot be read. `kplug COMMAND --help` has more."""

_PROMPT_USAGE = "kplug [-c VMCORE | --qemu QMP] [-s VMLINUX] [OPTION...] [-e CMD]..."
_PROMPT_DESCRIPTION = """Open a prompt on a kernel and its memory: k-commands (`help` lists them), and Python with
drgn's prog at hand. Without -c and --qemu it is the running kernel. With -e, or with standard input that is no
terminal, the commands given are run, and nothing else."""
_PROMPT_EPILOG = """examples:
  kplug -c vmcore -s vmlinux                    a prompt on a crash dump
  sudo kplug                                    on the running kernel
  kplug --qemu qmp.sock -s vmlinux              on a QEMU guest
  kplug -c vmcore -s vmlinux -e 'bt' -e kregs   run commands, then leave
  kplug -c vmcore -s vmlinux < commands         run a script"""


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    words = list(sys.argv[1:] if words is None else words)
    # One short-lived command that makes no cycles worth collecting: the collector would only walk its big tables.
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
    except OSError as error:  # a full disk; files that are read have their own errors
        _complain(f"standard input or output: {error.strerror or error}")
        _abandon_output()
        return UNUSABLE
    except MemoryError:
        _complain("out of memory")
        return UNUSABLE
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # a fault of kplug's own: no traceback but for who asks for it
        if os.environ.get("KPLUG_TRACEBACK"):
            raise
        _complain(f"internal error: {type(error).__name__}: {error} (KPLUG_TRACEBACK=1 shows where)")
        return UNUSABLE


def _prepare_streams() -> None:
    """Make any byte in, and any name out, no error of its own: what does not fit the encoding is escaped."""
    if sys.stdout is None:
        raise UsageError("kplug: standard output is closed")
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _abandon_output() -> None:
    """Let what is still to be written go nowhere: Python would complain once more when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    try:
        return _command(words)
    except HelpRequestedError as help_text:
        print(help_text, end="", flush=True)
        return ANSWERED


def _command(words: list[str]) -> int:
    if not words and not os.path.exists(_MEMORY):
        print(_help(), end="", flush=True)
    name = words[0] if words else ""
    if name in ("-h", "--help", "help"):
        raise HelpRequestedError(_help())
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
    if name == "doctor":
        from kplug.shell import doctor

        diagnosis = doctor.run(words[1:])
        renderer = Renderer(diagnosis.arguments, _style("auto", sys.stdout), _width(sys.stdout))
        for table in diagnosis.tables:
            for line in renderer.lines(table):
                print(line)
        return ANSWERED if diagnosis.answers else NOT_ALL_ANSWERED
    if not name or name.startswith("-"):
        return _prompt(_prompt_arguments(words))
    command = COMMANDS.get(name.removeprefix("k") if name.startswith("k") and name not in COMMANDS else name)
    if command is None:
        # As other debuggers take their files.
        meant = "files are given with -c VMCORE and -s VMLINUX" if os.path.isfile(name) else "try kplug --help"
        raise UsageError(f"kplug: no command {name!r} ({meant})")
    parser = command_parser(command)
    arguments = parser.parse_args(words[1:])
    return _answer(command, arguments)


def _help() -> str:
    width = max(len("gdb-script"), *(len(name) for name in COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items())
    parser = Parser(
        prog="kplug",
        usage=f"kplug COMMAND [OPTION...] [WORD...]\n       {_PROMPT_USAGE}",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(commands=commands),
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    return parser.format_help()


def prompt_parser() -> Parser:
    """The parser of a command line without a command: which kernel the prompt is opened on, and what it is to do."""
    parser = Parser(
        prog="kplug",
        usage=_PROMPT_USAGE,
        description=_PROMPT_DESCRIPTION,
        epilog=_PROMPT_EPILOG,
        formatter_class=HelpFormatter,
    )
    _add_memory_arguments(parser.add_argument_group("the kernel"))
    parser.add_argument("-e", dest="commands", metavar="CMD", action="append", default=[], help="run CMD, then leave")
    _add_color_argument(parser)
    return parser


def _prompt_arguments(words: list[str]) -> argparse.Namespace:
    for option in _FILES_ONLY:
        if any(word.partition("=")[0] == f"--{option}" for word in words):
            raise UsageError(f"kplug: --{option} goes with files alone (kplug where -s FILE): here memory tells")
    return prompt_parser().parse_args(words)


class _Once(argparse.Action):
    """An option that would be lost silently if it were given twice."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, name: Any = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{name}: given twice")
        setattr(namespace, self.dest, value)


def _add_memory_arguments(which: argparse._ArgumentGroup) -> None:
    """The options that name a kernel which has memory."""
    which.add_argument(
        "-s", "--vmlinux", metavar="FILE", action=_Once, help="the vmlinux (default: the running kernel's)"
    )
    which.add_argument("--vmlinuz", metavar="FILE", action=_Once, help="the boot image, where there is no vmlinux")
    which.add_argument("--system-map", metavar="FILE", action=_Once, help="the build's System.map")
    which.add_argument(
        "--kallsyms", metavar="FILE", action=_Once, help="/proc/kallsyms as saved on the machine in question"
    )
    which.add_argument("-c", "--core", metavar="FILE", action=_Once, help="a vmcore, or /proc/kcore (needs drgn)")
    which.add_argument("--qemu", metavar="QMP", help="a QEMU guest, by its QMP socket (needs drgn)")
    which.add_argument("--vmcoreinfo", metavar="FILE", help="the text of VMCOREINFO, for a vmcore that has none")
    which.add_argument(
        "--module-dir", metavar="DIR", action="append", default=[], help="where the modules' debug files are"
    )


def _add_color_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="colours; auto: on a terminal only"
    )


def command_parser(command: Command) -> Parser:
    """The parser of a command at the shell: its own words, and the options that say which kernel is asked about."""
    parser = command.parser(f"kplug {command.name}")
    which = parser.add_argument_group("the kernel")
    _add_memory_arguments(which)
    which.add_argument(
        "--module",
        metavar="FILE@ADDR",
        action="append",
        default=[],
        help="a module and where its text is (FILE@ADDR,.data=ADDR for more of it); may be given more than once",
    )
    which.add_argument(
        "--kaslr",
        metavar="auto|none|OFFSET",
        default="auto",
        help="how far the kernel was moved, in hexadecimal (--kaslr=-0x... if down); auto: as far as the running "
        "kernel, if the vmlinux is its own",
    )
    which.add_argument("--lds", metavar="FILE", help="the build tree's preprocessed vmlinux.lds, refines the regions")
    which.add_argument("--map", metavar="FILE", help="the build tree's vmlinux.map, adds object files")
    if command.name == "where":
        parser.add_argument(
            "-l",
            "--lines",
            action="store_true",
            help="source lines and inlined callers (needs drgn; always with -c or --qemu)",
        )
    _add_color_argument(parser)
    return parser


def _answer(command: Command, arguments: argparse.Namespace) -> int:
    if command.words and not getattr(arguments, command.words):
        raise UsageError(f"kplug {command.name}: nothing is asked (- reads words from standard input)")
    session = _command_session(command, arguments)
    renderer = Renderer(arguments, _style(arguments.color, sys.stdout), _width(sys.stdout))
    status = ANSWERED
    write = sys.stdout.write
    for output in _outputs(command, session, arguments):
        if isinstance(output, Problem):
            status = NOT_ALL_ANSWERED
            sys.stdout.flush()
            _complain(output.message)
            continue
        for line in renderer.lines(output):
            write(line + "\n")
    sys.stdout.flush()
    return status


def _command_session(command: Command, arguments: argparse.Namespace) -> Session:
    """The kernel that is asked about; an empty session for a command that is given a file to look at by itself."""
    if not command.file_word or getattr(arguments, command.file_word) is None:
        try:
            return _session(arguments)
        except _NothingToldError:
            if not command.file_word:
                raise
            # No addresses are known, and what the kernel says of itself needs none.
            return Session([], hints=_HINTS, is_running=True)
    for option in ("vmlinux", "vmlinuz", "system_map", "kallsyms", "core", "qemu"):
        if getattr(arguments, option):
            name = "--" + option.replace("_", "-")
            raise UsageError(f"kplug {command.name}: a FILE is looked at by itself, without {name}")
    return Session([], hints=_HINTS)


def _outputs(command: Command, session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    """The command's outputs; among its words, `-` stands for those on standard input, one a line."""
    given = getattr(arguments, command.words) if command.words else ()
    if "-" not in given:
        yield from command.run(session, arguments)
        return
    words = (word for each in given for word in (_lines(sys.stdin) if each == "-" else (each,)) if word)
    yield from command.run(session, argparse.Namespace(**{**vars(arguments), command.words: words}))


def _lines(stream: TextIO | None) -> Iterator[str]:
    """The lines of a stream, stripped. One much too long for an expression comes as its start, still too long."""
    while stream is not None:
        line = stream.readline(2 * MAX_LENGTH)
        if not line:
            return
        yield line if len(line) == 2 * MAX_LENGTH else line.strip()
        while line and not line.endswith("\n"):
            line = stream.readline(2 * MAX_LENGTH)


# Options that place or refine the files of a kernel without memory, and what they are where they are not given.
_FILES_ONLY: dict[str, object] = {"kaslr": "auto", "module": [], "lds": None, "map": None}


def _session(arguments: argparse.Namespace) -> Session:
    return _memory_session(arguments) if arguments.core or arguments.qemu else _file_session(arguments)


def _memory_session(arguments: argparse.Namespace) -> Session:
    """A kernel that has memory: a vmcore, a guest."""
    for option, value in _FILES_ONLY.items():
        if getattr(arguments, option) != value:
            raise UsageError(f"kplug: --{option} goes with files alone: memory tells where things are")
    request = _request(arguments)
    from kplug.runtime.session import open_session

    return open_session(request, lines=getattr(arguments, "lines", False))


def _request(arguments: argparse.Namespace) -> Request:
    """What the options name. UsageError without drgn."""
    if arguments.core and arguments.qemu:
        raise UsageError("kplug: -c and --qemu: only one kernel can be asked about")
    try:
        from kplug.runtime.opening.opening import Request
    except ImportError:
        raise UsageError("vmcores and guests are read through drgn, which is not installed: pip install drgn") from None
    return Request(
        core=arguments.core,
        qemu=arguments.qemu,
        symbols=(arguments.vmlinux,) if arguments.vmlinux else (),
        module_directories=tuple(arguments.module_dir),
        vmcoreinfo=arguments.vmcoreinfo,
        joined=_joined(arguments),
    )


def _joined(arguments: argparse.Namespace) -> Joined | None:
    """What stands for the vmlinux of a kernel that has memory; None where no such file was given."""
    if arguments.kallsyms:
        raise UsageError("kplug: --kallsyms goes with files alone: memory has the kernel's own")
    if not arguments.vmlinuz and not arguments.system_map:
        return None
    from kplug.image.opening.sources import Given, join

    return join(Given(arguments.vmlinux, arguments.vmlinuz, arguments.system_map))


def _prompt(arguments: argparse.Namespace) -> int:
    """The prompt, a script on standard input, or the commands of -e. Returns the exit status."""
    if not arguments.core and not arguments.qemu and not os.access(_MEMORY, os.R_OK):
        if not os.path.exists(_MEMORY):
            raise UsageError(
                f"kplug: no {_MEMORY} here: the running kernel's memory cannot be read (-c VMCORE opens a dump)"
            )
        raise UsageError("kplug: the running kernel's memory is root's to read: sudo kplug (-c VMCORE opens a dump)")
    request = _request(arguments)
    from kplug.repl.main import run

    return run(request, arguments.commands, arguments.color)


def _file_session(arguments: argparse.Namespace) -> Session:
    named = ("vmlinux", "vmlinuz", "system_map", "kallsyms", *_FILES_ONLY)
    if all(getattr(arguments, option) == _FILES_ONLY.get(option) for option in named):
        return _live_session(getattr(arguments, "lines", False))
    images, used, warnings = _kernel_images(arguments)
    for specification in arguments.module:
        module = open_module(specification)
        images.append(PlacedImage(module, as_linked(module.sections, "--module")))
        _check_apart(images)
    if not images:
        raise UsageError("kplug: no vmlinux given, and none found for the running kernel (give one with -s FILE)")
    lines = None
    if getattr(arguments, "lines", False):
        from kplug.runtime.types.lines import DrgnLines

        lines = DrgnLines(images)
        warnings = (*warnings, *lines.warnings)
    return Session(images, lines=lines, warnings=warnings, ways=used, hints=_HINTS)


class _NothingToldError(UsageError):
    """The running kernel tells no addresses, and no file does."""


def _live_session(lines: bool) -> Session:
    """The running kernel, by what it and the files of its machine tell. UsageError if that is nothing."""
    from kplug.live import machine
    from kplug.live.kernel import open_live

    live = open_live(machine.Machine())
    if not live.images:
        why = "; ".join(live.unused)
        raise _NothingToldError(
            f"kplug: no vmlinux given (-s FILE), and the running kernel tells nothing (kplug doctor): {why}"
        )
    source = None
    if lines:
        from kplug.runtime.types.lines import DrgnLines

        source = DrgnLines(live.images)
        live.warnings += source.warnings
    return Session(live.images, lines=source, warnings=live.warnings, ways=(*live.used, *live.unused), hints=_HINTS)


def _kernel_images(arguments: argparse.Namespace) -> tuple[list[PlacedImage], Sequence[str], Sequence[str]]:
    """The kernel as the files that were given have it, with the modules of a kallsyms, what was used of which, and
    what is to be said of them."""
    if arguments.lds or arguments.map:
        return [_refined_vmlinux(arguments)], (), ()
    from kplug.image.opening.sources import Given, join

    given = Given(arguments.vmlinux, arguments.vmlinuz, arguments.system_map, arguments.kallsyms)
    if not given:
        path = running_vmlinux()
        if path is None:
            return [], (), ()
        given = Given(path)
    joined = join(given)
    if joined.placement is not None and arguments.kaslr != "auto":
        raise UsageError("kplug: --kaslr and --kallsyms: the addresses in the latter say where the kernel is")
    placed = PlacedImage(joined.image, joined.placement or _placement(joined.image, arguments.kaslr))
    placed.disputed = joined.disputed
    modules = _listed_modules(joined, placed.image.machine, arguments.kallsyms)
    return [placed, *modules], joined.used, joined.warnings


def _listed_modules(joined: Joined, machine: str, path: str) -> list[PlacedImage]:
    """The modules of a saved kallsyms in their places."""
    if not joined.modules:
        return []
    from kplug.image.listed_modules import PlacedListing, listed_module

    return [
        PlacedListing(listed_module(name, symbols, machine, path), Placement(0, path))
        for name, symbols in joined.modules.items()
    ]


def _refined_vmlinux(arguments: argparse.Namespace) -> PlacedImage:
    """The vmlinux, with the regions that its build tree tells."""
    if arguments.vmlinux is None or arguments.vmlinuz or arguments.system_map or arguments.kallsyms:
        raise UsageError("kplug: --lds and --map are of the build of a vmlinux: they go with -s FILE")
    script = link_map = None
    if arguments.lds:
        from kplug.linker.script_parser import read_linker_script

        script = read_linker_script(arguments.lds)
    if arguments.map:
        from kplug.linker.link_map import parse_link_map

        link_map = parse_link_map(arguments.map)
    image = open_vmlinux(arguments.vmlinux, script, link_map)
    return PlacedImage(image, _placement(image, arguments.kaslr))


def _placement(image: KernelImage, kaslr: str) -> Placement:
    if kaslr == "none":
        return as_linked(image.extents)
    if kaslr == "auto":
        slide = running_slide(image)
        if slide is not None:
            return slid(image.extents, slide, "running kernel, /proc/kallsyms")
        return as_linked(image.extents, "as linked; no KASLR offset is known", known=False)
    # In hexadecimal with or without 0x: the kernel's own KERNELOFFSET= has none.
    match = re.fullmatch(r"(?P<sign>[+-]?)(?:0[xX])?(?P<digits>[0-9a-fA-F]{1,16})", kaslr)
    if match is None:
        raise UsageError(f"--kaslr {kaslr}: auto, none or an offset in hexadecimal (0x8a00000) is needed")
    offset = int(match.group("digits"), 16)
    if offset % _SMALLEST_PAGE:
        raise UsageError(f"--kaslr {kaslr}: a kernel is moved by whole pages, and {offset:#x} is none of that")
    return slid(image.extents, -offset if match.group("sign") == "-" else offset, "--kaslr")


def _check_apart(images: Sequence[PlacedImage]) -> None:
    """UsageError if the last image, a module, was placed over another one."""
    *others, module = images
    for section in module.image.sections:
        if not section.occupies_addresses:
            continue
        for other in others:
            for address in (section.address, section.end - 1):
                if other.piece(address) is not None:
                    raise UsageError(
                        f"--module: {section.name} of {module.image.name} at {section.address:#x} lies over "
                        f"{other.image.name}"
                    )


def _style(when: str, stream: TextIO) -> Style:
    """Colours where asked for; by default on a terminal that takes them, unless NO_COLOR is set (no-color.org)."""
    if when == "auto":
        wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    else:
        wanted = when == "always"
    return COLOURED if wanted else PLAIN


def _width(stream: TextIO) -> int | None:
    """The columns of a terminal; None where output goes elsewhere, so that nothing is cut."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _complain(message: str) -> None:
    if sys.stderr is not None:
        named = message.startswith(("kplug: ", "kplug "))
        print(safe(message if named else f"kplug: {message}"), file=sys.stderr)


def gdb_script() -> str:
    """The path of the script that gdb sources: the checkout's, or the one that travels in the installed package."""
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    beside = os.path.dirname(package)
    for path in (os.path.join(beside, "gdb", "kplug.py"), os.path.join(beside, "kplug_gdb", "kplug.py")):
        if os.path.isfile(path):
            return path
    raise InputError("the gdb script is not beside the package: install kplug again")
