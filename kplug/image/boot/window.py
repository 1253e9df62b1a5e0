"""A stretch of the bytes of an image: what is nested in containers is looked at without being copied."""

from __future__ import annotations

import struct
from typing import Any


class Window:
    """`size` bytes of `base` from `start` on. A slice gives bytes, and fewer of them where the window ends."""

    def __init__(self, base: bytes, start: int = 0, size: int | None = None) -> None:
        self._base = base
        self._start = start
        self._end = len(base) if size is None else min(start + size, len(base))

    def __len__(self) -> int:
        return self._end - self._start

    def __getitem__(self, part: slice) -> bytes:
        start, end, _ = part.indices(len(self))
        return self._base[self._start + start : self._start + end]

    def part(self, start: int, size: int | None = None) -> Window:
        """The window's own part from `start` on, which must lie in it."""
        left = len(self) - start
        return Window(self._base, self._start + start, left if size is None else min(size, left))

    def view(self) -> memoryview:
        return memoryview(self._base)[self._start : self._end]

    def all(self) -> bytes:
        """Its bytes: the base itself, if it is all of it."""
        return self._base if len(self) == len(self._base) else self[:]

    def startswith(self, start: bytes | tuple[bytes, ...]) -> bool:
        return self._base.startswith(start, self._start, self._end)

    def find(self, what: bytes, start: int = 0, end: int | None = None) -> int:
        """The position of `what`, -1 if the window does not hold it."""
        last = self._end if end is None else min(self._start + end, self._end)
        return max(self._base.find(what, self._start + start, last) - self._start, -1)

    def __contains__(self, what: bytes) -> bool:
        return self.find(what) >= 0

    def unpack(self, form: str, position: int) -> tuple[Any, ...]:
        """The fields of `form` at `position`; struct.error where the window ends before them."""
        if position < 0 or position + struct.calcsize(form) > len(self):
            raise struct.error
        return struct.unpack_from(form, self._base, self._start + position)
