"""The ways to a KASLR offset, from a target's registers, tables and notes.

Each function makes one `kaslr_offset.Way`. `kaslr_offset` checks every candidate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kplug.arch.registry import named
from kplug.arch.types.record import Architecture
from kplug.arch.types.word import WIDEST_MASK
from kplug.image.elf.file import Note
from kplug.image.kernel_image import KernelImage
from kplug.memory.kaslr_offset import Checker, Way
from kplug.memory.reading import Read, try_read


def given(kaslr_offset: int) -> Way:
    """The KASLR offset that the user gave."""
    return Way("given by the user", lambda: (kaslr_offset,), sure=True)


def not_moved() -> Way:
    """No KASLR: the kernel is where it was linked."""
    return Way("not moved", lambda: (0,))


def kernel_offset(notes: Iterable[Note]) -> int | None:
    """KERNELOFFSET of a VMCOREINFO note (kernel/vmcore_info.c), or None; modulo the widest machine's width."""
    for note in notes:
        if note.owner == "VMCOREINFO":
            match = re.search(rb"^KERNELOFFSET=(-?)([0-9a-fA-F]{1,16})$", note.description, re.MULTILINE)
            if match:
                offset = int(match.group(2), 16)
                return (-offset if match.group(1) else offset) & WIDEST_MASK
    return None


def vmcoreinfo(offset: int | None) -> Way:
    """The KASLR offset that the dumped kernel recorded."""
    return Way("KERNELOFFSET of the core's VMCOREINFO", lambda: () if offset is None else (offset,), sure=True)


def already_moved(kaslr_offset: int | None) -> Way:
    """The debugger's own symbols have been moved, by the user or by `kaslr --apply`."""
    return Way("gdb's own symbols", lambda: () if kaslr_offset is None else (kaslr_offset,), sure=True)


def by_vector_table(image: KernelImage, read: Read, name: str, bases: Iterable[int]) -> Way:
    """The code in the architecture's table of exception handlers. `bases` may query the host, and are read lazily."""

    def candidates() -> Iterator[int]:
        architecture = named(image.machine)
        table = architecture.vector_table
        links = [s.address for name in table.symbols for s in image.symbols.exact(name)] if table is not None else []
        for base in bases:
            handler = first_handler(architecture, read, base) if links else None
            # Another kernel's handler is at a different place in its image.
            if handler is not None and (handler - links[0]) % min(architecture.kaslr_window.steps) == 0:
                yield handler - links[0] & image.elf.word.mask

    return Way(name, candidates, sure=True)


def first_handler(architecture: Architecture, read: Read, base: int) -> int | None:
    """The handler in the table at `base`; None if there is no table, or the architecture has none."""
    table = architecture.vector_table
    return None if table is None else table.handler(base, lambda address, size: try_read(read, address, size))


def search(image: KernelImage, program_counter: int | None) -> Way:
    """The banner at every place where the architecture may put it, those around the program counter first."""

    def candidates() -> Iterator[int]:
        window = named(image.machine).kaslr_window
        near = _bases_around(image, program_counter, window.steps, window.start or image.elf.word.kernel_start)
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

    A kernel that a reset left in memory may be there too, so the code at the program counter must be this kernel's as
    well.
    """

    def candidates() -> Iterator[int]:
        start = _image_range(image)[0]
        window = named(image.machine).kaslr_window
        if program_counter is None or image.elf.word.is_only_kernel(program_counter):
            return
        for base in _bases_around(image, program_counter, window.steps, 0):
            kaslr_offset = base - start & image.elf.word.mask
            if checker.still_matches(read, kaslr_offset) and _runs_here(image, read, program_counter, kaslr_offset):
                yield kaslr_offset

    return Way("identity-mapped startup code", candidates)


def _runs_here(image: KernelImage, read: Read, program_counter: int, kaslr_offset: int) -> bool:
    """Whether the code at the program counter is the file's. Relocations only change single words of it."""
    address = program_counter - kaslr_offset & image.elf.word.mask
    wanted = image.elf.read_address(address, 64)
    found = try_read(read, program_counter, len(wanted)) if wanted else None
    if not wanted or found is None:
        return False
    return sum(one == other for one, other in zip(wanted, found)) * 4 >= len(wanted) * 3


def _image_range(image: KernelImage) -> tuple[int, int]:
    """Link addresses of the image: between its boundary symbols, else the span of its sections."""
    root = image.regions.root
    if root is not None:
        return root.start, root.end
    held = [section for section in image.sections if section.occupies_addresses and section.address]
    return min((s.address for s in held), default=0), max((s.end for s in held), default=0)


def _bases_around(image: KernelImage, address: int | None, steps: Iterable[int], lowest: int) -> Iterator[int]:
    """Possible starts of an image that holds `address`, nearest below it first."""
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
