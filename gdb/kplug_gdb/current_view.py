"""How the kernel's memory is read at the time of a question."""

from __future__ import annotations

from kplug.errors import TargetError
from kplug_gdb.reading import has_process, read_plainly
from kplug_gdb.views import View


class CurrentView:
    """The current view; the host chooses one before each question. None if there is no memory, or nothing is known of
    the kernel yet."""

    def __init__(self) -> None:
        self._view: View | None = None

    @property
    def view(self) -> View | None:
        return self._view

    def look(self, view: View | None) -> None:
        """Use this view from now on."""
        self._view = view

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a kernel virtual address. TargetError if they cannot be read."""
        if not has_process():
            raise TargetError("no target to read memory from")
        return self._view.read(address, size) if self._view is not None else read_plainly(address, size)
