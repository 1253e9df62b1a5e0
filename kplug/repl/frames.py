"""bt, frame, up, down, thread and cpu: select the thread and frame that the registers and `$pc` belong to."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug.commands.base import add_json_argument
from kplug.commands.stacks_entered import stacks_entered
from kplug.errors import TargetError, UsageError
from kplug.image.source_paths import in_tree
from kplug.outputs import Column, Hex, Output, Table
from kplug.repl.builtin import PromptCommand

if TYPE_CHECKING:
    from kplug.runtime.threads.frame import Frame
    from kplug.runtime.threads.selection import Selection, Thread
    from kplug.session import Session

_FRAMES = (
    Column("#", "number", right=True),
    Column("PC", "pc"),
    Column("FUNCTION", "function"),
    Column("STACK", "stack"),
    Column("LINE", "line"),
)
_THREADS = (
    Column("", "selected"),
    Column("CPU", "cpu", right=True),
    Column("PID", "pid", right=True),
    Column("COMM", "comm"),
    Column("", "note"),
)


def selection_of(session: Session) -> Selection:
    """The session's selected thread and frame."""
    from kplug.runtime.drgn_target import DrgnTarget  # drgn, which --help does not need

    if not isinstance(session.target, DrgnTarget):
        raise TargetError("this target has no threads")
    return session.target.selection


