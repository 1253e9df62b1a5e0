"""A split dump as one Program: drgn opens a file, and reads the memory of the others through Programs of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import drgn

from kplug.memory.split_dump import Part, missing
from kplug.runtime.kernel.kernel import MISSING_PART


def join(prog: drgn.Program, own: str, parts: Sequence[Part], opened: Callable[[str], drgn.Program]) -> None:
    """Give the Program of the file `own` the memory of the other parts; what no part has is an error that says so."""
    for part in parts:
        if part.path != own and part.start < part.end:
            prog.add_memory_segment(part.start, part.end - part.start, _reader(opened(part.path)), True)

    def nowhere(address: int, size: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError(MISSING_PART, address)

    for gap in missing(parts):
        prog.add_memory_segment(gap.start, len(gap), nowhere, True)


def _reader(part: drgn.Program) -> Callable[[int, int, int, bool], bytes]:
    def read(address: int, size: int, offset: int, physical: bool) -> bytes:
        return bytes(part.read(address, size, True))

    return read
