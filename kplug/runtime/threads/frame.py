"""A frame of a stack, as the selection of threads and the walk of a stack have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kplug.named_tuples import NamedTuple
from kplug.target import FramePlace

# arm64's: there alone frames are found by their records, without a stack pointer.
_FRAME_POINTER = "x29"


class Frame(NamedTuple):
    """A frame of a stack, innermost 0; an inlined function is a frame too and shares its caller's registers.

    `function` is the name in the debug information, else the symbol's, None if neither is known. `registers` are those
    known in the frame, by name, in the architecture's usual order. `interrupted`: the frame made no call, an interrupt
    or exception came; its pc is then the instruction itself, not a return address. `drgn_frame` is drgn's own. `alone`:
    its callers are not known, because the CPU kept running while the stack was read. `guessed`: it was found by what
    looks like a return address on the stack, or by way of such a frame. `lost`: it has callers, which are not known.
    `saved_at` is where an exception saved its pc, if that is known.
    """

    number: int
    pc: int
    sp: int
    function: str | None
    registers: dict[str, int]
    is_inline: bool
    interrupted: bool
    drgn_frame: Any = None
    alone: bool = False
    guessed: bool = False
    lost: bool = False
    saved_at: int | None = None

    @property
    def record(self) -> int:
        """Where the record of a frame is that was found by frame records alone (arm64 without DWARF): they give no
        stack pointer; 0 if it has one.
        """
        return 0 if self.sp else self.registers.get(_FRAME_POINTER, 0)


def frame_places(frames: Sequence[Frame], size: int) -> Sequence[FramePlace]:
    """The frames as a target has them; `size` is that of a word."""
    places = []
    callee: Frame | None = None
    for frame in frames:
        places.append(
            FramePlace(
                *(frame.number, frame.pc, frame.sp, frame.function, frame.is_inline, frame.interrupted),
                *(_saved_at(frame, callee, size), frame.guessed, frame.record),
            )
        )
        # An inlined function has the registers of the one that it is inlined into.
        callee = callee if frame.is_inline else frame
    return tuple(places)


def _saved_at(frame: Frame, callee: Frame | None, size: int) -> int | None:
    """Where the return address is that leads to a frame, if that is known: in the callee's record (AAPCS64, "The Frame
    Pointer"), after the caller's frame pointer. The word below the caller's stack pointer may be an old copy of it.
    """
    if frame.saved_at is not None:
        return frame.saved_at
    pointer = callee.registers.get(_FRAME_POINTER) if callee is not None else None
    # Without a record of its own, the callee has its caller's.
    return pointer + size if pointer and (not frame.sp or pointer < frame.sp) else None
