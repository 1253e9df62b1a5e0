"""kwhere: what is this address?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kplug.commands.base import Command, add_json_argument, add_pid_argument
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.expressions import PHYSICAL, join_hints, with_hint
from kplug.log_places import is_log_line
from kplug.outputs import Output, Problem

if TYPE_CHECKING:
    from kplug.model import Annotation
    from kplug.session import Session


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("expressions", nargs="*", metavar="EXPR", help="an address, or an expression that has one")
    parser.add_argument("-b", "--brief", action="store_true", help="only the one-line answer")
    parser.add_argument(
        "-l",
        "--lines",
        action="store_true",
        help="source lines and inlined callers (for files alone only with this, and drgn); with --brief FILE:LINE",
    )
    parser.add_argument("--physical", action="store_true", help="EXPR is a physical address, as with phys:")
    add_pid_argument(parser)
    parser.add_argument(
        "--members",
        action="store_true",
        help="also which member it may be of the structures that the selected frame's variables point to (guesses)",
    )
    add_json_argument(parser)


def _run(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    words = arguments.expressions
    # Those of standard input come one by one, and each is answered before the next is read.
    if isinstance(words, list):
        line = " ".join(words)
        words = [line] if is_log_line(line) else join_hints(words)
    is_plain = not arguments.physical and not arguments.members
    with session.program(arguments.pid):
        for expression in words:
            try:
                plain = session.where_plain(expression) if is_plain else None
                if plain is not None:
                    yield plain
                    continue
                in_modules = session.in_modules(expression)
                answers = session.where(f"{PHYSICAL}{expression}" if arguments.physical else expression)
                yield from in_modules or (answers if not arguments.members else _with_members(session, answers))
            except (ExpressionError, TargetError) as error:
                yield Problem(str(error))


def _with_members(session: Session, answers: Iterator[Annotation]) -> Iterator[Annotation]:
    from kplug.members import with_guesses  # rarely asked for

    if session.target is None:
        needs = "--members: needs a debugger, whose selected frame has the variables"
        raise UsageError(with_hint(needs, session.hints.memory))
    named = session.target.pointed_types()
    sources = session.types()
    return (with_guesses(answer, named, sources) for answer in answers)


WHERE = Command(
    name="where",
    summary="what is this address?",
    description="""Say what an address is: area, image, segment, section, linker-script region and symbol,
from the widest thing that holds it to the narrowest.

EXPR is an address (0xffffffff81a114f4, or bare as the kernel prints it), a symbol with or without an offset
(schedule, schedule+0x10, schedule+0x10/0xc7, &init_task, inode.c:init_once), a section (.rodata+0x10), or a CPU's
own copy of a per-CPU variable (runqueues@1, runqueues@1+0x10; runqueues@* for all CPUs), or a physical address
(phys:0x2cf7000): the answer is that of the direct map, with all other mappings.

A line of a log is taken as it is, with all that is around the symbol or the address ([   12.345678] RIP: 0010:...).

EXPR as TYPE (0x18 as struct task_struct, $rdi+8 as struct page) also says which member it is: in the object that is
known to be there, else counted from NULL or a poison; EXPR as TYPE at START says where the structure begins.

"(to the next symbol)", in the one-line answer "(sizeless)": no source states the symbol's size, and it is assumed
to reach to the next one.""",
    examples=(
        ("0xffffffff81a114f4", "an address"),
        ("schedule+0x10/0xc7", "as an oops prints it"),
        ("-bl schedule+0x10", "one line, FILE:LINE at its end"),
        ("0x18 as struct task_struct", "which member a NULL pointer was to have"),
        ("--json .init.data+0x40", "for a script"),
    ),
    add_arguments=_add_arguments,
    run=_run,
    takes_symbols=True,
    words="expressions",
)
