"""kinfo and knotes: the content of a kernel file, as readelf -a shows it, with the notes' proper names."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from kplug.commands.base import Command, add_json_argument
from kplug.commands.layout import FILE_SECTION_COLUMNS, FILE_SEGMENT_COLUMNS, section_table, segment_table
from kplug.errors import InputError, TargetError, UsageError
from kplug.outputs import Column, Hex, NamedFacts, Output, Problem, Size, Table

if TYPE_CHECKING:
    from kplug.commands.inspection import Inspected
    from kplug.image.elf.notes import BrokenNotes, DecodedNote
    from kplug.image.kernel_image import KernelImage
    from kplug.image.placed import PlacedImage
    from kplug.session import Session

_MAX_SHOWN_BYTES = 1 << 16
# The kernel's own notes have some hundred bytes.
_MAX_NOTES_IN_MEMORY = 1 << 16
_RUNNING_NOTES = "/sys/kernel/notes"
_RUNNING_BANNER = "/proc/version"
_RUNNING_CONFIG = "/proc/config.gz"  # CONFIG_IKCONFIG_PROC
_MAX_BANNER_BYTES = 512
# Text: a row for each line, no heading.
_LINE = (Column("", "line"),)


# -- kinfo -------------------------------------------------------------------------------------------------------------


def _info(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    from kplug.commands.inspection import inspect

    if arguments.file:
        yield from _file_info(inspect(arguments.file), arguments)
        return
    if arguments.config and os.path.isfile(arguments.config):
        raise UsageError(f"info: --config takes the name of an option; put the file first: {arguments.config} --config")
    if session.is_running:
        yield from _running_info(arguments)
        return
    if not session.images.given:
        raise UsageError("info: no image is loaded, and no FILE given")
    given = [placed.image for placed in session.images.given]
    listed = [image for image in given if _is_in_a_list(image)]
    for image in given:
        if image.is_module and _is_in_a_list(image):
            continue
        file = _image_file(image)
        if file is not None:
            yield from _file_info(file, arguments)
        else:
            yield from _image_info(image, arguments, sum(each.is_module for each in listed))


def _file_info(file: Inspected, arguments: argparse.Namespace) -> Iterator[Output]:
    from kplug.commands.inspection import file_facts

    if arguments.config is not None:
        yield from _config(file.path, file.config(), arguments.config)
        return
    yield NamedFacts("kplug.info/1", file_facts(file))
    if file.module_fields:
        rows = [
            {"key": each.key, "value": each.value, "parameter": each.parameter, "type": each.type, "path": file.path}
            for each in file.module_fields
        ]
        yield Table("kplug.modinfo/1", (Column("FIELD", "key"), Column("VALUE", "value")), rows)
    if file.elf is not None and (file.elf.sections or file.elf.segments):
        placed = _unplaced(file)
        if placed.image.sections:
            yield section_table(placed, FILE_SECTION_COLUMNS)
        if placed.image.segments:
            yield segment_table(placed, FILE_SEGMENT_COLUMNS)
    yield from _note_outputs(file.notes, file.path)


def _unplaced(file: Inspected) -> PlacedImage:
    """The ELF file as an image at its own addresses."""
    from kplug.image.kernel_image import KernelImage
    from kplug.image.placed import PlacedImage
    from kplug.image.placement import as_linked

    assert file.elf is not None
    image = KernelImage(file.elf, bases={} if file.elf.relocatable else None)
    return PlacedImage(image, as_linked(image.sections))


def _is_in_a_list(image: KernelImage) -> bool:
    """Whether nothing but a list of symbols is known of it: System.map, a saved /proc/kallsyms."""
    bare = not image.elf.sections and not image.elf.segments
    return bare and image.listed is not None and _image_file(image) is None and os.path.isfile(image.path)


def _list_facts(image: KernelImage, modules: int) -> dict[str, Any]:
    """What a list of symbols contains about its kernel; `modules` are the modules in the list."""
    listed = image.listed
    if listed is None:
        return {}
    bounds = {key: listed.boundary_address(name) for key, name in (("image_start", "_text"), ("image_end", "_end"))}
    facts: dict[str, Any] = {"symbols": len(listed)}
    facts.update({key: Hex(address) for key, address in bounds.items() if address is not None})
    return {**facts, "modules": modules} if modules else facts


def _image_info(image: KernelImage, arguments: argparse.Namespace, modules: int = 0) -> Iterator[Output]:
    """What is known about an image that is not a file (it was read from memory, or is a list of symbols)."""
    from kplug.commands.inspection import banner_facts
    from kplug.image.banner import parse_banner

    if arguments.config is not None:
        text = _running_config() if _runs_here(image) else None
        if text is None:
            yield Problem(f"{image.path}: the configuration can only be read from an image's file, and this is not one")
        else:
            yield from _config(_RUNNING_CONFIG, text, arguments.config)
        return
    line = image.banner or (_running_banner() if _runs_here(image) else None)
    banner = parse_banner(line) if line is not None else None
    kind = "module" if image.is_module else "list of symbols" if os.path.isfile(image.path) else "kernel in memory"
    facts = {"path": image.path, "kind": kind, "machine": image.machine}
    if _is_in_a_list(image):
        facts.update(_list_facts(image, modules))
    named = {**banner_facts(banner), "build_id": image.build_id}
    # No list of symbols has a banner: what it cannot contain is left out, not reported as unknown.
    yield NamedFacts("kplug.info/1", {**facts, **{key: value for key, value in named.items() if value is not None}})


def _running_info(arguments: argparse.Namespace) -> Iterator[Output]:
    """What the running kernel shows to every user."""
    from kplug.commands.inspection import banner_facts, inspect
    from kplug.image.banner import parse_banner
    from kplug.live import running_build_id
    from kplug.live.machine import Machine

    if arguments.config is not None:
        text = _running_config()
        if text is None:
            yield Problem(f"{_RUNNING_CONFIG} is missing (CONFIG_IKCONFIG_PROC) or cannot be read")
        else:
            yield from _config(_RUNNING_CONFIG, text, arguments.config)
        return
    line = _running_banner()
    facts = {"path": _RUNNING_BANNER, "kind": "running kernel", "machine": Machine().architecture}
    banner = parse_banner(line) if line is not None else None
    yield NamedFacts("kplug.info/1", {**facts, **banner_facts(banner), "build_id": running_build_id()})
    if os.path.isfile(_RUNNING_NOTES):
        yield from _note_outputs(inspect(_RUNNING_NOTES).notes, _RUNNING_NOTES)


def _config(path: str, text: str, pattern: str) -> Iterator[Output]:
    """A configuration: all of it, or the options that match a pattern."""
    from kplug.image.kernel_config import config_lines

    lines = config_lines(text, pattern) if pattern else text.splitlines()
    if not lines:
        yield Problem(f"{path}: no option {pattern} in its configuration")
        return
    yield Table("kplug.config/1", _LINE, [{"line": line, "path": path} for line in lines])


# -- knotes ------------------------------------------------------------------------------------------------------------


def _notes(session: Session, arguments: argparse.Namespace) -> Iterator[Output]:
    from kplug.commands.inspection import inspect

    if arguments.file:
        file = inspect(arguments.file)
        yield from _note_outputs(file.notes, file.path, arguments.verbose, empty=True)
        return
    listed = False
    for path, notes in _session_notes(session):
        listed = True
        yield from _note_outputs(notes, path, arguments.verbose)
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
        file = None if image.elf.sections or image.elf.segments else _image_file(image)
        if file is not None and not file.notes:
            continue
        if file is not None or image.elf.sections or image.elf.segments:
            of_kernel = of_kernel or not image.is_module
            yield image.path, notes_of(image.elf) if file is None else file.notes
    if not of_kernel:
        in_memory = _notes_in_memory(session)
        if in_memory is not None:
            yield "memory", in_memory
        elif _is_running(session) and os.path.isfile(_RUNNING_NOTES):
            yield _RUNNING_NOTES, inspect(_RUNNING_NOTES).notes
    target, main = session.target, session.main
    core = target.core_path() if target is not None else None
    if target is not None and core is not None:
        notes = inspect(core).notes
        yield core, notes if main is None else with_cpus(notes, main, target.read)


def _is_running(session: Session) -> bool:
    return session.is_running or (session.main is not None and _runs_here(session.main.image))


def _runs_here(image: KernelImage) -> bool:
    """Whether it is certainly the running kernel's, so that no file has more."""
    from kplug.live import running_build_id

    return image.build_id is not None and image.build_id == running_build_id()


