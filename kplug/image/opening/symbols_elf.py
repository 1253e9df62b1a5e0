"""The kernel of a boot image as an ELF file with a symbol table made from its own kallsyms.

An ELF kernel keeps its bytes, sections and segments; a symbol table is appended. A flat Image gets an ELF header, a
segment, and the sections that boundary symbols delimit.

What kallsyms does not contain is derived: a symbol reaches to the next one (as the kernel itself computes sizes), its
section is the one that holds its address, and its type follows from that section. A section with both code and data
(.data of x86_64 since 6.14) gives no type.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Union

from kplug.errors import InputError
from kplug.image.boot.boot_image import BootImage
from kplug.image.boot.flat_image import FlatImage
from kplug.image.elf.file import ElfFile
from kplug.image.elf.header_only import bare_header
from kplug.image.elf.section_flags import SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE
from kplug.image.elf.sections import PERCPU_SECTION, Section
from kplug.image.elf.writer import (
    PF_R,
    PF_W,
    PF_X,
    PT_LOAD,
    PT_NOTE,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_PROGBITS,
    SHT_STRTAB,
    SHT_SYMTAB,
    Form,
    ProgramHeader,
    SectionHeader,
    StringTable,
)
from kplug.image.opening.vmlinuz import kernel_in
from kplug.image.symbols.nm_letters import section_letter
from kplug.image.symbols.symbol import (
    SHN_ABS,
    STB_GLOBAL,
    STB_GNU_UNIQUE,
    STB_LOCAL,
    STB_WEAK,
    STT_FUNC,
    STT_NOTYPE,
    STT_OBJECT,
)
from kplug.image.symbols.symbol_list import SymbolList
from kplug.image.symbols.table_of_list import ListedSymbolTable
from kplug.linker.boundary_table import table_symbols
from kplug.named_tuples import NamedTuple

Bytes = Union[bytes, memoryview]

_BINDINGS = {**dict.fromkeys("wWvV", STB_WEAK), "u": STB_GNU_UNIQUE}
_PAGE = 1 << 16  # the largest that arm64 has
# From here on section numbers have special meanings (gABI, SHN_LORESERVE).
_MOST_SECTIONS = 0xFF00
# A flat Image's sections, named as in the linker scripts (arch/arm64, arch/riscv: kernel/vmlinux.lds.S,
# include/asm-generic/vmlinux.lds.h), and the symbols that bound them.
_BOUNDED_SECTIONS = (
    (".head.text", "_text", "_stext"),
    (".text", "_stext", "_etext"),
    (".notes", "__start_notes", "__stop_notes"),
    (".BTF", "__start_BTF", "__stop_BTF"),
    (".init.text", "_sinittext", "_einittext"),
    (".data..percpu", "__per_cpu_start", "__per_cpu_end"),
    (".data", "_sdata", "_edata"),
    (".bss", "__bss_start", "__bss_stop"),
)
# The ranges between are named by their content according to nm's letters.
_KINDS = {
    "t": (".kernel.text", SHF_ALLOC | SHF_EXECINSTR),
    "r": (".kernel.rodata", SHF_ALLOC),
    "d": (".kernel.data", SHF_ALLOC | SHF_WRITE),
}


class _Skeleton(NamedTuple):
    """An ELF file split into header, the rest, and section headers, which are also there as sections."""

    header: bytes
    rest: Sequence[Bytes]
    form: Form
    headers: list[SectionHeader]
    names: bytes
    names_index: int
    sections: tuple[Section, ...]
    elf: ElfFile


def elf_with_symbols(boot: BootImage) -> list[Bytes]:
    """The bytes of the ELF file, in parts. InputError if the kernel has no kallsyms, or no addresses for them."""
    image = kernel_in(boot)
    if image.listed is None:  # it has a symbol table of its own
        return [boot.payload]
    if not len(image.listed):
        reason = image.listed.source.removeprefix(f"{boot.path}: ")
        raise InputError(f"{boot.path}: no symbol table can be made: {reason}")
    if isinstance(image.elf, FlatImage):
        return _appended(_flat_skeleton(boot, image.elf, image.listed), image.listed)
    return _appended(_elf_skeleton(boot, image.elf), image.listed)


def _elf_skeleton(boot: BootImage, elf: ElfFile) -> _Skeleton:
    data = boot.payload
    if not elf.sections:
        return _segment_skeleton(boot, elf)
    form = Form(elf.bits, elf.little_endian)
    start, size = elf.header.shoff, elf.header.shentsize
    count, names_index = len(elf.sections), elf.header.shstrndx
    if count + 2 >= _MOST_SECTIONS or size != form.section.size or not 0 < names_index < count:
        raise InputError(f"{boot.path}: the section headers of the kernel in it are not those of a kernel")
    table = form.section.iter_unpack(data[start : start + count * size])
    headers = [SectionHeader(*fields) for fields in table]
    names = elf.section_bytes(elf.sections[names_index])
    end = form.header_size
    return _Skeleton(data[:end], [memoryview(data)[end:]], form, headers, names, names_index, elf.sections, elf)


def _segment_skeleton(boot: BootImage, elf: ElfFile) -> _Skeleton:
    """A file without section headers gets one for each segment in memory, and one for what only memory has of it."""
    form, names = Form(elf.bits, elf.little_endian), StringTable()
    headers = [SectionHeader(0, 0, alignment=0)]
    sections = [_section(0, _Range("", 0, 0, 0), headers[0])]
    for segment in elf.segments:
        flags = SHF_ALLOC | SHF_EXECINSTR * bool(segment.flags & PF_X) | SHF_WRITE * bool(segment.flags & PF_W)
        middle, end = segment.address + segment.file_size, segment.address + segment.memory_size
        for kind, start, stop in ((SHT_PROGBITS, segment.address, middle), (SHT_NOBITS, middle, end)):
            if segment.type == "LOAD" and start < stop:
                name = f"load{segment.index}{'.bss' if kind == SHT_NOBITS else ''}"
                header = SectionHeader(
                    names.add(name.encode()), kind, flags, start, segment.offset, stop - start, alignment=1
                )
                sections.append(_section(len(headers), _Range(name, start, stop, flags), header))
                headers.append(header)
    headers.append(SectionHeader(names.add(b".shstrtab"), SHT_STRTAB))
    start = form.header_size
    rest: list[Bytes] = [memoryview(boot.payload)[start:]]
    return _Skeleton(
        boot.payload[:start], rest, form, headers, bytes(names.data), len(headers) - 1, tuple(sections), elf
    )


def _appended(skeleton: _Skeleton, symbols: SymbolList) -> list[Bytes]:
    """The skeleton with .symtab and .strtab, and a section header table that includes them."""
    form, headers = skeleton.form, list(skeleton.headers)
    try:
        table, first_global = _symbol_table(skeleton, symbols)
    except struct.error:
        raise InputError(f"{skeleton.elf.path}: its symbols have addresses that are too large for its header") from None
    names = bytes(skeleton.names) + b"\0.symtab\0.strtab\0"
    symbols_name = len(skeleton.names) + 1
    strings_name = symbols_name + len(".symtab") + 1
    position = len(skeleton.header) + sum(map(len, skeleton.rest))
    parts: list[Bytes] = list(skeleton.rest)

    def place(content: Bytes) -> int:
        nonlocal position
        padding = bytes(-position % 8)
        parts.extend((padding, content))
        offset = position + len(padding)
        position = offset + len(content)
        return offset

    offset = place(table)
    link = len(headers) + 1
    headers.append(
        SectionHeader(symbols_name, SHT_SYMTAB, 0, 0, offset, len(table), link, first_global, 8, form.symbol.size)
    )
    strings = b"\0" + symbols.strings
    headers.append(SectionHeader(strings_name, SHT_STRTAB, offset=place(strings), size=len(strings)))
    own = headers[skeleton.names_index]
    headers[skeleton.names_index] = own._replace(offset=place(names), size=len(names))
    offset = place(b"".join(form.section.pack(*header) for header in headers))
    return [form.with_section_table(skeleton.header, offset, len(headers), skeleton.names_index), *parts]


def _symbol_table(skeleton: _Skeleton, symbols: SymbolList) -> tuple[bytes, int]:
    """The bytes of the symbol table, local symbols first, and the number of the first one that is not local."""
    form, letters = skeleton.form, symbols.letters
    table = ListedSymbolTable(skeleton.elf, skeleton.sections, symbols)
    # The linker script's own symbols have no type and no size.
    from_script = {number for name, number in table.typeless_entries if name in table_symbols(skeleton.elf.machine)}
    neighbours = _Neighbours(skeleton.sections)
    bounds = {bound for s in skeleton.sections for bound in (s.address, s.end)}
    percpu_end = next((s.end for s in skeleton.sections if s.name == PERCPU_SECTION), None)
    infos: dict[tuple[int, int], int] = {}
    local: list[bytes] = []
    other: list[bytes] = []
    for number, value in enumerate(symbols.addresses):
        letter, section, size = letters[number], table.section_index(number), table.sizes[number]
        if (section == SHN_ABS or value in bounds) and (letter not in b"Aa" or value == percpu_end):
            chosen = neighbours.chosen(value, "d" if letter in b"Aa" else chr(letter))
            if chosen is not None and chosen != section:
                section, size = chosen, 0
        info = infos.get((letter, section))
        if info is None:
            info = infos[letter, section] = _info(chr(letter), section, skeleton.sections)
        if number in from_script:
            info, size = info & ~0xF | STT_NOTYPE, 0
        name = symbols.name_offsets[number] + 1
        packed = form.symbol.pack(*form.symbol_fields(name, info, section, value, size))
        (other if info >> 4 else local).append(packed)
    return b"".join((bytes(form.symbol.size), *local, *other)), len(local) + 1


def _info(letter: str, section: int, sections: Sequence[Section]) -> int:
    """st_info: binding by the letter, type by the section."""
    binding = _BINDINGS.get(letter, STB_GLOBAL if letter.isupper() else STB_LOCAL)
    kind = STT_NOTYPE
    if section < len(sections):
        executable, writable = sections[section].executable, sections[section].writable
        kind = STT_NOTYPE if executable and writable else STT_FUNC if executable else STT_OBJECT
    return binding << 4 | kind


class _Neighbours:
    """The section of a symbol between two sections: the linker assigns a boundary symbol to the section that ends
    there or to the next one; nm's letter shows to which."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self._placed = sorted((s for s in sections if s.occupies_addresses), key=lambda s: s.address)
        self._starts = [section.address for section in self._placed]

    def chosen(self, address: int, letter: str) -> int | None:
        """The section of a symbol whose address is in no section, or at the start of one; None if it is inside one,
        or if there are no sections."""
        position = bisect_right(self._starts, address) - 1
        if position >= 0 and self._starts[position] < address < self._placed[position].end:
            return None
        near = [self._placed[at] for at in (position, position - 1, position + 1) if 0 <= at < len(self._placed)]
        if position < 0 or not near:
            return None
        return next((s.index for s in near if section_letter(s) == letter.lower()), near[0].index)