def _bt(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    selection = selection_of(session)
    before = selection.selected
    if arguments.pid is not None:
        selection.select_thread(arguments.pid)
    try:
        thread, frames = selection.thread, selection.frames()
        # While the thread is selected: a user address is in its address space.
        shown = frames[: arguments.limit]
        stacks = stacks_entered(shown, session.target.stack_bounds) if session.target is not None else {}
        borders = {number: bounds.owner for number, bounds in stacks.items()} if len(stacks) > 1 else {}
        rows = [_frame_row(session, frame, borders.get(frame.number)) for frame in shown]
    finally:
        selection.select(before)
    yield Table("kplug.frames/1", _FRAMES, rows, title=_title(thread, frames))


def _title(thread: Thread, frames: Sequence[Frame] = ()) -> str:
    name = f"PID {thread}" if thread.task is not None else str(thread)
    if thread.problem is not None:
        name += f" ({thread.problem})"
    if frames and frames[-1].alone:
        return f"{name}: it kept running, so its callers are not known (stop the guest to see them)"
    return f"{name}: what called #{frames[-1].number} is not known" if frames and frames[-1].lost else name


def _frame_row(session: Session, frame: Frame, stack: str | None = None) -> dict[str, Any]:
    line = None
    if frame.drgn_frame is not None:
        try:
            file, number, _ = frame.drgn_frame.source()
            line = f"{in_tree(file)}:{number}"
        except LookupError:
            pass
    name = f"{frame.function} (inlined)" if frame.is_inline else frame.function or _symbol(session, frame)
    return {
        "number": frame.number,
        "pc": Hex(frame.pc),
        "function": f"? {name}" if frame.guessed else name,
        "stack": stack,
        "line": line,
        "guessed": frame.guessed,
    }


def _symbol(session: Session, frame: Frame) -> str | None:
    """What is at the program counter: it is an address, so a small one is no per-CPU variable's offset."""
    from kplug.commands.annotated import Annotator
    from kplug.summary import summarize

    return summarize(Annotator(session).place(frame.pc))[0]


def _frame(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    selection = selection_of(session)
    frame = selection.frame if arguments.number is None else selection.select_frame(arguments.number)
    yield Table("kplug.frames/1", _FRAMES, [_frame_row(session, frame)])


def _moved(direction: int, end: str) -> Callable[[Session, argparse.Namespace], Iterator[Output]]:
    def run(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
        selection = selection_of(session)
        now, last = selection.frame.number, len(selection.frames()) - 1
        wanted = now + direction * arguments.count
        if now == min(max(wanted, 0), last) and wanted != now:
            raise UsageError(f"this is the {end} frame")
        yield Table("kplug.frames/1", _FRAMES, [_frame_row(session, selection.select_frame(min(max(wanted, 0), last)))])

    return run


def _thread(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    selection = selection_of(session)
    if arguments.pid is not None:
        yield from _selected(session, selection.select_thread(arguments.pid))
        return
    yield _threads(selection)


def _cpu(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    selection = selection_of(session)
    if arguments.number is not None:
        yield from _selected(session, selection.select_cpu(arguments.number))
        return
    yield _threads(selection)


def _selected(session: Session, thread: Thread) -> Iterator[Output]:
    """The new selection: the thread, and its innermost frame if there is one."""
    selection = selection_of(session)
    try:
        rows = [_frame_row(session, selection.frame)]
    except TargetError:  # a running task of a live kernel
        yield _threads(selection, [thread])
        return
    yield Table("kplug.frames/1", _FRAMES, rows, title=_title(thread))


def _threads(selection: Selection, threads: Sequence[Thread] | None = None) -> Table:
    selected = selection.thread
    listed = list(threads if threads is not None else selection.threads())
    if not any(_same(thread, selected) for thread in listed):
        listed.append(selected)
    rows = [
        {
            "selected": "*" if _same(thread, selected) else "",
            "cpu": thread.cpu,
            "pid": thread.tid if thread.task is not None else None,
            "comm": thread.comm or None,
            "note": "crashed" if thread.crashed else "",
        }
        for thread in listed
    ]
    return Table("kplug.threads/1", _THREADS, rows)


def _same(one: Thread, other: Thread) -> bool:
    return (one.tid, one.cpu) == (other.tid, other.cpu)


def _number_argument(name: str, meaning: str) -> Callable[[argparse.ArgumentParser], None]:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(name.lower(), nargs="?", type=int, metavar=name, help=meaning)
        add_json_argument(parser)

    return add


def _count_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("count", nargs="?", type=int, default=1, metavar="N", help="by how many frames (default: 1)")
    add_json_argument(parser)


def _bt_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", nargs="?", type=int, metavar="PID", help="a task that is not the selected one")
    parser.add_argument("-n", "--limit", type=int, metavar="N", help="only the innermost N frames")
    add_json_argument(parser)


FRAME_COMMANDS = (
    PromptCommand(
        name="bt",
        summary="the stack trace of the selected thread, or of a task",
        description="""Show the frames of the selected thread (at first the one that crashed), innermost first.

Where the walk comes to another stack (an interrupt's, the task's), the first frame there names it. A frame with "?"
is a guess: nothing says how its callee is unwound, and a word on the stack looks like the return address.""",
        examples=(("", "of the selected thread"), ("1", "of the task with the PID 1")),
        add_arguments=_bt_arguments,
        run=_bt,
    ),
    PromptCommand(
        name="frame",
        other_names=("f",),
        summary="select a frame, whose registers $pc, $rsp, ... are",
        description="Select a frame of the stack by its number in bt. Without one, show the selected frame.",
        examples=(("2", "the frame #2 of bt"),),
        add_arguments=_number_argument("NUMBER", "the frame's number in bt"),
        run=_frame,
    ),
    PromptCommand(
        name="up",
        summary="select the frame that called this one",
        description="Select the frame that called the selected one.",
        examples=(("", "one frame up"), ("2", "two frames up")),
        add_arguments=_count_argument,
        run=_moved(1, "outermost"),
    ),
    PromptCommand(
        name="down",
        summary="select the frame that this one called",
        description="Select the frame that the selected one called.",
        examples=(("", "one frame down"), ("2", "two frames down")),
        add_arguments=_count_argument,
        run=_moved(-1, "innermost"),
    ),
    PromptCommand(
        name="thread",
        summary="select a task by its PID; without one, list those on the CPUs",
        description="Select a task by its PID and its innermost frame. Without a PID, list the tasks on the CPUs.",
        examples=(("", "the tasks on the CPUs"), ("1", "the task with the PID 1")),
        add_arguments=_number_argument("PID", "the task's ID"),
        run=_thread,
    ),
    PromptCommand(
        name="cpu",
        summary="select the task on a CPU; without one, list them",
        description="Select the task that runs on a CPU, and its innermost frame. Without a number, list them all.",
        examples=(("", "the tasks on the CPUs"), ("1", "the task on CPU 1")),
        add_arguments=_number_argument("NUMBER", "the CPU's number"),
        run=_cpu,
    ),
)
