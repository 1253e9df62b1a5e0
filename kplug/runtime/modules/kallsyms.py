"""A loaded module as an ELF file made from the kernel's memory: section addresses and the symbols for kallsyms.

With it, a module without a debug file is an image like any other. The file's sections have no bytes.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence

import drgn

from kplug.errors import TargetError
from kplug.image.elf.file import ElfFile
from kplug.image.elf.section_flags import SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE
from kplug.image.elf.sections import PERCPU_SECTION
from kplug.image.elf.writer import SHT_NOBITS, SHT_PROGBITS, Form, relocatable
from kplug.image.module_sections import section_addresses
from kplug.image.symbols.symbol import STT_FUNC, STT_OBJECT
from kplug.image.symbols.table import SymbolTable
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.parts import INIT_TEXT, RODATA, TEXT, MemoryRange
from kplug.runtime.modules.struct_module import Module

# The largest modules have 50,000 symbols.
MAX_SYMBOLS = 4_000_000
MAX_NAMES_BYTES = 1 << 26
# The kernel's own limit for names is 512 (KSYM_NAME_LEN).
_MAX_NAME_BYTES = 4096

_SHN_LORESERVE = 0xFF00
# Placeholder for a section's name that could not be read.
NAMELESS = "(name not in memory)"
# Allocated sections of the file that the loader leaves out (setup_load_info(), layout_and_allocate()).
_NOT_LOADED = frozenset((".modinfo", "__versions", PERCPU_SECTION))
# "?", the first of the letters; a real st_info is less than that.
_SMALLEST_LETTER = 0x3F
# The letters that the kernel keeps for symbols (elf_type() in kernel/module/kallsyms.c), and what each says about the
# section. Weak symbols and those of the per-CPU section have other letters.
_LETTERS = {
    "t": (SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR),
    "r": (SHT_PROGBITS, SHF_ALLOC),
    "d": (SHT_PROGBITS, SHF_ALLOC | SHF_WRITE),
    "b": (SHT_NOBITS, SHF_ALLOC | SHF_WRITE),
}


class NamedRange(NamedTuple):
    """Something in a module's memory: its name and `[start, end)`."""

    name: str
    start: int
    end: int


class SymbolEntry(NamedTuple):
    """A symbol in the kernel's memory: the ELF fields (`value` is its runtime address), name, and the nm letter."""

    name: bytes
    info: int
    section: int
    value: int
    size: int
    letter: str


def symbol_names(kernel: Kernel, module: Module) -> bytes:
    """The string table of a module's symbols, with the memory that follows; empty if it cannot be read."""
    pointer = module.number("kallsyms")
    if not pointer:
        return b""
    try:
        with kernel.reading(f"the symbols of module {module.name}"):
            offset = drgn.offsetof(kernel.prog.type("struct mod_kallsyms"), "strtab")
            start = kernel.read_word(pointer + offset)
            part = module.part_at(start)
            return kernel.read(start, min(part.end - start, MAX_NAMES_BYTES)) if part is not None else b""
    except TargetError:
        return b""


