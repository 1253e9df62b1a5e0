"""The registers that a crashing kernel saved of its CPUs, from which /proc/vmcore has its PRSTATUS notes.

`crash_notes` (kernel/kexec_core.c, since 6.9 kernel/crash_core.c) is a per-CPU pointer to an ELF note. A CPU that was
offline, or did not answer, has none there and none in the dump: a note's place among the others is not its CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kplug.errors import TargetError
from kplug.image.elf.file import notes_in
from kplug.image.elf.notes import BrokenNotes, DecodedNote, of_cpu
from kplug.image.placed import PlacedImage
from kplug.memory.percpu import NoAreasError, read_areas
from kplug.memory.reading import Read

NT_PRSTATUS = 1
# Three numbers of four bytes, and "CORE" (KEXEC_CORE_NOTE_NAME) with its NUL, padded.
_HEADER_BYTES, _NAME_BYTES = 12, 8
# struct elf_prstatus has some hundred bytes and the registers.
_MOST_BYTES = 1 << 12


def saved_notes(placed: PlacedImage, read: Read) -> Mapping[int, bytes]:
    """The content of each CPU's PRSTATUS note in memory, of the CPUs that have one. TargetError if it cannot be read,
    or the image has no symbols that say where.
    """
    symbol = placed.image.symbols.exact("crash_notes")
    if not symbol:
        raise TargetError("the kernel's image has no symbol crash_notes")
    word = placed.image.elf.word
    pointer = word.at(read(placed.symbol_address(symbol[0]), word.size), 0)
    if not pointer:
        return {}
    notes = {cpu: _note(placed, read, pointer + distance & word.mask) for cpu, distance in _distances(placed, read)}
    return {cpu: note for cpu, note in notes.items() if note is not None}


def with_cpus(
    notes: Sequence[DecodedNote | BrokenNotes], placed: PlacedImage, read: Read
) -> Sequence[DecodedNote | BrokenNotes]:
    """A dump's notes, the kernel's own with the CPUs that they are of, as far as memory has them."""
    try:
        cpus = {content: cpu for cpu, content in saved_notes(placed, read).items()}
    except TargetError:
        return notes
    return [
        of_cpu(note, cpus[note.description])
        if isinstance(note, DecodedNote) and note.cpu is None and note.description in cpus
        else note
        for note in notes
    ]


def _distances(placed: PlacedImage, read: Read) -> Iterable[tuple[int, int]]:
    """The CPUs, and how far each one's copy is from where a per-CPU pointer points."""
    try:
        return read_areas(placed, read).offsets.items()
    except NoAreasError:  # a kernel without SMP has one copy, there
        return ((0, 0),)


def _note(placed: PlacedImage, read: Read, address: int) -> bytes | None:
    """The content of the PRSTATUS note at an address; None if there is none."""
    word = placed.image.elf.word
    before = _HEADER_BYTES + _NAME_BYTES
    size = word.unsigned(read(address, _HEADER_BYTES), 4, 4)
    if not 0 < size <= _MOST_BYTES:
        return None
    found = next(notes_in(read(address, before + size), word.little_endian), None)
    return found.description if found is not None and (found.owner, found.type) == ("CORE", NT_PRSTATUS) else None
