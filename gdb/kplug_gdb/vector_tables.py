"""Where the processor enters the kernel: addresses of its code, from registers and tables."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import gdb
from kplug.arch.registry import named
from kplug.arch.types.record import Architecture, VectorTable
from kplug.errors import TargetError
from kplug.memory.kaslr_ways import first_handler
from kplug.memory.reading import Read
from kplug_gdb import physical, registers
from kplug_gdb.reading import NO_ANSWER, timed_out


def register_bases(table: VectorTable) -> Iterator[int]:
    """The table's base, if gdb has the register that holds it."""
    base = registers.register(*table.registers) if table.registers else None
    if base is not None:
        yield base


def monitor_bases(table: VectorTable) -> Iterator[int]:
    """The table's base from QEMU's `info registers`; not used with other stubs."""
    if table.monitor is None or not physical.stub_has_it():
        return
    started = time.monotonic()
    try:
        text = gdb.execute("monitor info registers", to_string=True)
    except UnicodeDecodeError:
        raise TargetError(NO_ANSWER) from None
    except gdb.error:
        if timed_out(started):
            raise TargetError(NO_ANSWER) from None
        return
    for match in re.finditer(table.monitor, text, re.MULTILINE):
        yield int(match.group(1), 16)


def handlers(architecture: Architecture, read: Read) -> Iterator[int]:
    """Addresses of the kernel's exception handlers, from its tables."""
    table = architecture.vector_table
    if table is None:
        return
    fixed = () if table.fixed is None else (table.fixed,)
    for base in (*fixed, *register_bases(table), *monitor_bases(table)):
        handler = first_handler(architecture, read, base)
        if handler is not None and architecture.word().is_kernel(handler):
            yield handler


def kernel_code(machine: str, read: Read, program_counter: int | None) -> Iterator[int]:
    """Addresses that are likely to be in the kernel's code, the most certain first; read lazily."""
    architecture = named(machine)
    word = architecture.word()
    window = architecture.kaslr_window
    yield from handlers(architecture, read)
    if window.start is not None and window.end is not None:
        if program_counter is not None and window.start <= program_counter < window.end:
            yield program_counter
        yield from range(window.start, window.end, window.steps[0])
        return
    # It may be in a module, which is mapped apart from the kernel.
    if program_counter is not None and word.is_kernel(program_counter) and registers.privileged() is not False:
        yield program_counter