class ModuleKallsyms:
    """The symbols of a module in memory, `entries`, and the places of their tables. Read when made; TargetError."""

    def __init__(self, kernel: Kernel, module: Module | None = None) -> None:
        self.entries: tuple[SymbolEntry, ...] = ()
        self.tables: tuple[NamedRange, ...] = ()
        if module is None:
            return
        pointer = module.number("kallsyms")  # 8244062ef1e5 (4.5); before, the tables' addresses were in struct module
        if not pointer:
            return
        with kernel.reading(f"the symbols of module {module.name}"):
            kind = kernel.prog.type("struct mod_kallsyms")
            data = kernel.read(pointer, drgn.sizeof(kind))
            fields = {member.name: (member.offset, drgn.sizeof(member.type)) for member in kind.members or ()}
        self._kernel, self._module, word = kernel, module, kernel.word

        def number(name: str) -> int:
            offset, size = fields[name]
            return word.unsigned(data, offset, size)

        count = number("num_symtab")
        if not count:
            return
        if count > MAX_SYMBOLS:
            raise TargetError(f"the symbols of module {module.name} could not be read: it claims {count} of them")
        form = Form(word.bits, word.little_endian)
        symbols = self._part("symbol table", number("symtab"), count * form.symbol.size)
        raw = form.symbols_in(kernel.read(*symbols))
        strings = self._strings(number("strtab"), max(entry[0] for entry in raw))
        tables = [NamedRange("symbol table", symbols[0], sum(symbols)), strings[0]]
        letters = b""
        if "typetab" in fields:  # 1c7651f43777 (5.2)
            types = self._part("symbol types", number("typetab"), count)
            letters = kernel.read(*types)
            tables.append(NamedRange("symbol types", types[0], sum(types)))
        self.tables = tuple(tables)
        self.entries = tuple(self._entries(raw, strings[1], letters))

    def _part(self, what: str, start: int, size: int) -> tuple[int, int]:
        """`start` and `size` of a table, if the module's own memory has it; else TargetError."""
        part = self._module.part_at(start)
        if part is None or start + size > part.end:
            raise TargetError(
                f"the symbols of module {self._module.name} could not be read: its {what} would be at {start:#x}, "
                f"{size:#x} bytes, which is not in its memory"
            )
        return start, size

    def _strings(self, start: int, last: int) -> tuple[NamedRange, bytes]:
        """The string table, of which only the start of the last string is known: it ends at that string's NUL."""
        part = self._module.part_at(start)
        self._part("string table", start, last + 1)
        size = min(last + _MAX_NAME_BYTES, (part.end if part else start) - start)
        data = self._kernel.read(start, size)
        end = data.find(b"\0", last)
        data = data[: end + 1] if end >= 0 else data[:last] + b"\0"
        return NamedRange("symbol names", start, start + len(data)), data

    @staticmethod
    def _entries(raw: Sequence[tuple[int, ...]], strings: bytes, letters: bytes) -> Iterator[SymbolEntry]:
        for index, (name, info, section, value, size) in enumerate(raw):
            # Undefined ones, absolute ones, and files are no places in the module.
            if section == 0 or section >= _SHN_LORESERVE:
                continue
            text = strings[name : strings.find(b"\0", name)]
            if not text:
                continue
            if letters:
                letter = chr(letters[index])
            elif info >= _SMALLEST_LETTER:  # up to 4.20 the letter was in place of st_info
                letter, info = chr(info), STT_FUNC if chr(info) in "tT" else STT_OBJECT
            else:  # 5.0 and 5.1: in place of st_size (5439c985c5a8)
                letter, size = chr(size & 0x7F), 0
            yield SymbolEntry(text, info, section, value, size, letter)


def sections_in_memory(module: Module, tables: Iterable[NamedRange] = ()) -> tuple[tuple[NamedRange, MemoryRange], ...]:
    """The module's sections and the memory that each lies in, sorted by address.

    The kernel keeps their starts: one ends where the next, or a table of symbols, begins, else at its memory's end.
    """
    starts = sorted(module.sections, key=lambda section: section.start)
    bounds = sorted({section.start for section in starts} | {table.start for table in tables})
    found = []
    for section in starts:
        part = module.part_at(section.start)
        if part is not None:
            end = next((bound for bound in bounds if bound > section.start), part.end)
            found.append((NamedRange(section.name or NAMELESS, section.start, min(end, part.end)), part))
    return tuple(found)


def memory_elf(
    kernel: Kernel, module: Module, kallsyms: ModuleKallsyms, sections: Sequence[tuple[NamedRange, MemoryRange]]
) -> tuple[ElfFile, dict[int, int]]:
    """The module as a relocatable ELF file with those sections, and the address of each."""
    placed = list(sections)
    if not placed:  # no sysfs, or it cannot be read: use the types of memory
        placed = [(NamedRange(part.type, part.start, part.end), part) for part in module.memory]
    groups = _groups(kallsyms.entries)
    homes = _homes([extent for extent, _ in placed], groups)
    letters = {homes[section]: group.letter for section, group in groups.items() if section in homes}
    headers = [
        (extent.name, *_nature(extent.name, part, letters.get(number, "")), extent.end - extent.start)
        for number, (extent, part) in enumerate(placed)
    ]
    starts = [extent.start for extent, _ in placed]
    percpu = module.percpu
    if percpu is not None:
        headers.append((PERCPU_SECTION, *_LETTERS["d"], percpu.size))
        starts.append(percpu.base)
    for section, group in groups.items():
        if section in homes:
            continue
        if percpu is not None and percpu.base <= group.lowest < percpu.base + percpu.size:
            homes[section] = len(placed)
        else:
            # The kernel keeps no address of an empty section; its symbols are at the place.
            homes[section] = len(headers)
            headers.append((f"empty section {section}", *_LETTERS.get(group.letter, _LETTERS["d"]), 0))
            starts.append(group.lowest)
    symbols = [
        (entry.name, entry.info, homes[entry.section] + 1, entry.value - starts[homes[entry.section]], entry.size)
        for entry in kallsyms.entries
    ]
    data = relocatable(kernel.machine, kernel.word, headers, symbols)
    bases = dict(enumerate(starts, 1))
    return ElfFile(f"module {module.name}'s kallsyms in memory", io.BytesIO(data)), bases


