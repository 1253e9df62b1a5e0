"""Opening the files that the user names: a vmlinux, a module, their separate debug files."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kplug.errors import InputError, UsageError
from kplug.files.opening import open_file
from kplug.image.elf.file import MAX_LOADED_BYTES, ElfFile
from kplug.image.elf.sections import Section
from kplug.image.kernel_image import KernelImage
from kplug.image.module_sections import section_addresses
from kplug.image.symbols.symbol_list import SymbolList, no_symbols

if TYPE_CHECKING:
    from kplug.linker.link_map import LinkMap
    from kplug.linker.script import LinkerScript

# Where debug files are installed (gdb's debug-file-directory, drgn's default search path).
DEBUG_DIRECTORIES = ("/usr/lib/debug",)
# The name of a file, and its checksum or build ID.
MOST_LINK_BYTES = 4096
PACKED_ENDINGS = {".gz": "gzip", ".xz": "xz", ".zst": "zstd", ".bz2": "bzip2"}


def open_elf(path: str) -> ElfFile:
    """The ELF file at `path`, unpacked in memory if it is a .gz, .xz, .zst or .bz2 (as distributions ship modules)."""
    name = PACKED_ENDINGS.get(os.path.splitext(path)[1])
    if name is None:
        return ElfFile(path)
    from kplug.files.bounded_output import MAX_UNPACKED_BYTES, UnpackError, unpacking_limit
    from kplug.files.compression import decompress_all

    with open_file(path) as packed:
        size = os.fstat(packed.fileno()).st_size
        if size > MAX_UNPACKED_BYTES:
            raise InputError(f"{path}: {size >> 20} MiB packed; no module is so large")
        try:
            data = decompress_all(name, packed.read(MAX_UNPACKED_BYTES), unpacking_limit(size))
        except (OSError, UnpackError) as error:
            raise InputError(f"{path}: cannot be unpacked: {error}") from None
    return ElfFile(path, io.BytesIO(data))


def open_vmlinux(path: str, script: LinkerScript | None = None, link_map: LinkMap | None = None) -> KernelImage:
    """The vmlinux at `path`. If it has no symbols, those of its separate debug file are used, or its kallsyms."""
    elf = open_elf(path)
    if elf.type == "CORE":
        raise InputError(f"{path}: not a vmlinux but a dump (a dump is given with -c)")
    symbols_from = symbols_file(elf)
    has_symbols = elf.relocatable or symbols_from.has_symbol_table
    return KernelImage(
        elf,
        name=os.path.basename(path),
        symbols_from=symbols_from,
        listed=None if has_symbols else lambda: _kallsyms_in(elf),
        bases={} if elf.relocatable else None,
        script=script,
        link_map=link_map,
    )


def _kallsyms_in(elf: ElfFile) -> SymbolList:
    """The symbols in the kallsyms of a stripped vmlinux; an empty list with the reason, if it has none."""
    from kplug.image.kallsyms.embedded import embedded_symbols

    size = max((each.offset + each.size for each in elf.loaded), default=0)
    if not 0 < size <= MAX_LOADED_BYTES:
        return no_symbols("no symbol table")
    return embedded_symbols(elf, elf.read(0, size, "what it loads"))


def open_module(specification: str) -> KernelImage:
    """A module in its place: `FILE@ADDR`, `FILE@ADDR,.data=ADDR,...` or `FILE@.text=ADDR,...`.

    ADDR alone is the base of the module's text as in /proc/modules: the text sections are laid out from there as the
    kernel's loader does. Other sections have their own addresses (/sys/module/NAME/sections/); nothing is claimed for
    one without an address.
    """
    path, at, addresses = specification.rpartition("@")
    if not at or not path or not addresses:
        raise UsageError(f"--module {specification}: must be FILE@ADDR, with ADDR as /proc/modules shows it")
    elf = open_elf(path)
    if not elf.relocatable:
        raise InputError(f"{path}: not a module (its type is {elf.type}, a module's is REL)")
    bases: dict[int, int] = {}
    given: list[tuple[str, int]] = []
    for item in addresses.split(","):
        name, equals, number = item.rpartition("=")
        address = _address(number, specification)
        if not equals:
            bases.update(text_layout(elf.sections, address))
            continue
        section = elf.section(name)
        if section is None or not section.allocated:
            raise UsageError(f"--module {specification}: {path} has no section {name} in memory")
        given.append((name, address))
    placed = section_addresses(elf.sections, given, holds=lambda start, end: True)
    unplaced = {name for name, _ in given} - {elf.sections[index].name for index in placed}
    if unplaced:
        name = min(unplaced)
        count = sum(section.allocated and section.name == name for section in elf.sections)
        raise UsageError(
            f"--module {specification}: {path} has {count} section{'s' * (count > 1)} {name}: give each its address, "
            "in the order of the file"
        )
    bases.update(placed)
    for index, address in bases.items():
        if address + elf.sections[index].size > elf.word.mask + 1:
            raise UsageError(f"--module {specification}: {elf.sections[index].name} would reach beyond 64 bits")
    return KernelImage(elf, name=module_name(elf), symbols_from=symbols_file(elf), bases=bases)


def module_name(elf: ElfFile) -> str:
    """The module's name in the kernel: the one in .modinfo (since 4.13), else the file's, with underscores."""
    information = elf.section(".modinfo")
    if information is not None:
        for entry in elf.section_bytes(information, limit=1 << 20).split(b"\0"):
            if entry.startswith(b"name="):
                return entry[5:].decode("utf-8", "backslashreplace")
    return os.path.basename(elf.path).partition(".ko")[0].replace("-", "_")


def text_layout(sections: Sequence[Section], base: int) -> dict[int, int]:
    """The addresses of a module's text sections from the base of its text, by section index.

    As layout_sections() in kernel/module/main.c: executable allocated sections in the order of the file, each at its
    alignment; those whose name begins with .init go elsewhere.
    """
    placed: dict[int, int] = {}
    offset = 0
    for section in sections:
        if not (section.allocated and section.executable) or section.name.startswith(".init"):
            continue
        if section.name == ".plt":
            break  # the loader sets its size (module_frob_arch_sections of arm64 and others): what follows is not known
        alignment = max(section.alignment, 1)
        offset = (offset + alignment - 1) // alignment * alignment
        placed[section.index] = base + offset
        offset += section.size
    return placed


def _address(text: str, specification: str) -> int:
    if not re.fullmatch(r"(0[xX])?[0-9a-fA-F]{1,16}", text):
        raise UsageError(f"--module {specification}: {text!r} is not an address")
    return int(text, 16)


def symbols_file(elf: ElfFile) -> ElfFile:
    """`elf` itself if it has a symbol table, else its separate debug file, else itself."""
    return elf if elf.has_symbol_table else find_debug_file(elf) or elf


def find_debug_file(elf: ElfFile) -> ElfFile | None:
    """The separate debug file of `elf`: by build ID, by .gnu_debuglink, or next to the file, as gdb and drgn do.

    A file of another build is not used: if both have build IDs, they must be equal.
    """
    build_id = elf.build_id
    for path in _debug_file_candidates(elf, build_id):
        if not os.path.isfile(path) or (os.path.exists(elf.path) and os.path.samefile(path, elf.path)):
            continue
        try:
            found = ElfFile(path)
            if build_id is None or found.build_id == build_id:
                return found
        except InputError:
            continue
        found.close()
    return None


def linked_name(elf: ElfFile) -> str | None:
    """The name of its separate debug file, as .gnu_debuglink has it."""
    section = elf.section(".gnu_debuglink")
    if section is None:
        return None
    return os.fsdecode(elf.section_bytes(section, MOST_LINK_BYTES).partition(b"\0")[0])


def _debug_file_candidates(elf: ElfFile, build_id: str | None) -> Iterator[str]:
    if build_id and len(build_id) > 2:
        for directory in DEBUG_DIRECTORIES:
            yield f"{directory}/.build-id/{build_id[:2]}/{build_id[2:]}.debug"
    folder = os.path.dirname(os.path.abspath(elf.path))
    names = [os.path.basename(elf.path), os.path.basename(elf.path) + ".debug"]
    link = linked_name(elf)
    if link and "/" not in link:
        names.insert(0, link)
    for name in dict.fromkeys(names):
        yield f"{folder}/{name}"
        yield f"{folder}/.debug/{name}"
        for directory in DEBUG_DIRECTORIES:
            yield f"{directory}{folder}/{name}"
