"""Sections and segments as data, and readelf's section-to-segment mapping.

Nothing here reads a file: an ELF file, a readelf listing or a module's sections in memory all give the same classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from kplug.arch.types.word import BEYOND_ADDRESSES
from kplug.frozen import Frozen
from kplug.image.elf.section_flags import SHF_ALLOC, SHF_EXECINSTR, SHF_TLS, SHF_WRITE

PERCPU_SECTION = ".data..percpu"


class Section(Frozen):
    """One section header. `address` is the link address (or, for a placed module, the runtime one)."""

    index: int
    name: str
    type: str
    address: int
    offset: int
    size: int
    entry_size: int
    flags: int
    flag_letters: str
    link: int
    info: int
    alignment: int

    @property
    def end(self) -> int:
        """Exclusive end address, at most the end of the 64-bit space."""
        return min(self.address + self.size, BEYOND_ADDRESSES)

    @property
    def allocated(self) -> bool:
        """Whether the section occupies memory at run time (SHF_ALLOC)."""
        return bool(self.flags & SHF_ALLOC)

    @property
    def occupies_addresses(self) -> bool:
        """Whether an address can lie in it: allocated, not empty, not the TLS template (no addresses of its own)."""
        return self.allocated and self.size > 0 and not (self.flags & SHF_TLS and self.type == "NOBITS")

    @property
    def writable(self) -> bool:
        return bool(self.flags & SHF_WRITE)

    @property
    def executable(self) -> bool:
        return bool(self.flags & SHF_EXECINSTR)


def extent(index: int, name: str, start: int, end: int, flags: int) -> Section:
    """The addresses `[start, end)` of an image without section headers, in the form of a section.

    `flags` are those besides SHF_ALLOC. Number 0 is the null section, which holds nothing.
    """
    return Section(
        index=index,
        name=name,
        type="PROGBITS" if index else "NULL",
        address=start,
        offset=0,
        size=end - start,
        entry_size=0,
        flags=SHF_ALLOC | flags if index else 0,
        flag_letters="",
        link=0,
        info=0,
        alignment=1,
    )


class Segment(Frozen):
    """One program header."""

    index: int
    type: str
    offset: int
    address: int
    physical_address: int
    file_size: int
    memory_size: int
    flags: int
    flag_letters: str
    alignment: int

    @property
    def name(self) -> str:
        """Type and number, `LOAD[0]`: the number is the one in readelf's section-to-segment mapping."""
        return f"{self.type}[{self.index}]"

    @property
    def end(self) -> int:
        """Exclusive end address in memory, at most the end of the 64-bit space."""
        return min(self.address + self.memory_size, BEYOND_ADDRESSES)


# Only these hold thread-local sections; TLS holds nothing else.
_TLS_HOLDERS = frozenset(("TLS", "GNU_RELRO", "LOAD"))
# These describe memory, so only sections that occupy memory are in them.
_MEMORY_TYPES = frozenset(("LOAD", "DYNAMIC", "GNU_EH_FRAME", "GNU_STACK", "GNU_RELRO"))


def _lies_within(start: int, size: int, outer_start: int, outer_size: int) -> bool:
    """Whether `[start, start+size)` lies in the outer range. An empty one must not be at the outer range's end, unless
    that is empty itself.
    """
    distance = start - outer_start
    return 0 <= distance <= max(outer_size - 1, 0) and distance + size <= outer_size


def section_in_segment(section: Section, segment: Segment) -> bool:
    """Whether readelf lists the section in the segment.

    The rule is binutils' (strict form of ELF_SECTION_IN_SEGMENT, include/elf/internal.h): file ranges for sections that
    have bytes in the file, addresses for those that are allocated, with exceptions for TLS, notes and empty sections.
    """
    thread_local = bool(section.flags & SHF_TLS)
    nobits = section.type == "NOBITS"
    if thread_local and segment.type not in _TLS_HOLDERS:
        return False
    if not thread_local and segment.type in ("TLS", "PHDR"):
        return False
    if not section.allocated and segment.type in _MEMORY_TYPES:
        return False
    if thread_local and nobits and segment.type != "TLS":
        return False  # .tbss takes no space outside its TLS segment, so readelf does not list it there
    if not nobits and not _lies_within(section.offset, section.size, segment.offset, segment.file_size):
        return False
    if section.allocated and not _lies_within(section.address, section.size, segment.address, segment.memory_size):
        return False
    if segment.type in ("DYNAMIC", "NOTE") and section.size == 0 and segment.memory_size:
        inside_file = nobits or segment.offset < section.offset < segment.offset + segment.file_size
        inside_memory = not section.allocated or segment.address < section.address < segment.end
        return inside_file and inside_memory
    return True


def section_to_segment_mapping(
    sections: Sequence[Section], segments: Sequence[Segment]
) -> tuple[tuple[Section, ...], ...]:
    """For each segment, in order, the sections that readelf lists in it (the null section never is)."""
    return tuple(
        tuple(section for section in sections if section.index and section_in_segment(section, segment))
        for segment in segments
    )
