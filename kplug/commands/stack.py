"""kstack: every word of a stack, with what it is; return addresses distinguished from data that looks like them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kplug.commands.annotated import TEXT, WHAT, Annotator, all_ones, memory_target, text_of
from kplug.commands.base import Command, add_json_argument
from kplug.commands.stacks_entered import stacks_entered
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.outputs import Column, Hex, Output, Problem, Table

if TYPE_CHECKING:
    from kplug.commands.return_addresses import ReturnAddresses
    from kplug.model import Annotation
    from kplug.session import Session
    from kplug.target import FramePlace, StackBounds, Target

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
    words = _Words(session, target)
    yield from _shown(session, words, start, bounds, arguments)
    if bounds is None or arguments.words is not None:
        return
    for start, further in _further(words.frames, target, bounds, size):
        yield from _shown(session, words, start, further, arguments)


def _shown(
    session: Session, words: _Words, start: int, bounds: StackBounds | None, arguments: argparse.Namespace
) -> Iterator[Output]:
    """One stack from `start` on."""
    size, order = session.word.size, session.word.order
    assert session.target is not None
    data, problem = _read(session.target, start, _end(start, bounds, arguments.words, size) - start)
    values = [int.from_bytes(data[place : place + size], order) for place in range(0, len(data) - size + 1, size)]
    rows = list(words.rows(start, values))
    if arguments.returns:
        rows = [row for row in rows if row["kind"] in (RETURN, INTERRUPTED)]
    if rows:
        yield Table("kplug.stack/1", _COLUMNS, rows, _title(start, bounds, arguments.words))
    elif problem is None:
        yield Problem(f"no return address in {len(values)} words from {start:#x}")
    if problem is not None:
        yield problem


def _further(
    frames: Sequence[FramePlace], target: Target, bounds: StackBounds, size: int
) -> Iterator[tuple[int, StackBounds]]:
    """The stacks that the frames on this one came from, outwards, each with the place of the innermost word in use."""
    by_number = {frame.number: frame for frame in frames}
    entered = list(stacks_entered(frames, target.stack_bounds).items())
    here = next((place for place, (_, each) in enumerate(entered) if each == bounds), len(entered))
    for number, each in entered[here + 1 :]:
        frame = by_number[number]
        # A call leaves the return address below its caller's stack pointer, or in its own record.
        place = frame.record or (frame.sp if frame.interrupted else frame.sp - size)
        if frame.record and frame.saved_at is not None and each.start <= frame.saved_at < place:
            place = frame.saved_at
        if not each.guessed:
            yield max(place & -size, each.start), each


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


class _Words:
    """Words of stacks, and what is known about them."""

    def __init__(self, session: Session, target: Target) -> None:
        from kplug.commands.return_addresses import ReturnAddresses  # declaring the commands must stay cheap

        self._size = session.word.size
        self._order = session.word.order
        self._annotator = Annotator(session, all_ones(session))
        self._returns: ReturnAddresses = ReturnAddresses(session, self._annotator.where)
        #: The frames of the selected stack.
        self.frames = target.frames()
        # Below the innermost frame's stack pointer everything is stale; without frames this is not known.
        self._unwound = len(self.frames) > 1

    def rows(self, start: int, words: Sequence[int]) -> Iterator[dict[str, Any]]:
        """A row for each of the words from `start` on."""
        from kplug.commands.return_addresses import frame_slots

        slots = frame_slots(self.frames, start, [self._returns.plain(word) for word in words], self._size)
        for number, word in enumerate(words):
            address = start + number * self._size
            yield self._row(address, address - start, word, slots.get(address))

    def _row(self, address: int, offset: int, word: int, frame: FramePlace | None) -> dict[str, Any]:
        kind = self._kind(word) if frame is None else INTERRUPTED if frame.interrupted else RETURN
        if kind == RETURN:
            annotation: Annotation | None = self._returns.annotation(self._returns.plain(word))
        else:
            null = kind == INTERRUPTED and word < _PAGE
            annotation = self._annotator.place(word) if null else self._annotator.telling(word)
        stale = None if kind != RETURN or not self._unwound else frame is None
        guess = "?" if frame is not None and frame.guessed else ""
        return {
            "address": Hex(address),
            "offset": Hex(offset),
            "value": Hex(word),
            "mark": f"#{frame.number}{guess}" if frame is not None else "?" if stale else None,
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
frames that unwinding finds are numbered (#3; #3? if it is a guess), others are left over from before (?). ip: where an
exception came. The stacks of interrupted code follow: after an IRQ stack, the task's.""",
    examples=(
        ("", "the selected stack, from the stack pointer up"),
        ("-r", "its return addresses only"),
        ("0xffffc90000013e00 -n 16", "16 words from an address"),
    ),
    add_arguments=_add_arguments,
    run=_run,
    takes_symbols=True,
)
