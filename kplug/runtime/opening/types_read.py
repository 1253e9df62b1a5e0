"""Reading the debug information while something else is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import drgn

from kplug.progress import waiting


def types_read_while(prog: drgn.Program, work: Callable[[], None]) -> None:
    """Have drgn index the kernel's debug information in its threads, which takes as long as all else at the start, and
    do `work` meanwhile. It must not use the Program: one thread at a time may.
    """

    def read() -> None:
        with suppress(Exception):  # the question that needs a type has the error again, and says so
            prog.type("struct page")

    reading = threading.Thread(target=read, name="debug information", daemon=True)
    reading.start()
    work()
    waiting("reading the kernel's debug information", reading.join)
