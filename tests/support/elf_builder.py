"""Small ELF files, made to order: any class, any byte order, any lie.

Written from the ELF gABI (chapters "ELF Header", "Sections", "Symbol Table", "Program Header"), not from kplug. What is
not said is filled in as a linker would; `header`, `fields` and `symbols` say otherwise where a test needs a lie.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# (name, size in bytes for class 32, for class 64), in file order.
HEADER_FIELDS = (
    ("e_type", 2, 2),
    ("e_machine", 2, 2),
    ("e_version", 4, 4),
    ("e_entry", 4, 8),
    ("e_phoff", 4, 8),
    ("e_shoff", 4, 8),
    ("e_flags", 4, 4),
    ("e_ehsize", 2, 2),
    ("e_phentsize", 2, 2),
    ("e_phnum", 2, 2),
    ("e_shentsize", 2, 2),
    ("e_shnum", 2, 2),
    ("e_shstrndx", 2, 2),
)
SECTION_FIELDS = (
    ("sh_name", 4, 4),
    ("sh_type", 4, 4),
    ("sh_flags", 4, 8),
    ("sh_addr", 4, 8),
    ("sh_offset", 4, 8),
    ("sh_size", 4, 8),
    ("sh_link", 4, 4),
    ("sh_info", 4, 4),
    ("sh_addralign", 4, 8),
    ("sh_entsize", 4, 8),
)
SEGMENT_FIELDS_32 = (
    ("p_type", 4),
    ("p_offset", 4),
    ("p_vaddr", 4),
    ("p_paddr", 4),
    ("p_filesz", 4),
    ("p_memsz", 4),
    ("p_flags", 4),
    ("p_align", 4),
)
SEGMENT_FIELDS_64 = (
    ("p_type", 4),
    ("p_flags", 4),
    ("p_offset", 8),
    ("p_vaddr", 8),
    ("p_paddr", 8),
    ("p_filesz", 8),
    ("p_memsz", 8),
    ("p_align", 8),
)
SYMBOL_FIELDS_32 = (("st_name", 4), ("st_value", 4), ("st_size", 4), ("st_info", 1), ("st_other", 1), ("st_shndx", 2))
SYMBOL_FIELDS_64 = (("st_name", 4), ("st_info", 1), ("st_other", 1), ("st_shndx", 2), ("st_value", 8), ("st_size", 8))

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
EM_386, EM_PPC64, EM_S390, EM_ARM, EM_X86_64, EM_AARCH64, EM_RISCV = 3, 21, 22, 40, 62, 183, 243
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM, SHT_SYMTAB_SHNDX = (
    1,
    2,
    3,
    4,
    7,
    8,
    11,
    18,
)
W, A, X, TLS, COMPRESSED = 1, 2, 4, 0x400, 0x800
PT_NULL, PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_PHDR, PT_TLS = 0, 1, 2, 4, 6, 7
PT_GNU_STACK = 0x6474E551
R_, W_, E_ = 4, 2, 1
LOCAL, GLOBAL, WEAK, UNIQUE = 0, 1, 2, 10
NOTYPE, OBJECT, FUNC, SECTION, FILE, COMMON, TLS_SYMBOL, IFUNC = 0, 1, 2, 3, 4, 5, 6, 10
SHN_UNDEF, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFFF1, 0xFFF2, 0xFFFF


@dataclass
class Sec:
    """A section. `size` is for NOBITS; `fields` overrides what the header says (sh_offset, sh_link, ...)."""

    name: str
    type: int = SHT_PROGBITS
    flags: int = 0
    address: int = 0
    data: bytes = b""
    size: int | None = None
    link: int = 0
    info: int = 0
    align: int = 1
    entry_size: int = 0
    fields: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Seg:
    """A program header. It covers the sections named, or says exactly what `fields` says."""

    type: int = PT_LOAD
    flags: int = R_
    covers: Sequence[str] = ()
    fields: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Sym:
    """A symbol. `section` is a section's name, or a number as it is to stand in the table."""

    name: str
    value: int = 0
    size: int = 0
    section: str | int = ".text"
    type: int = NOTYPE
    binding: int = GLOBAL
    fields: Mapping[str, int] = field(default_factory=dict)


def build_id_note(build_id: bytes, little: bool = True) -> bytes:
    """An NT_GNU_BUILD_ID note."""
    return struct.pack("<III" if little else ">III", 4, len(build_id), 3) + b"GNU\0" + build_id


