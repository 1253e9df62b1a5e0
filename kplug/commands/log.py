"""klog: the kernel's log, from the memory of the kernel that is open."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kplug.commands.annotated import memory_target
from kplug.commands.base import Command
from kplug.outputs import Log, Output, Problem

if TYPE_CHECKING:
    from kplug.memory.printk import Source
    from kplug.memory.vmcoreinfo import VmcoreInfo
    from kplug.session import Session
    from kplug.target import Target


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-e", "--events", action="store_true", help="the events alone, one line each: an oops, a stall")
    form.add_argument("--plain", action="store_true", help="the log alone, as dmesg prints it")
    form.add_argument("--json", action="store_true", help="objects for events and addresses, one per line")
    parser.add_argument(
        "--caller", action="store_true", help="before the text who wrote it: a task, [  T123], or a CPU, [    C1]"
    )


def _run(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    from kplug.memory.printk import read_log

    log = read_log(_source(session, memory_target(session, "log")))
    # Which lines are one event's, the callers tell where several CPUs wrote at once.
    text = log.text(log.prints_callers or arguments.caller or arguments.events)
    if arguments.plain or arguments.events:
        yield Log(text, events=arguments.events)
    else:
        from kplug.annotate.answers import LogAnswers

        answers = LogAnswers(session)
        yield Log(text, answers)
        yield from map(Problem, answers.unresolved)
    yield from map(Problem, log.missing)
    if not log.records and not log.missing:
        yield Problem("the kernel's log is empty")


def _source(session: Session, target: Target) -> Source:
    """Where the log is, and its form."""
    from kplug.memory.kernel_note import kernels_note
    from kplug.memory.printk import Layouts, Source

    main = session.main
    info: VmcoreInfo | None = target.vmcoreinfo()
    if info is None and main is not None:
        info = kernels_note(main, target.read)

    def symbols(name: str) -> Sequence[int]:
        if info is not None and name in info.symbols:
            return (info.symbols[name],)
        return [] if main is None else [main.symbol_address(each) for each in main.image.symbols.exact(name)]

    return Source(target.read, session.word, symbols, Layouts(info, session.types))


LOG = Command(
    name="log",
    summary="the kernel's log (dmesg) in its memory, explained",
    description="""Print the log in the kernel's memory as dmesg does, and below each line, after `#> `, what the
addresses and symbols in it are, as `kplug annotate` does for a log in a file.""",
    examples=(
        ("", "the log, explained"),
        ("-e", "the events in it, a line each"),
        ("--plain", "the log alone"),
    ),
    add_arguments=_add_arguments,
    run=_run,
    needs_types=False,
)