# -- a flat Image ------------------------------------------------------------------------------------------------------


class _Range(NamedTuple):
    """A section to write: addresses, `end` exclusive."""

    name: str
    start: int
    end: int
    flags: int


def _flat_skeleton(boot: BootImage, image: FlatImage, symbols: SymbolList) -> _Skeleton:
    base = image.base
    if not base:
        raise InputError(f"{boot.path}: the Image does not say where it is linked; its symbols have no addresses")
    held = held_bytes(len(boot.payload), symbols.address, base)
    limit = base + max(image.memory_size, held)
    ranges = list(_ranges(symbols, base, limit, base + held))
    form = Form(image.bits, image.little_endian)
    names = StringTable()
    headers = [SectionHeader(0, 0, alignment=0)]
    sections = [_section(0, _Range("", 0, 0, 0), headers[0])]
    for each in ranges:
        kind = SHT_NOBITS if each.start >= base + held else SHT_NOTE if each.name == ".notes" else SHT_PROGBITS
        header = SectionHeader(
            names.add(each.name.encode()),
            kind,
            each.flags,
            each.start,
            _PAGE + each.start - base,
            each.end - each.start,
            alignment=4 if kind == SHT_NOTE else 1,
        )
        sections.append(_section(len(headers), each, header))
        headers.append(header)
    headers.append(SectionHeader(names.add(b".shstrtab"), SHT_STRTAB))
    notes = [header for header in headers if header.type == SHT_NOTE]
    start = form.with_segments(
        bare_header(image.machine, image.bits, little_endian=image.little_endian),
        base,
        [
            ProgramHeader(PT_LOAD, PF_X | PF_W | PF_R, _PAGE, base, base, held, limit - base, _PAGE),
            *(ProgramHeader(PT_NOTE, PF_R, n.offset, n.address, n.address, n.size, n.size, 4) for n in notes),
        ],
    )
    rest: list[Bytes] = [bytes(_PAGE - len(start)), memoryview(boot.payload)[:held]]
    index = len(headers) - 1
    return _Skeleton(start, rest, form, headers, bytes(names.data), index, tuple(sections), image)