class _Group(NamedTuple):
    """The symbols of one section of the module's file: their lowest address, and the letter that gives its type."""

    lowest: int
    letter: str


def _groups(entries: Iterable[SymbolEntry]) -> dict[int, _Group]:
    """The groups by section number in the module's file, which the kernel keeps nowhere else."""
    lowest: dict[int, int] = {}
    letters: dict[int, str] = {}
    for entry in entries:
        lowest[entry.section] = min(lowest.get(entry.section, entry.value), entry.value)
        letter = entry.letter.lower()
        if letter in _LETTERS:
            letters.setdefault(entry.section, letter)
    return {section: _Group(address, letters.get(section, "")) for section, address in lowest.items()}


def _homes(extents: Sequence[NamedRange], groups: Mapping[int, _Group]) -> dict[int, int]:
    """Which of the extents (by position) the sections of the groups are.

    The lowest address decides: the highest may be a label at the section's end. If two sections claim one extent, the
    later one is empty, and the kernel keeps no address of it.
    """
    starts = [extent.start for extent in extents]
    homes: dict[int, int] = {}
    taken: set[int] = set()
    for section, group in sorted(groups.items(), key=lambda item: item[1].lowest):
        position = bisect_right(starts, group.lowest) - 1
        if position >= 0 and group.lowest < extents[position].end and position not in taken:
            homes[section] = position
            taken.add(position)
    return homes


def _nature(name: str, part: MemoryRange, letter: str) -> tuple[int, int]:
    """ELF type and flags of a section: from its symbols' letters, else its memory's type (layout_sections())."""
    if letter:
        return _LETTERS[letter]
    if part.type in (TEXT, INIT_TEXT):
        return _LETTERS["t"]
    if part.type.endswith(RODATA):
        return _LETTERS["r"]
    return _LETTERS["b" if name == ".bss" or name.startswith(".bss.") else "d"]


def section_bases(elf: ElfFile, module: Module, kallsyms: ModuleKallsyms) -> Mapping[int, int]:
    """Where the sections of a module's debug file are in memory, by their index in the file.

    Sections that the kernel has no address of, or whose memory is freed, have none.
    """

    def holds(start: int, end: int) -> bool:
        part = module.part_at(start)
        return part is not None and end <= part.end

    loaded = zip(_names(elf, module), (section.start for section in module.all_sections))
    percpu = module.percpu.base if module.percpu is not None else None
    bases = section_addresses(elf.sections, loaded, percpu=percpu, holds=holds)
    bases.update(_empty_section_bases(elf, kallsyms))
    return bases


def _names(elf: ElfFile, module: Module) -> list[str]:
    """The names of all sections that the kernel keeps. For unreadable ones, the file's, if all others agree."""
    names = [section.name for section in module.all_sections]
    if all(names):
        return names
    held = [s.name for s in elf.sections if s.allocated and s.size and s.name not in _NOT_LOADED]
    held += [".symtab", ".strtab"]  # which the loader keeps while init runs (layout_symtab())
    agree = len(held) == len(names) and all(name in ("", other) for name, other in zip(names, held))
    return held if agree else names


def _empty_section_bases(elf: ElfFile, kallsyms: ModuleKallsyms) -> dict[int, int]:
    """The places of empty sections, from their symbols in memory, if they have any (`struct lock_class_key`)."""
    empty = {section.index: 0 for section in elf.sections if section.allocated and not section.size}
    if not empty or not kallsyms.entries:
        return {}
    table = SymbolTable(elf, elf.sections, empty)
    symbols = [table.symbol(index) for index in table.places()]
    if not symbols:
        return {}
    in_memory = {entry.name: entry.value for entry in kallsyms.entries}
    bases: dict[int, int] = {}
    for symbol in symbols:
        address = in_memory.get(symbol.name.encode("utf-8", "surrogateescape"))
        if address is not None:
            bases[symbol.section_index] = address - symbol.address
    return bases
