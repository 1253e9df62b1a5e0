"""knotes: the notes of the kernel, its dump or a file, with their proper names."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from kplug.commands.base import Command, add_json_argument
from kplug.errors import InputError, TargetError
from kplug.outputs import Column, Hex, Output, Problem, Size, Table

if TYPE_CHECKING:
    from kplug.commands.inspection import Inspected
    from kplug.image.elf.notes import BrokenNotes, DecodedNote
    from kplug.image.kernel_image import KernelImage
    from kplug.session import Session

_MAX_SHOWN_BYTES = 1 << 16
# The kernel's own notes have some hundred bytes.
_MAX_NOTES_IN_MEMORY = 1 << 16
_RUNNING_NOTES = "/sys/kernel/notes"
# Text: a row for each line, no heading.
LINE = (Column("", "line"),)


def _notes(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    from kplug.commands.inspection import inspect

    if arguments.file:
        file = inspect(arguments.file)
        yield from note_outputs(file.notes, file.path, arguments.verbose, empty=True)
        return
    listed = False
    for path, notes in _session_notes(session):
        listed = True
        yield from note_outputs(notes, path, arguments.verbose)
    if not listed:
        yield Problem("no notes found in an image, a dump or memory")


def _session_notes(session: Session) -> Iterator[tuple[str, Iterable[DecodedNote | BrokenNotes]]]:
    """The notes of the session's kernel, and their source."""
    from kplug.commands.inspection import inspect
    from kplug.image.elf.notes import notes_of
    from kplug.memory.crash_notes import with_cpus

    of_kernel = False
    for placed in session.images.given:
        image = placed.image
        file = None if image.elf.sections or image.elf.segments else image_file(image)
        if file is not None and not file.notes:
            continue
        if file is not None or image.elf.sections or image.elf.segments:
            of_kernel = of_kernel or not image.is_module
            yield image.path, notes_of(image.elf) if file is None else file.notes
    if not of_kernel:
        in_memory = _notes_in_memory(session)
        if in_memory is not None:
            yield "memory", in_memory
        elif _is_running(session):
            yield from running_notes()
    target, main = session.target, session.main
    core = target.core_path() if target is not None else None
    if target is not None and core is not None:
        notes = inspect(core).notes
        yield core, notes if main is None else with_cpus(notes, main, target.read)


def running_notes() -> Iterator[tuple[str, Iterable[DecodedNote | BrokenNotes]]]:
    """The running kernel's notes, and their source, which every user may read; nothing where it has no such file."""
    from kplug.commands.inspection import inspect

    if os.path.isfile(_RUNNING_NOTES):
        yield _RUNNING_NOTES, inspect(_RUNNING_NOTES).notes


def _is_running(session: Session) -> bool:
    return session.is_running or (session.main is not None and runs_here(session.main.image))


def runs_here(image: KernelImage) -> bool:
    """Whether it is certainly the running kernel's, so that no file has more."""
    from kplug.live import running_build_id

    return image.build_id is not None and image.build_id == running_build_id()


def image_file(image: KernelImage) -> Inspected | None:
    """The file that an image comes from; None if there is none, or if it only lists symbols."""
    from kplug.commands.inspection import inspect

    if not os.path.isfile(image.path):
        return None
    try:
        return inspect(image.path)
    except InputError:
        return None


def _notes_in_memory(session: Session) -> list[DecodedNote | BrokenNotes] | None:
    """The kernel's notes in memory, between __start_notes and __stop_notes; None if they cannot be read."""
    from kplug.image.elf.notes import NoteFormat, decoded_notes

    main, target = session.main, session.target
    if main is None or target is None or not target.has_memory():
        return None
    bounds = [
        [symbol.address for symbol in main.image.symbols.exact(name)] for name in ("__start_notes", "__stop_notes")
    ]
    if [len(addresses) for addresses in bounds] != [1, 1]:
        return None
    start, end = (main.placement.runtime(addresses[0]) for addresses in bounds)
    if not 0 < end - start <= _MAX_NOTES_IN_MEMORY:
        return None
    try:
        data = target.read(start, end - start)
    except TargetError:
        return None
    return list(decoded_notes(data, NoteFormat(main.image.machine, main.image.elf.little_endian), "memory"))