def held_bytes(size: int, address_of: Callable[[str], int | None], base: int) -> int:
    """The bytes of a file of that size that are the kernel's: what follows them is the signature for Secure Boot.

    They end with the data, or with the init memory where the linker script has that after the data.
    """
    data_end, init = address_of("_edata"), address_of("_sinittext")
    end = address_of("__init_end") if init is not None and data_end is not None and init >= data_end else data_end
    return end - base if end is not None and 0 < end - base <= size else size


def _section(index: int, each: _Range, header: SectionHeader) -> Section:
    """The section as its header will describe it, for placing the symbols."""
    kind = "NOBITS" if header.type == SHT_NOBITS else "PROGBITS" if index else "NULL"
    return Section(index, each.name, kind, each.start, header.offset, header.size, 0, each.flags, "", 0, 0, 1)


def _ranges(symbols: SymbolList, base: int, limit: int, held_end: int) -> Iterator[_Range]:
    """The sections: those with boundary symbols, and the ranges between, cut at the end of the file's bytes."""
    position = base
    for bounded in sorted(_bounded(symbols, base, limit), key=lambda each: each.start):
        if bounded.start < position:
            continue
        for each in (*_between(symbols, position, bounded.start), bounded):
            yield from _cut(each, held_end)
        position = bounded.end
    for each in _between(symbols, position, limit):
        yield from _cut(each, held_end)


