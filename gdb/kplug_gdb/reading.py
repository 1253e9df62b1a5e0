"""Reading memory through gdb, with its errors distinguished: nothing mapped, or no readable target."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import gdb
from kplug.errors import TargetError
from kplug.memory.reading import FaultError

_MAJOR = int(gdb.VERSION.split(".")[0])

NO_ANSWER = (
    "the target does not answer, or late: the connection may be out of step with it (`disconnect` and connect again)"
)
CLOSED = "the connection to the target was closed"


def has_process() -> bool:
    """Whether gdb has something that has memory: a remote target, a core."""
    return bool(gdb.selected_inferior().pid)


def read_plainly(address: int, size: int) -> bytes:
    """`size` bytes at an address, as the selected CPU sees it.

    FaultError if nothing is mapped; TargetError if nothing can be read at all.
    """
    if not has_process():
        # gdb would read the vmlinux.
        raise TargetError(CLOSED)
    started = time.monotonic()
    try:
        with _memory_not_file():
            return _read(address, size)
    except gdb.MemoryError:
        if timed_out(started):
            raise TargetError(NO_ANSWER) from None
        # A dropped connection is a memory error too; then the process is gone.
        if has_process():
            raise FaultError(f"nothing is mapped at {address:#x}") from None
        raise TargetError(CLOSED) from None
    except UnicodeDecodeError:
        raise TargetError(NO_ANSWER) from None
    except (gdb.error, OverflowError) as error:
        if not has_process():
            raise TargetError(CLOSED) from None
        if timed_out(started):
            raise TargetError(NO_ANSWER) from None
        thread = gdb.selected_thread()
        if thread is not None and thread.is_valid() and thread.is_running():
            raise TargetError("the target is running: interrupt it first") from None
        raise TargetError(f"memory cannot be read: {str(error).splitlines()[0]}") from None


def _read(address: int, size: int) -> bytes:
    """The bytes as the selected thread sees them.

    From 14 on, Inferior.read_memory asks any thread of the inferior (gdb/inferior.h, scoped_restore_current_inferior_
    for_memory), which for QEMU is the first CPU; a value is read in the selected one.
    """
    inferior = gdb.selected_inferior()
    byte = inferior.architecture().integer_type(8, False)
    if address >> (8 * byte.pointer().sizeof):  # gdb would read at the address without its high bits
        raise FaultError(f"nothing is mapped at {address:#x}: the machine's addresses are shorter")
    if _MAJOR < 14:
        return bytes(inferior.read_memory(address, size))
    value = gdb.Value(address).cast(byte.array(size - 1).pointer()).dereference()
    if _MAJOR >= 15:
        return bytes(value.bytes)
    return value.string("latin-1", "strict", size).encode("latin-1")


def timed_out(started: float) -> bool:
    """Whether an operation begun at that monotonic time has taken as long as gdb waits for a packet."""
    return time.monotonic() - started > 0.9 * _patience()


def _patience() -> float:
    """How long gdb waits for a packet before it gives up, in seconds."""
    return float(gdb.parameter("remotetimeout") or 2)


@contextmanager
def _memory_not_file() -> Iterator[None]:
    """Turn off `trust-readonly-sections`, with which gdb reads the vmlinux instead of the target's memory."""
    if not gdb.parameter("trust-readonly-sections"):
        yield
        return
    gdb.execute("set trust-readonly-sections off", to_string=True)
    try:
        yield
    finally:
        gdb.execute("set trust-readonly-sections on", to_string=True)