@dataclass
class Elf:
    """An ELF file to be. `bytes()` of it is the file; the layout is header, segments, contents, section headers."""

    bits: int = 64
    little: bool = True
    type: int = ET_EXEC
    machine: int = EM_X86_64
    sections: list[Sec] = field(default_factory=list)
    segments: list[Seg] = field(default_factory=list)
    symbols: list[Sym] | None = None
    header: Mapping[str, int] = field(default_factory=dict)
    strings: bytes | None = None  # instead of the symbols' own string table
    symtab_fields: Mapping[str, int] = field(default_factory=dict)
    strtab_fields: Mapping[str, int] = field(default_factory=dict)
    headers_first: bool = False  # section headers before the contents, so that truncation cuts contents

    def pack(self, layout: Sequence[tuple[str, int]], values: Mapping[str, int]) -> bytes:
        order = "little" if self.little else "big"
        return b"".join(
            (values.get(name, 0) & (1 << 8 * size) - 1).to_bytes(size, order)  # type: ignore[arg-type]
            for name, size in layout
        )

    def sized(self, layout: Sequence[tuple[str, int, int]]) -> list[tuple[str, int]]:
        return [(name, large if self.bits == 64 else small) for name, small, large in layout]

    def section_number(self, name: str) -> int:
        return 1 + [section.name for section in self.sections].index(name)

    def _symbol_sections(self) -> list[Sec]:
        if self.symbols is None:
            return []
        names = bytearray(b"\0")
        entries = []
        wide = self.bits == 64
        layout = SYMBOL_FIELDS_64 if wide else SYMBOL_FIELDS_32
        for symbol in [Sym("", section=0, binding=LOCAL), *self.symbols]:
            offset = len(names) if symbol.name else 0
            if symbol.name:
                names += symbol.name.encode("utf-8", "surrogateescape") + b"\0"
            number = symbol.section if isinstance(symbol.section, int) else self.section_number(symbol.section)
            values = {
                "st_name": offset,
                "st_info": symbol.binding << 4 | symbol.type,
                "st_shndx": number,
                "st_value": symbol.value,
                "st_size": symbol.size,
                **symbol.fields,
            }
            entries.append(self.pack(layout, values))
        strings = bytes(names) if self.strings is None else self.strings
        number = len(self.sections) + 1
        first_global = next((i for i, s in enumerate(self.symbols, 1) if s.binding != LOCAL), len(entries))
        return [
            Sec(
                ".symtab",
                SHT_SYMTAB,
                data=b"".join(entries),
                link=number + 1,
                info=first_global,
                align=8,
                entry_size=24 if wide else 16,
                fields=self.symtab_fields,
            ),
            Sec(".strtab", SHT_STRTAB, data=strings, fields=self.strtab_fields),
        ]

    def __bytes__(self) -> bytes:
        sections = [*self.sections, *self._symbol_sections()]
        names = bytearray(b"\0")
        name_offsets = []
        for section in [*sections, Sec(".shstrtab")]:
            name_offsets.append(len(names))
            names += section.name.encode("utf-8", "surrogateescape") + b"\0"
        sections.append(Sec(".shstrtab", SHT_STRTAB, data=bytes(names)))

        header_layout, section_layout = self.sized(HEADER_FIELDS), self.sized(SECTION_FIELDS)
        segment_layout = SEGMENT_FIELDS_64 if self.bits == 64 else SEGMENT_FIELDS_32
        header_size = 16 + sum(size for _, size in header_layout)
        section_size = sum(size for _, size in section_layout)
        segment_size = sum(size for _, size in segment_layout)
        position = header_size + segment_size * len(self.segments)
        headers_at = position
        if self.headers_first:
            position += section_size * (len(sections) + 1)

        contents = bytearray()
        start = position
        headers = [self.pack(section_layout, {})]
        placed: dict[str, dict[str, int]] = {}
        for section, name_offset in zip(sections, name_offsets):
            align = max(section.align, 1) if section.align <= 4096 else 1
            contents += bytes(-(start + len(contents)) % align)
            values = {
                "sh_name": name_offset,
                "sh_type": section.type,
                "sh_flags": section.flags,
                "sh_addr": section.address,
                "sh_offset": start + len(contents),
                "sh_size": len(section.data) if section.size is None else section.size,
                "sh_link": section.link,
                "sh_info": section.info,
                "sh_addralign": section.align,
                "sh_entsize": section.entry_size,
                **section.fields,
            }
            placed.setdefault(section.name, values)
            headers.append(self.pack(section_layout, values))
            contents += section.data
        if not self.headers_first:
            contents += bytes(-(start + len(contents)) % 8)
            headers_at = start + len(contents)

        segments = []
        for segment in self.segments:
            values = {"p_type": segment.type, "p_flags": segment.flags, "p_align": 1}
            covered = [placed[name] for name in segment.covers]
            if covered:
                low = min(held["sh_addr"] for held in covered)
                in_file = [held for held in covered if held["sh_type"] != SHT_NOBITS]
                offset = min(held["sh_offset"] for held in (in_file or covered))
                values.update(
                    p_offset=offset,
                    p_vaddr=low,
                    p_paddr=low & 0xFFFFFFF,
                    p_filesz=max((held["sh_offset"] + held["sh_size"] for held in in_file), default=offset) - offset,
                    p_memsz=max(held["sh_addr"] + held["sh_size"] for held in covered) - low,
                )
            segments.append(self.pack(segment_layout, {**values, **segment.fields}))

        header = {
            "e_type": self.type,
            "e_machine": self.machine,
            "e_version": 1,
            "e_phoff": header_size if self.segments else 0,
            "e_shoff": headers_at,
            "e_ehsize": header_size,
            "e_phentsize": segment_size,
            "e_phnum": len(self.segments),
            "e_shentsize": section_size,
            "e_shnum": len(headers),
            "e_shstrndx": len(headers) - 1,
            **self.header,
        }
        identification = b"\x7fELF" + bytes((2 if self.bits == 64 else 1, 1 if self.little else 2, 1)) + bytes(9)
        first = identification + self.pack(header_layout, header) + b"".join(segments)
        if self.headers_first:
            return first + b"".join(headers) + bytes(contents)
        return first + bytes(contents) + b"".join(headers)