def _cut(each: _Range, at: int) -> Iterator[_Range]:
    if each.start < at < each.end:
        yield each._replace(end=at)
        yield each._replace(start=at)
    elif each.start < each.end:
        yield each


def _bounded(symbols: SymbolList, base: int, limit: int) -> Iterator[_Range]:
    for name, start_name, end_name in _BOUNDED_SECTIONS:
        start, end = symbols.address(start_name), symbols.address(end_name)
        if start is not None and end is not None and base <= start < end <= limit:
            letter = chr(symbols.letters[symbols.numbers[start_name.encode()]])
            yield _Range(name, start, end, _KINDS[_kind(letter, "r")][1])


def _between(symbols: SymbolList, start: int, end: int) -> Iterator[_Range]:
    """Runs of symbols of one kind in the range, as sections; without symbols it is one of read-only data."""
    if start >= end:
        return
    kinds: list[tuple[int, str]] = []
    kind = "r"
    for number in range(bisect_left(symbols.addresses, start), bisect_left(symbols.addresses, end)):
        kind = _kind(chr(symbols.letters[number]), kind)
        address = symbols.addresses[number] if kinds else start
        if kinds and kinds[-1][0] == address:
            kinds[-1] = (address, kind)  # at one address, the section that begins there counts, not the one that ends
        else:
            kinds.append((address, kind))
    runs = [next(run) for _, run in groupby(kinds or [(start, kind)], key=lambda each: each[1])]
    for (first, kind), (following, _) in zip(runs, [*runs[1:], (end, "")]):
        name, flags = _KINDS[kind]
        yield _Range(name, first, following, flags)


def _kind(letter: str, before: str) -> str:
    """The row of _KINDS for nm's letter; a letter that says nothing about the place keeps the previous kind."""
    letter = letter.lower()
    return "d" if letter == "b" else letter if letter in _KINDS else before
