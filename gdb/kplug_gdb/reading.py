"""Reading memory as gdb reads it, with its errors told apart: nothing there, or no target to ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gdb
from kplug.errors import TargetError
from kplug.memory import UnmappedError

CLOSED = "the connection to the target was closed"


def has_process() -> bool:
    """Whether gdb has something that has memory: a remote target, a core."""
    return bool(gdb.selected_inferior().pid)


def read_plainly(address: int, size: int) -> bytes:
    """`size` bytes at an address, as the selected CPU sees it.

    UnmappedError where nothing is mapped; TargetError where nothing can be read at all.
    """
    if not has_process():
        # gdb would read the vmlinux.
        raise TargetError(CLOSED)
    try:
        with _memory_not_file():
            return bytes(gdb.selected_inferior().read_memory(address, size))
    except gdb.MemoryError:
        # A dropped connection shows as a memory error too; then the process is gone.
        if has_process():
            raise UnmappedError(f"nothing is mapped at {address:#x}") from None
        raise TargetError(CLOSED) from None
    except (gdb.error, OverflowError) as error:
        if not has_process():
            raise TargetError(CLOSED) from None
        thread = gdb.selected_thread()
        if thread is not None and thread.is_valid() and thread.is_running():
            raise TargetError("the target is running: interrupt it first") from None
        raise TargetError(f"memory cannot be read: {str(error).splitlines()[0]}") from None


@contextmanager
def _memory_not_file() -> Iterator[None]:
    """`trust-readonly-sections` makes gdb answer from the vmlinux instead of the target's memory: not for us."""
    if not gdb.parameter("trust-readonly-sections"):
        yield
        return
    gdb.execute("set trust-readonly-sections off", to_string=True)
    try:
        yield
    finally:
        gdb.execute("set trust-readonly-sections on", to_string=True)