_NOTE_COLUMNS = (
    Column("OWNER", "owner"),
    Column("NR", "type", right=True),
    Column("NAME", "name"),
    Column("SIZE", "size", right=True),
    Column("SAYS", "says"),
)


def note_outputs(
    notes: Iterable[DecodedNote | BrokenNotes], path: str, verbose: bool = False, empty: bool = False
) -> Iterator[Output]:
    """The table of notes, what ended it early, and on request all that the notes contain."""
    from kplug.image.elf.notes import DecodedNote

    decoded: list[DecodedNote] = []
    problems: list[Problem] = []
    for note in notes:
        if isinstance(note, DecodedNote):
            decoded.append(note)
        else:
            where = f"the notes in {note.place}" if note.place else "its notes"
            problems.append(Problem(f"{path}: {where} end at {note.offset:#x}: {note.why}"))
    if decoded:
        rows = [_note_row(note, path) for note in decoded]
        yield Table("kplug.notes/1", _NOTE_COLUMNS, rows, f"notes of {path}")
    elif empty and not problems:
        problems.append(Problem(f"{path}: has no notes"))
    yield from problems
    for note in decoded if verbose else ():
        yield from _note_details(note, path)


def _note_row(note: DecodedNote, path: str) -> dict[str, Any]:
    return {
        "owner": note.owner,
        "type": Hex(note.type),
        "name": note.name,
        "size": Size(len(note.description)),
        "says": note.shown,
        "value": note.value,
        "text": note.text,
        "cpu": note.cpu,
        "pr_pid": note.pid,
        "registers": {name: Hex(value) for name, value in note.registers.items()} or None,
        "data": note.description[:_MAX_SHOWN_BYTES].hex(),
        "place": note.place or None,
        "offset": None if note.offset is None else Hex(note.offset),
        "path": path,
    }


def _note_details(note: DecodedNote, path: str) -> Iterator[Output]:
    """The registers and lines in a note."""
    from kplug.outputs import Address

    name = f"{note.owner} {note.name or hex(note.type)}"
    if note.registers:
        whose = f"CPU {note.cpu}" if note.cpu is not None else f"PID {note.pid}"
        columns = (Column("REGISTER", "register"), Column("VALUE", "register_value"))
        rows = [
            {
                "register": register,
                "register_value": Address(value, note.bits),
                "owner": note.owner,
                "cpu": note.cpu,
                "path": path,
            }
            for register, value in note.registers.items()
        ]
        yield Table("kplug.note_registers/1", columns, rows, f"{name}: {whose}")
    if note.text is not None:
        rows = [{"line": line, "owner": note.owner, "path": path} for line in note.text.splitlines()]
        yield Table("kplug.note_text/1", LINE, rows, f"{name}:")


def add_file_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="a vmlinux, vmlinuz, module, vmcore, ... (default: the kernel's own)"
    )


def _add_notes_arguments(parser: argparse.ArgumentParser) -> None:
    add_file_argument(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="all registers and lines that the notes hold")
    add_json_argument(parser)


NOTES = Command(
    name="notes",
    summary="the kernel's ELF notes, by their owners' names",
    description="""List the ELF notes of the kernel's image and of its dump (or of FILE), called as their owners
call them: Xen's, GNU's, Linux's, PRSTATUS, VMCOREINFO, ...""",
    examples=(("", "the table"), ("-v vmcore", "with all registers, and the text of VMCOREINFO")),
    add_arguments=_add_notes_arguments,
    run=_notes,
    file_word="file",
)
