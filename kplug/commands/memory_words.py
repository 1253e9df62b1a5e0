"""kx: words of memory, each with what it is; pointers followed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug.commands.annotated import TEXT, WHAT, Annotator, all_ones, memory_target, text_of
from kplug.commands.base import Command, add_json_argument, add_pid_argument
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.expressions import parse_number
from kplug.outputs import Column, Hex, Output, Problem, Table
from kplug.summary import summarize

if TYPE_CHECKING:
    from kplug.session import Session
    from kplug.target import Target

_COLUMNS = (
    Column("ADDRESS", "address", role="address"),
    Column("OFFSET", "offset", right=True),
    Column("VALUE", "value"),
    WHAT,
    TEXT,
    Column("", "note", role="warning"),
)
_COUNT = 8
_MAX_COUNT = 1 << 16
_MAX_DEPTH = 16
_PAGE = 0x1000
_NOT_THERE = "shown as zeros, but the dump does not contain this page: it held only zeros, or was excluded"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="+",
        metavar="ADDR [COUNT]",
        help=f"the address to start at, and the number of words (default: {_COUNT})",
    )
    parser.add_argument(
        "-f", "--follow", action="count", default=0, help="show what pointers point to as well; -ff: two levels, ..."
    )
    parser.add_argument("--size", type=int, choices=(1, 2, 4, 8), help="bytes of a word (default: those of a pointer)")
    add_pid_argument(parser)
    add_json_argument(parser)


def _run(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    target = memory_target(session, "memory words")
    expression, count = _asked(list(arguments.words))
    if arguments.follow > _MAX_DEPTH:
        raise UsageError(f"pointers are followed over {_MAX_DEPTH} levels at most")
    words = _Words(session, target, arguments.size or session.word.size, arguments.follow)
    with session.program(arguments.pid):
        try:
            starts = [place.address for place in session.places(expression)]
        except (ExpressionError, TargetError) as error:
            yield Problem(str(error))
            return
        for start in starts:
            yield from words.outputs(start, count)


def _asked(words: Sequence[str]) -> tuple[str, int]:
    """The expression and the count: the last word, if it is a number and the others are an expression without it."""
    if (
        len(words) > 1
        and re.fullmatch(r"0[xX][0-9a-fA-F]+|[0-9]+", words[-1])
        and not words[-2].endswith(tuple("+-*/"))
    ):
        count = parse_number(words[-1]) or 0
        if not 0 < count <= _MAX_COUNT:
            raise UsageError(f"{words[-1]}: 1 to {_MAX_COUNT} words can be shown")
        return " ".join(words[:-1]), count
    return " ".join(words), _COUNT


class _Words:
    """Reads words of one size, and says what they are."""

    def __init__(self, session: Session, target: Target, size: int, depth: int) -> None:
        self._session = session
        self._target = target
        self._size = size
        self._end = session.word.mask + 1
        self._order = session.word.order
        self._pointers = size == session.word.size
        self._depth = depth
        self._annotator = Annotator(session, all_ones(session))

    def outputs(self, start: int, count: int) -> Iterator[Output]:
        """A table for each range that can be read, and a line for each that cannot."""
        title = f"{start:#x}  {self._place(start)}".rstrip()
        end = min(start + count * self._size, self._end)
        here, rows, unreadable = start, list[dict[str, Any]](), None
        unsure: list[Problem] = []
        while here < end:
            step = min(end, (here | (_PAGE - 1)) + 1) - here
            step += -step % self._size  # a word across the page's end
            try:
                data = self._session.read(here, step)
            except TargetError as error:
                if rows:
                    yield Table("kplug.memory/1", _COLUMNS, rows, title, indented="address")
                    rows = []
                unreadable = unreadable or (here, str(error))
            else:
                if unreadable is not None:
                    yield self._not_readable(*unreadable, here)
                    unreadable = None
                if not any(data) and self._target.is_zero_filled(here):
                    unsure.append(Problem(f"{here:#x}-{here + step:#x}: {_NOT_THERE}"))
                for place in range(0, step, self._size):
                    rows += self._rows(start, here + place, data[place : place + self._size])
            here += step
        if rows:
            yield Table("kplug.memory/1", _COLUMNS, rows, title, indented="address")
        if unreadable is not None:
            yield self._not_readable(*unreadable, end)
        yield from unsure

    def _not_readable(self, start: int, why: str, end: int) -> Problem:
        return Problem(f"{start:#x}-{end:#x} cannot be read: {why}")

    def _place(self, address: int) -> str:
        return str(summarize(self._annotator.where(address)))

    def _rows(self, start: int, address: int, data: bytes) -> Iterator[dict[str, Any]]:
        row = {"address": Hex(address), "offset": Hex(address - start), **self._value(data), "depth": 0, "note": None}
        yield row
        if self._pointers:
            yield from self._followed(row["value"], (address,), self._depth)

    def _followed(self, pointer: int, seen: tuple[int, ...], depth: int) -> Iterator[dict[str, Any]]:
        """What a pointer points to, and so on; `seen` has the addresses on the way here."""
        if not depth or not pointer >> (8 * self._size - 1):
            return  # not a kernel address
        row: dict[str, Any] = {"address": Hex(pointer), "offset": None, "depth": len(seen), "note": None}
        if pointer in seen:
            yield {**row, **self._nothing(), "note": "points back to here"}
            return
        try:
            data = self._session.read(pointer, self._size)
        except TargetError:
            return  # the row already says what it is
        row = {**row, **self._value(data)}
        yield row
        yield from self._followed(row["value"], (*seen, pointer), depth - 1)

    def _value(self, data: bytes) -> dict[str, Any]:
        value = int.from_bytes(data, self._order)
        annotation = self._annotator.telling(value) if self._pointers else None
        text = text_of(data) if annotation is None else None
        return {"value": Hex(value), **self._annotator.fields(annotation), "text": text}

    def _nothing(self) -> dict[str, Any]:
        return {"value": None, **self._annotator.fields(None), "text": None}


X = Command(
    name="x",
    summary="words of memory, each with what it is",
    description="""Show COUNT words of memory from ADDR on, with the one-line answer for each that is an address.

ADDR is anything that kwhere takes. With -f what a pointer points to is shown below it, indented.
--pid PID reads user addresses as that process has them.""",
    examples=(
        ("init_task 16", "16 words"),
        ("-f 0xffffffff82a1aa40", "with what they point to"),
        ("--size 4 jiffies 2", "words of 4 bytes"),
        ("--pid 1 0x401000", "of a process"),
    ),
    add_arguments=_add_arguments,
    run=_run,
    takes_symbols=True,
)