def _running_banner() -> bytes | None:
    try:
        with open(_RUNNING_BANNER, "rb") as file:
            return file.read(_MAX_BANNER_BYTES)
    except OSError:
        return None


def _running_config() -> str | None:
    """The running kernel's configuration; None if it is not available. InputError if it is broken."""
    from kplug.image.kernel_config import MAX_PACKED_BYTES, config_text

    try:
        with open(_RUNNING_CONFIG, "rb") as file:
            return config_text(_RUNNING_CONFIG, file.read(MAX_PACKED_BYTES))
    except OSError:
        return None


def _image_file(image: KernelImage) -> Inspected | None:
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


def _note_outputs(
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
            {"register": register, "register_value": Address(value), "owner": note.owner, "cpu": note.cpu, "path": path}
            for register, value in note.registers.items()
        ]
        yield Table("kplug.note_registers/1", columns, rows, f"{name}: {whose}")
    if note.text is not None:
        rows = [{"line": line, "owner": note.owner, "path": path} for line in note.text.splitlines()]
        yield Table("kplug.note_text/1", _LINE, rows, f"{name}:")


def _add_file_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="a vmlinux, vmlinuz, module, vmcore, ... (default: the kernel's own)"
    )


def _add_info_arguments(parser: argparse.ArgumentParser) -> None:
    _add_file_argument(parser)
    parser.add_argument(
        "--config",
        nargs="?",
        const="",
        metavar="NAME",
        help="print the configuration in the image (IKCONFIG), or only the options called NAME (* and ? allowed)",
    )
    add_json_argument(parser)


def _add_notes_arguments(parser: argparse.ArgumentParser) -> None:
    _add_file_argument(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="all registers and lines that the notes hold")
    add_json_argument(parser)


INFO = Command(
    name="info",
    summary="what is in a kernel file: header, kernel, sections, segments, notes",
    description="""Show what is in a kernel file: header, release, compiler, build ID, sections,
segments, notes. A vmlinux, a module (.ko, packed too), a vmcore, a vmlinuz, a flat Image, a debug file.""",
    examples=(
        ("vmlinuz", "what is in a boot image"),
        ("ext4.ko.xz", "a module: vermagic, parameters, ..."),
        ("vmcore", "a dump: release, CPUs, notes"),
        ("vmlinux --config=IKCONFIG*", "options in the image's own configuration"),
    ),
    add_arguments=_add_info_arguments,
    run=_info,
    file_word="file",
)
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
