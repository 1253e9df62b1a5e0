"""What gdb has loaded: which of its files is the kernel, how far gdb itself has moved it, and modules.

gdb has no interface for the sections of its files; `maintenance info sections` prints them, at the addresses that gdb
uses for them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import gdb
from kplug.errors import InputError
from kplug.frozen import Frozen
from kplug.image.banner import START as BANNER
from kplug_gdb import events

# Each Linux kernel has one of these sections, and no other program does.
_KERNEL_SECTIONS = ("__ksymtab", "__ex_table", ".init.text", "__param")

_FILE_LINE = re.compile(r"^(?:Exec|Object) file: [`'](?P<path>.*)', file type ")
_SECTION_LINE = re.compile(r"^ \[\d+\]\s+0x(?P<start>[0-9a-f]+)->0x[0-9a-f]+ at 0x[0-9a-f]+: (?P<name>\S+)")


class FileId(Frozen):
    """A file as it is on disk now: another size or time means another build."""

    path: str
    size: int
    modified: int


def file_id(path: str) -> FileId:
    """The identity of a file. InputError if it does not exist."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return FileId(path, status.st_size, status.st_mtime_ns)


def loaded_paths() -> list[str]:
    """The files whose symbols gdb has, the program itself first; no file twice, and no separate debug files."""
    space = gdb.current_progspace()
    paths = [space.filename] if space is not None and space.filename else []
    for objfile in gdb.objfiles():
        if objfile.is_valid() and objfile.owner is None and objfile.filename:
            paths.append(objfile.filename)
    return [path for path in dict.fromkeys(paths) if os.path.isfile(path)]


def find_vmlinux() -> str | None:
    """The one of gdb's files that is a Linux kernel, or None."""
    return next((path for path in loaded_paths() if looks_like_kernel(path)), None)


def looks_like_kernel(path: str) -> bool:
    """Whether the file is a linked ELF file with a kernel's sections, or without any and with a kernel's banner.

    Each file is read once, of one with sections the headers alone.
    """
    try:
        return _looks_like_kernel(file_id(path))
    except InputError:
        return False


_kernels: dict[FileId, bool] = {}


def _looks_like_kernel(file: FileId) -> bool:
    from kplug.image.elf.file import ElfFile

    known = _kernels.get(file)
    if known is None:
        elf = ElfFile(file.path)
        names = {section.name for section in elf.sections}
        known = any(name in names for name in _KERNEL_SECTIONS) if names else elf.holds(BANNER)
        known = _kernels[file] = known and not elf.relocatable
        elf.close()
    return known


def module_paths() -> tuple[str, ...]:
    """The files among gdb's that are kernel modules by name."""
    return tuple(path for path in loaded_paths() if re.search(r"\.ko(\.debug)?$", path))


def sections(*names: str) -> Iterator[tuple[str, str, int]]:
    """(file, section, address) of gdb's files, at the addresses that gdb uses; with `names` those sections only."""
    path = ""
    for line in _printed_sections(names).splitlines():
        heading = _FILE_LINE.match(line)
        if heading:
            path = heading.group("path")
            continue
        section = _SECTION_LINE.match(line)
        if section:
            yield path, section.group("name"), int(section.group("start"), 16)


# By the program space, which no event is for when it changes, and the sections' names; of that generation of `events`.
_printed: dict[tuple[gdb.Progspace | None, tuple[str, ...]], str] = {}
_printed_at = -1


def _printed_sections(names: tuple[str, ...]) -> str:
    """What gdb prints of them, until something changes: on arm, gdb 13 loses 22 MB for each section that it prints."""
    global _printed_at
    if _printed_at != events.generation():
        _printed.clear()
        _printed_at = events.generation()
    key = (gdb.current_progspace(), names)
    if key not in _printed:
        command = f"maintenance info sections -all-objects {' '.join(names)}"
        _printed[key] = gdb.execute(command, to_string=True)
    return _printed[key]


def applied_offset(path: str, section: str, link_address: int, mask: int) -> int | None:
    """How far gdb itself has moved the symbols of that file (modulo the machine's width), known from one section.

    None if gdb has no symbols of it; 0 if they are where they were linked.
    """
    for found, name, address in sections(section):
        if name == section and (found == path or os.path.realpath(found) == os.path.realpath(path)):
            return address - link_address & mask
    return None