def header_field(bits: int, name: str) -> tuple[int, int]:
    """(file offset, size) of a field of the ELF header."""
    position = 16
    for field_name, small, large in HEADER_FIELDS:
        size = large if bits == 64 else small
        if field_name == name:
            return position, size
        position += size
    raise KeyError(name)


# -- a small kernel ----------------------------------------------------------------------------------------------------

BUILD_ID = bytes(range(0x40, 0x54))
BANNER = b"Linux version 6.99.0-test (a@b) (gcc) #1\n\0"
BASE_64, BASE_32 = 0xFFFFFFFF81000000, 0xC1000000


def small_vmlinux(bits: int = 64, little: bool = True, machine: int | None = None, **changes: object) -> Elf:
    """A vmlinux in little: text, rodata, notes, data, bss, init and their boundary symbols.

    Addresses from BASE_64 or BASE_32: .text +0x0 (0x200), .rodata +0x1000 (0x80), .notes +0x1080, .data +0x2000 (0x40),
    .bss +0x2040 (0x100, NOBITS), .init.text +0x3000 (0x40). _end is +0x4000.
    """
    base = BASE_64 if bits == 64 else BASE_32
    if machine is None:
        machine = EM_X86_64 if bits == 64 else EM_386
    notes = build_id_note(BUILD_ID, little)
    rodata = BANNER.ljust(0x80, b"\0")
    sections = [
        Sec(".text", flags=A | X, address=base, data=b"\x90" * 0x200, align=16),
        Sec(".rodata", flags=A, address=base + 0x1000, data=rodata, align=16),
        Sec(".notes", SHT_NOTE, flags=A, address=base + 0x1080, data=notes, align=4),
        Sec(".data", flags=A | W, address=base + 0x2000, data=bytes(0x40), align=16),
        Sec(".bss", SHT_NOBITS, flags=A | W, address=base + 0x2040, size=0x100, align=16),
        Sec(".init.text", flags=A | X, address=base + 0x3000, data=b"\xcc" * 0x40, align=16),
    ]
    segments = [
        Seg(flags=R_ | E_, covers=(".text", ".rodata", ".notes")),
        Seg(flags=R_ | W_, covers=(".data", ".bss")),
        Seg(flags=R_ | W_ | E_, covers=(".init.text",)),
        Seg(PT_NOTE, covers=(".notes",)),
    ]
    symbols = [
        Sym("a.c", section=SHN_ABS, type=FILE, binding=LOCAL),
        Sym("twin", base + 0x40, 0x10, ".text", FUNC, LOCAL),
        Sym("b.c", section=SHN_ABS, type=FILE, binding=LOCAL),
        Sym("twin", base + 0x60, 0x18, ".text", FUNC, LOCAL),
        Sym("_text", base, 0, ".text"),
        Sym("_stext", base, 0, ".text"),
        Sym("start_kernel", base + 0x10, 0x20, ".text", FUNC),
        Sym("label", base + 0x100, 0, ".text"),
        Sym("_etext", base + 0x200, 0, ".text"),
        Sym("__start_rodata", base + 0x1000, 0, ".rodata"),
        Sym("linux_banner", base + 0x1000, len(BANNER), ".rodata", OBJECT),
        Sym("__end_rodata", base + 0x2000, 0, SHN_ABS),
        Sym("_sdata", base + 0x2000, 0, ".data"),
        Sym("jiffies", base + 0x2000, 8, ".data", OBJECT),
        Sym("_edata", base + 0x2040, 0, ".data"),
        Sym("__bss_start", base + 0x2040, 0, ".bss"),
        Sym("buffer", base + 0x2040, 0x100, ".bss", OBJECT, LOCAL),
        Sym("__bss_stop", base + 0x2140, 0, ".bss"),
        Sym("__init_begin", base + 0x3000, 0, ".init.text"),
        Sym("_sinittext", base + 0x3000, 0, ".init.text"),
        Sym("setup", base + 0x3000, 0x40, ".init.text", FUNC),
        Sym("_einittext", base + 0x3040, 0, ".init.text"),
        Sym("__init_end", base + 0x4000, 0, SHN_ABS),
        Sym("_end", base + 0x4000, 0, SHN_ABS),
        Sym("undefined", section=SHN_UNDEF),
    ]
    made = {"sections": sections, "segments": segments, "symbols": symbols, **changes}
    return Elf(bits=bits, little=little, machine=machine, **made)  # type: ignore[arg-type]
