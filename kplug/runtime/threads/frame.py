"""A frame of a stack, as the selection of threads and the walk of a stack have it."""

from __future__ import annotations

from typing import Any, NamedTuple


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
