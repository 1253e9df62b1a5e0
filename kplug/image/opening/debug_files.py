"""The files that debug information is spread over: where a file's DWARF is, and what of it is missing.

`.gnu_debuglink` names the file with the DWARF of a stripped one (objcopy --add-gnu-debuglink), `.gnu_debugaltlink` and
DWARF 5's `.debug_sup` one with what several files have in common (dwz -m). Without the latter a DWARF cannot be read;
without a `.dwo` of split DWARF only inlined functions and types are missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

from kplug.errors import InputError
from kplug.frozen import Frozen
from kplug.image.elf.file import ElfFile
from kplug.image.kernel_image import DEBUG_INFO, KernelImage
from kplug.image.opening.files import DEBUG_DIRECTORIES, MOST_LINK_BYTES, find_debug_file, linked_name

_NOT_THERE = "is not there, or is of another build"
NO_DWARF = "{path} has no debug information (DWARF)"


class Supplement(Frozen):
    """The file that a DWARF refers to for what it shares with others. `path` is None if it is not there."""

    section: str
    name: str
    build_id: str
    path: str | None


def has_dwarf(elf: ElfFile) -> bool:
    """Whether the file has DWARF, compressed or not."""
    return any(elf.section(name) is not None for name in DEBUG_INFO)


def dwarf_file(elf: ElfFile) -> ElfFile | None:
    """The file with the DWARF of `elf`: itself, or its separate debug file; None if neither has any."""
    if has_dwarf(elf):
        return elf
    found = find_debug_file(elf)
    return found if found is not None and has_dwarf(found) else None


def why_no_dwarf(elf: ElfFile) -> str | None:
    """Why its DWARF cannot be read, for the user: there is none, or a file is missing; None if it can."""
    return missing_dwarf(elf) or (None if dwarf_file(elf) is not None else NO_DWARF.format(path=elf.path))


def missing_dwarf(elf: ElfFile) -> str | None:
    """Which file its DWARF is in or refers to that is not there, for the user; None if there is no such file."""
    found = dwarf_file(elf)
    if found is None:
        link = linked_name(elf)
        if link is None:
            return None
        return f"the DWARF of {elf.path} is in {link} (.gnu_debuglink), which {_NOT_THERE}"
    supplement = supplement_of(found)
    if supplement is None or supplement.path is not None:
        return None
    return (
        f"the DWARF of {found.path} refers to {supplement.name} ({supplement.section}), which is not there, or does "
        f"not have the build ID {supplement.build_id}"
    )


def missing_debug_file(elf: ElfFile) -> str:
    """That a separate debug file was sought and not found, for the user."""
    link = linked_name(elf)
    return f"its debug file {'' if link is None else f'{link} (.gnu_debuglink) '}{_NOT_THERE}"


def why_no_symbols(image: KernelImage) -> str:
    """Why an image has no symbols, for the user, and which file would have them."""
    if image.bases == {} and image.elf.has_symbol_table:
        return "a module whose address is not given"
    is_missing = image.on_disk and image.symbols_path == image.path and linked_name(image.elf)
    return f"no symbol table, and {missing_debug_file(image.elf)}" if is_missing else "no symbol table"


def supplement_of(elf: ElfFile) -> Supplement | None:
    """What the DWARF of a file refers to by DW_FORM_GNU_ref_alt and the like; None if it is complete in itself."""
    section = elf.section(".gnu_debugaltlink")
    if section is None:
        return None  # line tables do not refer to what .debug_sup names
    name, _, build_id = elf.section_bytes(section, MOST_LINK_BYTES).partition(b"\0")
    text, wanted = os.fsdecode(name), build_id.hex()
    path = next((path for path in _places(elf, text, wanted) if _is_of_build(path, wanted)), None)
    return Supplement(section.name, text, wanted, path)


def _places(elf: ElfFile, name: str, build_id: str) -> Iterator[str]:
    """Where it may be, as gdb and drgn look for it."""
    yield os.path.join(os.path.dirname(os.path.realpath(elf.path)), name)
    for directory in DEBUG_DIRECTORIES:
        yield f"{directory}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"
        yield f"{directory}/.dwz/{os.path.basename(name)}"


def _is_of_build(path: str, build_id: str) -> bool:
    if not os.path.isfile(path):
        return False
    try:
        with closing(ElfFile(path)) as elf:
            return elf.build_id == build_id
    except InputError:
        return False
