"""The command line: its options, and the `Source` that it describes."""

from __future__ import annotations

import argparse
import re
from typing import Any

from kplug.commands import COMMANDS
from kplug.commands.base import Command, HelpFormatter, Parser
from kplug.errors import UsageError
from kplug.expressions import Hints
from kplug.source import Source

HINTS = Hints(
    vmlinux="give one with -s FILE",
    module="--module FILE@ADDR,SECTION=ADDR",
    module_file="--module-dir DIR answers within its file",
    kaslr_offset="--kaslr OFFSET; an oops prints it as Kernel Offset",
    memory="-c VMCORE, or --qemu QMP",
)

_DESCRIPTION = "What is this kernel address? Symbol, section, segment and linker-script region, from a vmlinux."
_EPILOG = """Without a command a prompt opens, on a vmcore, a guest or the running kernel (see `kplug -c FILE --help`).

commands:
{commands}
  annotate    a log, an oops or a trace, with an answer for each address in it
  extract     write the kernel that is packed in a vmlinuz
  doctor      what is there for answers about the running kernel, and what is missing
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


# Options that place or refine the files of a kernel without memory, and their defaults.
FILES_ONLY: dict[str, object] = {"kaslr": "auto", "module": [], "lds": None, "map": None}


def help_text() -> str:
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
    """The parser of a command line without a command: the kernel to open the prompt on, and commands to run."""
    parser = Parser(
        prog="kplug",
        usage=_PROMPT_USAGE,
        description=_PROMPT_DESCRIPTION,
        epilog=_PROMPT_EPILOG,
        formatter_class=HelpFormatter,
    )
    add_memory_arguments(parser.add_argument_group("the kernel"))
    parser.add_argument("-e", dest="commands", metavar="CMD", action="append", default=[], help="run CMD, then leave")
    add_color_argument(parser)
    return parser


def prompt_arguments(words: list[str]) -> argparse.Namespace:
    for option in FILES_ONLY:
        if any(word.partition("=")[0] == f"--{option}" for word in words):
            raise UsageError(f"kplug: --{option} is only for files without memory (kplug where -s FILE)")
    return prompt_parser().parse_args(words)


class _Once(argparse.Action):
    """An option that must not be given twice: the first one would be lost silently."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, name: Any = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{name}: given twice")
        setattr(namespace, self.dest, value)


def add_memory_arguments(which: argparse._ArgumentGroup) -> None:
    """The options that name a kernel with memory."""
    which.add_argument(
        "-s", "--vmlinux", metavar="FILE", action=_Once, help="the vmlinux (default: the running kernel's)"
    )
    which.add_argument("--vmlinuz", metavar="FILE", action=_Once, help="the boot image, if there is no vmlinux")
    which.add_argument("--system-map", metavar="FILE", action=_Once, help="the build's System.map")
    which.add_argument(
        "--kallsyms", metavar="FILE", action=_Once, help="/proc/kallsyms as saved on the machine in question"
    )
    which.add_argument(
        "-c",
        "--core",
        metavar="FILE",
        action="append",
        default=[],
        help="a vmcore, or /proc/kcore (needs drgn); a split one by any of its parts, or by each",
    )
    which.add_argument(
        "--raw",
        metavar="RANGES",
        action=_Once,
        help="the core is a raw image of memory, with these physical ranges: 0, or 0-bfffffff,100000000",
    )
    which.add_argument("--qemu", metavar="QMP", help="a QEMU guest, by its QMP socket (needs drgn)")
    which.add_argument("--vmcoreinfo", metavar="FILE", help="the text of VMCOREINFO, for a vmcore that has none")
    which.add_argument(
        "--module-dir", metavar="DIR", action="append", default=[], help="a folder with the modules' debug files"
    )


def add_files_arguments(which: argparse._ArgumentGroup) -> None:
    """The options that place or refine the files of a kernel without memory."""
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


def add_color_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="colours; auto: on a terminal only"
    )


def command_parser(command: Command) -> Parser:
    """The parser of a command at the shell: its own arguments, and the options that name the kernel."""
    parser = command.parser(f"kplug {command.name}")
    which = parser.add_argument_group("the kernel")
    add_memory_arguments(which)
    add_files_arguments(which)
    add_color_argument(parser)
    return parser


def source_of(arguments: argparse.Namespace) -> Source:
    """The kernel that the options name. UsageError for options that do not go together."""
    has_memory = bool(arguments.core or arguments.qemu)
    if has_memory:
        for option, value in FILES_ONLY.items():
            if getattr(arguments, option, value) != value:
                raise UsageError(f"kplug: --{option} is only for files without memory: memory shows where things are")
    files = argparse.Namespace(**{**FILES_ONLY, "lines": False, **vars(arguments)})
    core, *parts = files.core or (None,)
    if files.raw is not None and core is None:
        raise UsageError("kplug: --raw has the ranges of a core: it needs -c FILE")
    return Source(
        vmlinux=files.vmlinux,
        vmlinuz=files.vmlinuz,
        system_map=files.system_map,
        kallsyms=files.kallsyms,
        core=core,
        core_parts=tuple(parts),
        raw=files.raw,
        qemu=files.qemu,
        vmcoreinfo=files.vmcoreinfo,
        module_directories=tuple(files.module_dir),
        modules=tuple(files.module),
        kaslr_offset=_kaslr_offset(files.kaslr),
        linker_script=files.lds,
        link_map=files.map,
        lines=files.lines,
    )


def _kaslr_offset(word: str) -> int | None:
    """The offset that --kaslr gives in bytes; None for `auto`."""
    if word == "auto":
        return None
    if word == "none":
        return 0
    # In hexadecimal with or without 0x: the kernel's own KERNELOFFSET= has no 0x.
    match = re.fullmatch(r"(?P<sign>[+-]?)(?:0[xX])?(?P<digits>[0-9a-fA-F]{1,16})", word)
    if match is None:
        raise UsageError(f"--kaslr {word}: must be auto, none or an offset in hexadecimal (0x8a00000)")
    offset = int(match.group("digits"), 16)
    return -offset if match.group("sign") == "-" else offset
