"""Physical memory through QEMU's gdb stub, and the kernel's memory through its page tables.

QEMU docs, "GDB usage": the packets qqemu.PhyMemMode (ask) and Qqemu.PhyMemMode:1 or :0 (set) make memory packets mean
physical addresses. A CPU that was stopped in user mode under page-table isolation does not map the kernel, so this is
the only way to read it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import gdb
from kplug.arch.types.page_tables import ReadEntry, Translation, Translator
from kplug.errors import TargetError
from kplug.memory.reading import FaultError, Read
from kplug_gdb import machine, registers
from kplug_gdb.reading import NO_ANSWER, read_plainly, timed_out


def _ask(packet: str) -> bytes:
    """The stub's answer to a packet; empty if it does not know the packet."""
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        return b""
    started = time.monotonic()
    try:
        answer: bytes | str | None = connection.send_packet(packet)
    except UnicodeDecodeError:
        raise TargetError(NO_ANSWER) from None
    except gdb.error as error:
        raise TargetError(f"{NO_ANSWER}: {str(error).splitlines()[0]}") from None
    if not answer and timed_out(started):
        raise TargetError(NO_ANSWER)
    if answer is None:  # how gdb returns an empty answer
        return b""
    return answer if isinstance(answer, bytes) else answer.encode("utf-8", "replace")


def mode_on() -> bool | None:
    """Whether the stub is in physical memory mode; None if it has no such mode."""
    return {b"0": False, b"1": True}.get(_ask("qqemu.PhyMemMode"))


def stub_has_it() -> bool:
    """Whether the stub of this connection has such a mode: QEMU's does. Asked once for a connection."""
    global _asked
    connection = gdb.selected_inferior().connection
    if connection is None:
        return False
    if _asked is None or _asked[0] is not connection:
        _asked = (connection, mode_on() is not None)
    return _asked[1]


_asked: tuple[gdb.TargetConnection, bool] | None = None


class _Question:
    """What holds for one question, and need not be asked again: the stub's mode, the pages that were found."""

    def __init__(self) -> None:
        self.mode: bool | None = None
        self.tables: dict[bool, Translator | None] = {}
        self._chunks: dict[tuple[Translator, int, int], int] = {}

    def ask_mode(self) -> bool | None:
        if self.mode is None:
            self.mode = mode_on()
        return self.mode

    def translate(self, tables: Translator, entry: ReadEntry, place: int) -> tuple[int, int] | None:
        """The physical address of a virtual one, and how many bytes after it are known to follow it; None if it is not
        mapped."""
        for shift in _CHUNKS:
            start = self._chunks.get((tables, shift, place >> shift))
            if start is not None:
                within = place & (1 << shift) - 1
                return start + within, (1 << shift) - within
        found = tables.translate(entry, place)
        if found is None:
            return None
        shift = next(shift for shift in _CHUNKS if found.page_size >= 1 << shift)
        self._chunks[tables, shift, place >> shift] = found.physical - (place & (1 << shift) - 1)
        return found.physical, found.room


# Pages are remembered in pieces of these sizes.
_CHUNKS = (21, 12)
_question = _Question()


def begin_question() -> None:
    """Forget what held for the question before: the user may have changed the mode, or reset the machine."""
    global _question
    _question = _Question()


@contextmanager
def physical_memory() -> Iterator[None]:
    """Inside, memory reads mean physical addresses. The mode is restored whatever happens.

    Ctrl-C waits until then: an interrupt between the packets would leave gdb reading the wrong memory from then on.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        before = _question.ask_mode()
        if before is None:
            if stub_has_it():
                raise TargetError(NO_ANSWER)
            raise TargetError("the target's stub cannot read physical memory (it is not QEMU's)")
        try:
            if not before and _ask("Qqemu.PhyMemMode:1") != b"OK":
                raise TargetError(NO_ANSWER)
            yield
        finally:
            if not before:
                _put_back()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _put_back() -> None:
    try:
        _ask("Qqemu.PhyMemMode:0")
    except KeyboardInterrupt:
        # A Ctrl-C that gdb had noticed before it was blocked.
        _ask("Qqemu.PhyMemMode:0")
        raise


def current_tables(*, kernel: bool) -> Translator | None:
    """The selected CPU's page tables; None without paging, or if its registers do not show them.

    `kernel`: the kernel's tables under page-table isolation, whichever the CPU uses right now.
    """
    if kernel not in _question.tables:
        architecture = machine.architecture()
        cpu_tables = architecture.cpu_tables if architecture is not None else None
        _question.tables[kernel] = cpu_tables(registers.register, kernel) if cpu_tables is not None else None
    return _question.tables[kernel]


def why_not_walked() -> str:
    """Why the kernel cannot be read through its page tables, for the user."""
    if not stub_has_it():
        return "this stub cannot read physical memory"
    return f"kplug cannot walk its page tables ({machine.name()})"


def entry_reader(tables: Translator, read: Read) -> ReadEntry:
    """What reads an entry of these tables; `read` reads physical memory."""
    size, order = tables.entry_size, machine.word().order
    return lambda address: int.from_bytes(read(address, size), order)


def translation(tables: Translator, address: int) -> Translation | None:
    """The translation of an address in these tables, or None."""
    with physical_memory():
        try:
            return tables.translate(entry_reader(tables, read_plainly), address)
        except FaultError:
            return None  # a table outside of memory


def _absolute(physical: int, room: int) -> tuple[int, int]:
    architecture = machine.architecture()
    absolute = architecture.absolute if architecture is not None else None
    return (physical, room) if absolute is None else absolute(registers.register, physical, room)


def read_through(tables: Translator, address: int, size: int) -> bytes:
    """`size` bytes at a virtual address of these tables. FaultError if it is not mapped."""
    data, mask, entry = b"", machine.mask(), entry_reader(tables, read_plainly)
    with physical_memory():
        while len(data) < size:
            place = address + len(data) & mask
            try:
                found = _question.translate(tables, entry, place)
            except FaultError:
                found = None
            if found is None:
                raise FaultError(f"nothing is mapped at {place:#x}")
            physical, room = _absolute(*found)
            data += read_plainly(physical, min(room, size - len(data)))
    return data
