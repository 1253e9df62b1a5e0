"""The ways to a KASLR slide: where a target's registers and tables betray where its kernel is.

Each function makes one `kaslr_offset.Way`. None of them is believed: `kaslr_offset` checks every candidate.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

from kplug.arch.registry import named
from kplug.image.elf.file import Note
from kplug.image.kernel_image import KernelImage
from kplug.image.placement import ADDRESS_MASK
from kplug.memory.kaslr_offset import Checker, Way
from kplug.memory.reading import Read, try_read


def told(slide: int) -> Way:
    """The user's own word."""
    return Way("told by the user", lambda: (slide,), sure=True)


def not_moved() -> Way:
    """No KASLR: the kernel is where it was linked."""
    return Way("not moved", lambda: (0,))


def kernel_offset(notes: Iterable[Note]) -> int | None:
    """KERNELOFFSET of a VMCOREINFO note (kernel/vmcore_info.c), or None; modulo 2**64."""
    for note in notes:
        if note.owner == "VMCOREINFO":
            match = re.search(rb"^KERNELOFFSET=(-?)([0-9a-fA-F]{1,16})$", note.description, re.MULTILINE)
            if match:
                offset = int(match.group(2), 16)
                return (-offset if match.group(1) else offset) & ADDRESS_MASK
    return None


def vmcoreinfo(offset: int | None) -> Way:
    """What the dumped kernel noted of itself."""
    return Way("KERNELOFFSET of the core's VMCOREINFO", lambda: () if offset is None else (offset,), sure=True)


def already_moved(slide: int | None) -> Way:
    """The debugger's own symbols have been moved, by the user or by `kaslr --apply`."""
    return Way("gdb's own symbols", lambda: () if slide is None else (slide,), sure=True)


def exception_table(image: KernelImage, read: Read, name: str, bases: Iterable[int]) -> Way:
    """x86: the handler in gate 0 of the interrupt descriptor table. `bases` may ask the host, and is read lazily."""

    def candidates() -> Iterator[int]:
        architecture = named(image.machine)
        links = [
            symbol.address for handler in architecture.first_gate_handlers for symbol in image.symbols.exact(handler)
        ]
        for base in bases:
            handler = first_handler(read, base) if links else None
            # Another kernel's handler is somewhere else in its image.
            if handler is not None and (handler - links[0]) % architecture.kaslr_window.steps[0] == 0:
                yield handler - links[0] & ADDRESS_MASK

    return Way(name, candidates, sure=True)


def first_handler(read: Read, base: int) -> int | None:
    """The handler in gate 0 of an x86_64 interrupt descriptor table; None where there is none to read."""
    gate = try_read(read, base, 16)
    if gate is None:
        return None
    # Intel SDM vol. 3, "64-Bit Mode IDT": offset bits 0-15, 16-31 and 32-63 at bytes 0, 6 and 8.
    low, middle, high = struct.unpack("<H4xHI4x", gate)
    return int(high << 32 | middle << 16 | low)


def vector_table(image: KernelImage, bases: Iterable[int]) -> Way:
    """arm64: VBAR_EL1 holds the address of `vectors`."""

    def candidates() -> Iterator[int]:
        vectors = named(image.machine).vector_table
        links = [symbol.address for symbol in image.symbols.exact(vectors)] if vectors is not None else []
        for base in bases:
            if links and base:
                yield base - links[0] & ADDRESS_MASK

    return Way("VBAR_EL1", candidates, sure=True)


def search(image: KernelImage, program_counter: int | None) -> Way:
    """The banner at every place where the architecture may have put it, those around the program counter first."""

    def candidates() -> Iterator[int]:
        window = named(image.machine).kaslr_window
        near = _bases_around(image, program_counter, window.steps, window.start or 1 << 63)
        start = _image_range(image)[0]
        for base in near:
            yield base - start
        if window.start is not None and window.end is not None:
            offset = start % window.steps[0]
            for base in range(window.start + offset, window.end, window.steps[0]):
                yield base - start

    return Way("search for the banner", candidates)


def identity(image: KernelImage, read: Read, program_counter: int | None, checker: Checker) -> Way:
    """Early boot: the kernel's first instructions run at their physical addresses, the program counter among them.

    A kernel that a reset left in memory can stand there too; so the very code at the program counter must be this
    kernel's as well.
    """

    def candidates() -> Iterator[int]:
        start = _image_range(image)[0]
        window = named(image.machine).kaslr_window
        if program_counter is None or program_counter >> 63:
            return
        for base in _bases_around(image, program_counter, window.steps, 0):
            slide = base - start & ADDRESS_MASK
            if checker.still_matches(read, slide) and _runs_here(image, read, program_counter, slide):
                yield slide

    return Way("identity-mapped startup code", candidates)


def _runs_here(image: KernelImage, read: Read, program_counter: int, slide: int) -> bool:
    """Whether the code at the program counter is the file's. Relocations change single words of it, never most."""
    address = program_counter - slide & ADDRESS_MASK
    wanted = image.elf.read_address(address, 64)
    found = try_read(read, program_counter, len(wanted)) if wanted else None
    if not wanted or found is None:
        return False
    return sum(one == other for one, other in zip(wanted, found)) * 4 >= len(wanted) * 3


def _image_range(image: KernelImage) -> tuple[int, int]:
    """Link addresses of the image: its boundary symbols, else what its sections span."""
    root = image.regions.root
    if root is not None:
        return root.start, root.end
    held = [section for section in image.sections if section.occupies_addresses and section.address]
    return min((s.address for s in held), default=0), max((s.end for s in held), default=0)


def _bases_around(image: KernelImage, address: int | None, steps: Iterable[int], lowest: int) -> Iterator[int]:
    """The places of the image's start for which the image holds `address`, nearest below it first."""
    start, end = _image_range(image)
    if address is None:
        return
    seen: set[int] = set()
    for step in steps:
        offset = start % step
        base = (address - offset) // step * step + offset
        while base > address - (end - start) and base >= lowest:
            if base not in seen:
                seen.add(base)
                yield base
            base -= step
