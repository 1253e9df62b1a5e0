"""kstack: every word of a stack, with what it is; return addresses distinguished from data that looks like them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug.commands.annotated import TEXT, WHAT, Annotator, all_ones, memory_target, text_of
from kplug.commands.base import Command, add_json_argument
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.outputs import Column, Hex, Output, Problem, Table

if TYPE_CHECKING:
    from kplug.commands.return_addresses import ReturnAddresses
    from kplug.session import Session
    from kplug.target import StackBounds, Target

_COLUMNS = (
    Column("ADDRESS", "address", role="address"),
    Column("OFFSET", "offset", right=True),
    Column("VALUE", "value"),
    Column("FRAME", "mark", role="label"),
    Column("KIND", "kind"),
    WHAT,
    TEXT,
)
# What a word is. A return address is recognised by the call before it, or belongs to a frame.
RETURN, CODE, DATA = "ret", "code?", "data"
# Where an exception or interrupt occurred.
INTERRUPTED = "ip"
# Words shown where the stack's end is not known.
_UNBOUNDED_WORDS = 64
# More than any stack has; a larger limit is refused.
_MAX_WORDS = 1 << 16
_PAGE = 0x1000


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "address", nargs="*", metavar="ADDR", help="the address to start at (default: the stack pointer)"
    )
    parser.add_argument("-r", "--returns", action="store_true", help="only return addresses")
    parser.add_argument("-n", "--words", type=int, metavar="N", help="N words, even beyond the stack's end")
    add_json_argument(parser)


def _run(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    target = memory_target(session, "a stack")
    if arguments.words is not None and not 0 < arguments.words <= _MAX_WORDS:
        raise UsageError(f"--words {arguments.words}: 1 to {_MAX_WORDS} words can be shown")
    size = session.word.size
    try:
        start = _start(session, target, " ".join(arguments.address)) & -size
    except ExpressionError as error:
        yield Problem(str(error))
        return
    bounds = target.stack_bounds(start)
    if bounds is not None and arguments.words is None:
        start = max(start, bounds.start)  # it has overflowed
    end = _end(start, bounds, arguments.words, size)
    data, problem = _read(target, start, end - start)
    order = session.word.order
    words = [int.from_bytes(data[place : place + size], order) for place in range(0, len(data) - size + 1, size)]
    rows = list(_Stack(session, target, start, words).rows())
    if arguments.returns:
        rows = [row for row in rows if row["kind"] in (RETURN, INTERRUPTED)]
    if rows:
        yield Table("kplug.stack/1", _COLUMNS, rows, _title(start, bounds, arguments.words))
    elif problem is None:
        yield Problem(f"no return address in {len(words)} words from {start:#x}")
    if problem is not None:
        yield problem


def _start(session: Session, target: Target, expression: str) -> int:
    if expression:
        found = session.places(expression)
        if len(found) > 1:
            shown = ", ".join(f"{place.address:#x}" for place in found)
            raise ExpressionError(f"{expression}: {len(found)} symbols have this name: {shown}")
        return found[0].address
    pointer = target.stack_pointer()
    if pointer is None:
        target.registers()  # the error says why there is none
        raise TargetError("the stack pointer is not known: give an address")
    if not session.word.is_kernel(pointer):
        raise TargetError(
            f"the stack pointer, {pointer:#x}, is in user space: the CPU was in user mode, its kernel stack is empty"
        )
    return pointer


def _end(start: int, bounds: StackBounds | None, words: int | None, size: int) -> int:
    if words is not None:
        return start + words * size
    return bounds.end if bounds is not None else start + _UNBOUNDED_WORDS * size


def _title(start: int, bounds: StackBounds | None, words: int | None) -> str:
    if bounds is None:
        limit = "" if words is not None else f": {_UNBOUNDED_WORDS} words are shown (--words N)"
        return f"which stack {start:#x} is on is not known{limit}"
    return f"{bounds.owner}: {bounds.start:#x}-{bounds.end:#x}, {bounds.end - start:#x} bytes in use ({bounds.source})"


def _read(target: Target, start: int, size: int) -> tuple[bytes, Problem | None]:
    """The bytes as far as they can be read, page by page, and a warning about the rest."""
    data, end = b"", start + size
    while start + len(data) < end:
        here = start + len(data)
        step = min(end, (here | (_PAGE - 1)) + 1) - here
        try:
            data += target.read(here, step)
        except TargetError as error:
            return data, Problem(f"the stack cannot be read from {here:#x} on: {error}")
    return data, None


class _Stack:
    """The words of a stack, and what is known about them."""

    def __init__(self, session: Session, target: Target, start: int, words: Sequence[int]) -> None:
        from kplug.commands.return_addresses import (  # imported here so that declaring the commands stays cheap
            ReturnAddresses,
            frame_slots,
        )

        self._start = start
        self._words = words
        self._size = session.word.size
        self._order = session.word.order
        self._annotator = Annotator(session, all_ones(session))
        self._returns: ReturnAddresses = ReturnAddresses(session, self._annotator.where)
        frames = target.frames()
        self._slots = frame_slots(frames, start, [self._returns.plain(word) for word in words], self._size)
        # Below the innermost frame's stack pointer everything is stale; without frames this is not known.
        self._unwound = len(frames) > 1

    def rows(self) -> Iterator[dict[str, Any]]:
        for number, word in enumerate(self._words):
            yield self._row(self._start + number * self._size, word)

    def _row(self, address: int, word: int) -> dict[str, Any]:
        frame = self._slots.get(address)
        kind = self._kind(word) if frame is None else INTERRUPTED if frame.interrupted else RETURN
        annotation = (
            self._returns.annotation(self._returns.plain(word)) if kind == RETURN else self._annotator.telling(word)
        )
        stale = None if kind != RETURN or not self._unwound else frame is None
        return {
            "address": Hex(address),
            "offset": Hex(address - self._start),
            "value": Hex(word),
            "mark": f"#{frame.number}" if frame is not None else "?" if stale else None,
            "kind": kind or (DATA if annotation is not None else None),
            "frame": frame.number if frame is not None else None,
            "function": frame.function if frame is not None else None,
            "stale": stale,
            "text": text_of(word.to_bytes(self._size, self._order)) if annotation is None else None,
            **self._annotator.fields(annotation),
        }

    def _kind(self, word: int) -> str | None:
        plain = self._returns.plain(word)
        follows_call = self._returns.follows_call(plain)
        if follows_call:
            return RETURN
        return CODE if follows_call is False and plain == word else None


STACK = Command(
    name="stack",
    summary="every word of a stack, with what it is",
    description="""Show each word from the stack pointer, or ADDR, to the top of that stack, with what it is.

A word that points to code is a return address (ret) if the instruction before is a call, else code?. Those of the
frames that unwinding finds are numbered (#3), others are left over from before (?). ip: where an exception came.""",
    examples=(
        ("", "the selected stack, from the stack pointer up"),
        ("-r", "its return addresses only"),
        ("0xffffc90000013e00 -n 16", "16 words from an address"),
    ),
    add_arguments=_add_arguments,
    run=_run,
    takes_symbols=True,
)
