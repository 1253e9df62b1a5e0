"""What a test tells the cell of `make matrix` in which it runs (tests/matrix): pytest writes it beside the result."""

from __future__ import annotations

from collections.abc import Callable


class Recorder:
    """The fixture `cell`. Outside of a cell nobody reads it."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def compared(self, what: str, number: int, differed: int = 0) -> None:
        """So many were compared with what another program says, and so many differed. To be told before it fails."""
        self._record(f"compared {what}", f"{number} {differed}")

    def stopped(self, layer: str, why: str) -> None:
        """What keeps the rest of the cell from being asked, and whose it is: one of tests/matrix/cells.py's LAYERS."""
        self._record(f"stopped {layer}", why)

    def first_answer(self, seconds: float, megabytes: float, file_megabytes: float) -> None:
        """The processor's seconds until the first answer from a file, and the memory that it took."""
        self._record("measured first_answer", round(seconds, 3))
        self._record("measured first_megabytes", round(megabytes, 1))
        self._record("measured file_megabytes", round(file_megabytes, 1))

    def about(self, what: str, value: str) -> None:
        """A version, a release: what was asked."""
        self._record(f"about {what}", value)
