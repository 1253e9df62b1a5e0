"""Where the processor enters the kernel: addresses of its code, as registers and tables betray them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import gdb
from kplug.arch.registry import named
from kplug.errors import TargetError
from kplug.memory.kaslr_ways import first_handler
from kplug.memory.reading import Read
from kplug_gdb import physical, registers
from kplug_gdb.reading import NO_ANSWER, timed_out

_KERNEL_HALF = 1 << 63


def vector_bases() -> Iterator[int]:
    """arm64: where the exception vectors are."""
    base = registers.register("VBAR_EL1", "VBAR")
    if base is not None:
        yield base


def monitor_idt() -> Iterator[int]:
    """x86: IDT bases from QEMU's `info registers`; other stubs are not asked."""
    if not physical.stub_has_it():
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
    for match in re.finditer(r"^IDT=\s+([0-9a-f]+) [0-9a-f]+", text, re.MULTILINE):
        yield int(match.group(1), 16)


def kernel_code(machine: str, read: Read, program_counter: int | None) -> Iterator[int]:
    """Addresses that are likely to be in the kernel's code, the surest first; more is read only while more is asked."""
    architecture = named(machine)
    window = architecture.kaslr_window
    if architecture.idt is not None:
        for base in (architecture.idt, *monitor_idt()):
            handler = first_handler(read, base)
            if handler is not None and handler >= _KERNEL_HALF:
                yield handler
    if window.start is not None and window.end is not None:
        if program_counter is not None and window.start <= program_counter < window.end:
            yield program_counter
        yield from range(window.start, window.end, window.steps[0])
        return
    for base in vector_bases():
        if base >= _KERNEL_HALF:
            yield base
    # It may be a module's, which is mapped apart from the kernel.
    if program_counter is not None and program_counter >= _KERNEL_HALF:
        yield program_counter
