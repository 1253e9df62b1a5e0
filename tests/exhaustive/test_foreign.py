"""Other ELF files than kernels: every class and byte order, made here, and read as readelf and nm read them."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from support.oracle import binutils
from support.oracle.elf_writer import Kind, RawSection, RawSegment, RawSymbol, write_elf
from support.oracle_tables import SEGMENT_TYPE_WIDTH, assert_as_readelf, assert_symbols_as_nm

from kplug.image.elf.file import ElfFile
from kplug.image.kernel_image import KernelImage

# e_machine, word size, byte order of the machines that Linux runs on (binutils' include/elf/common.h).
MACHINES = {
    "i386": Kind(32, True, 3),
    "x86_64": Kind(64, True, 62),
    "arm": Kind(32, True, 40),
    "armeb": Kind(32, False, 40),
    "aarch64": Kind(64, True, 183),
    "mips": Kind(32, False, 8),
    "mipsel": Kind(32, True, 8),
    "mips64": Kind(64, False, 8),
    "ppc": Kind(32, False, 20),
    "ppc64": Kind(64, False, 21),
    "ppc64le": Kind(64, True, 21),
    "riscv32": Kind(32, True, 243),
    "riscv64": Kind(64, True, 243),
    "s390": Kind(32, False, 22),
    "s390x": Kind(64, False, 22),
    "sparc64": Kind(64, False, 43),
    "loongarch64": Kind(64, True, 258),
    "parisc": Kind(32, False, 15),
    "alpha": Kind(64, True, 0x9026),
    "m68k": Kind(32, False, 4),
    "xtensa": Kind(32, True, 94),
}

SHF_ALLOC = 2


def _plain(kind: Kind, index: int, size: int = 0x100) -> dict[str, int]:
    """A place for a section of its own: address, offset and size."""
    base = 0xFFFFFFFF81000000 if kind.bits == 64 else 0xC0008000
    return {"address": base + index * 0x1000, "offset": 0x10000 + index * 0x1000, "size": size}


def _layout(kind: Kind) -> tuple[list[RawSection], list[RawSegment]]:
    """A small kernel: text, rodata, TLS, notes, data and bss, in segments that overlap, and some of no memory."""
    rows = [
        (".text", 1, 6),
        (".rodata", 1, 3),
        (".notes", 7, 2),
        (".empty", 1, 3),
        (".tdata", 1, 0x403),
        (".tbss", 8, 0x403),
        (".init_array", 14, 3),
        (".data", 1, 3),
        ("__bug_table", 1, 2),
        (".bss", 8, 3),
        (".comment", 1, 0x30),
        (".debug_info", 1, 0),
    ]
    sections, offset, address = [], 0x1000, _plain(kind, 0)["address"]
    for number, (name, kind_of, flags) in enumerate(rows):
        size = 0 if name == ".empty" else 0x40 * (number + 1)
        allocated = flags & SHF_ALLOC
        sections.append(RawSection(name, kind_of, flags, address if allocated else 0, offset, size, alignment=16))
        if kind_of != 8:
            offset += size
        if allocated and name != ".tbss":
            address += size
    first = {section.name: section for section in sections}
    text, data, bss, notes = (first[name] for name in (".text", ".tdata", ".bss", ".notes"))
    tls_size = first[".tdata"].size
    segments = [
        RawSegment(
            1, 5, text.offset, text.address, text.address, data.offset - text.offset, data.address - text.address, 16
        ),
        RawSegment(
            1,
            6,
            data.offset,
            data.address,
            data.address & 0xFFFFFFF,
            bss.offset - data.offset,
            bss.address + bss.size - data.address,
            16,
        ),
        RawSegment(4, 4, notes.offset, notes.address, notes.address, notes.size, notes.size, 4),
        RawSegment(7, 4, data.offset, data.address, data.address, tls_size, tls_size + first[".tbss"].size, 16),
        RawSegment(0x6474E551, 6, 0, 0, 0, 0, 0, 16),  # GNU_STACK
        RawSegment(0x6474E552, 4, data.offset, data.address, data.address, tls_size, tls_size, 1),  # GNU_RELRO
        RawSegment(
            0x6474E553, 4, notes.offset, notes.address, notes.address, notes.size, notes.size, 8
        ),  # GNU_PROPERTY
        RawSegment(0, 0, 0, 0, 0, 0, 0, 0),
    ]
    return sections, segments


def _symbols() -> list[RawSymbol]:
    """Each kind of symbol, binding and section: the letters nm has words for."""
    found = []
    for binding, kind, section in itertools.product((0, 1, 2), (0, 1, 2), (*range(1, 13), 0xFFF1)):
        found.append(RawSymbol(f"s{binding}_{kind}_{section}", 0x40 * section, 8 * kind, binding << 4 | kind, section))
    for binding, kind in itertools.product((1, 2), (0, 1, 2)):
        found.append(RawSymbol(f"undefined{binding}_{kind}", 0, 0, binding << 4 | kind, 0))
    found.append(RawSymbol("common", 16, 32, 0x11, 0xFFF2))
    found.append(RawSymbol("unique", 0x80, 4, 0xA1, 8))
    found.append(RawSymbol("ifunc", 0x90, 4, 0x1A, 1))
    found.append(RawSymbol("tls", 0, 4, 0x16, 5))
    found.append(RawSymbol("file.c", 0, 0, 0x04, 0xFFF1))
    found.append(RawSymbol("", 0, 0, 0x03, 8))
    return sorted(found, key=lambda symbol: symbol.info >> 4 != 0)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_made_kernel_as_readelf(machine: str, tmp_path: Path) -> None:
    kind = MACHINES[machine]
    path = write_elf(tmp_path / "vmlinux", kind, *_layout(kind))
    assert_as_readelf(path)
    elf = ElfFile(path)
    assert (elf.bits, elf.little_endian) == (kind.bits, kind.little_endian)


@pytest.mark.parametrize("machine", MACHINES)
def test_symbols_of_a_made_kernel_as_nm(machine: str, tmp_path: Path) -> None:
    kind = replace(MACHINES[machine], os_abi=3)  # GNU: unique symbols and ifuncs are its words
    path = write_elf(tmp_path / "vmlinux", kind, *_layout(kind), symbols=_symbols())
    rows = binutils.symbols(path)
    assert len(rows) == len(_symbols()) + 1
    assert_symbols_as_nm(KernelImage(ElfFile(path)), rows)


# Section types that Linux files have, and some that no table knows. Types whose contents readelf would go on to read
# (symbol tables, relocations, groups) are met in real files.
TYPES = [0, 1, 3, 5, 6, 7, 8, 14, 15, 16, 0x60000000, 0x60000001, 0x6FFFFFF5, 0x6FFFFFF6]
TYPES += [0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF, 0x70000000, 0x7000001F, 0x80000001]
OWN_TYPES = {
    "x86_64": [0x70000001],
    "arm": [0x70000001, 0x70000002, 0x70000003],
    "aarch64": [0x70000003],
    "mips": [0x70000006, 0x7000000D, 0x7000002A],
    "riscv64": [0x70000003],
}

SEGMENT_TYPES = [0, 1, 4, 5, 7, 0x60000000, 0x6474E550, 0x6474E551, 0x6474E552, 0x6474E553, 0x6474E554, 0x70000004]
OWN_SEGMENT_TYPES = {
    "arm": [0x70000001],
    "aarch64": [0x70000002],
    "mips": [0x70000000, 0x70000003],
    "riscv64": [0x70000003],
    "s390x": [0x70000000],
}


@pytest.mark.parametrize("machine", MACHINES)
def test_section_types_as_readelf(machine: str, tmp_path: Path) -> None:
    kind = MACHINES[machine]
    numbers = TYPES + OWN_TYPES.get(machine, [])
    if machine == "parisc":
        numbers.remove(0x70000000)  # PARISC_EXT, which no Linux file has
    sections = [RawSection(f"t{number:x}", number, 2, **_plain(kind, i, 0)) for i, number in enumerate(numbers)]
    path = write_elf(tmp_path / "types", kind, sections)
    got = [(section.name, section.type) for section in ElfFile(path).sections]
    assert got == [(row.name, row.type) for row in binutils.sections(path)]


@pytest.mark.parametrize("os_abi", [0, 3], ids=["SYSV", "GNU"])
@pytest.mark.parametrize("machine", MACHINES)
def test_section_flags_as_readelf(machine: str, os_abi: int, tmp_path: Path) -> None:
    kind = replace(MACHINES[machine], os_abi=os_abi)
    # Each flag of the gABI alone, as kernels combine them, and bits of the OS's and the processor's ranges. Not those
    # that promise contents (GROUP, COMPRESSED), nor the letters that one processor has for itself.
    flags = [
        0,
        1,
        2,
        4,
        8,
        0x10,
        0x20,
        0x40,
        0x80,
        0x100,
        0x400,
        0x1000,
        0x00100000,
        0x00200000,
        0x40000000,
        0x80000000,
    ]
    flags += [3, 6, 7, 0x12, 0x30, 0x32, 0x42, 0x82, 0x403, 0x00200003, 0x40000002, 0x80000002, 0x50, 0x3000]
    flags += [0x10000002] if machine == "x86_64" else []
    sections = [RawSection(f"f{flag:x}", 1, flag, **_plain(kind, i)) for i, flag in enumerate(flags)]
    path = write_elf(tmp_path / "flags", kind, sections)
    got = [(section.name, section.flag_letters) for section in ElfFile(path).sections]
    assert got == [(row.name, row.flags) for row in binutils.sections(path)]


@pytest.mark.parametrize("machine", MACHINES)
def test_segment_types_as_readelf(machine: str, tmp_path: Path) -> None:
    kind = MACHINES[machine]
    numbers = SEGMENT_TYPES + OWN_SEGMENT_TYPES.get(machine, [])
    segments = [RawSegment(number, index % 8, 0, 0, 0, 0, 0, 1) for index, number in enumerate(numbers)]
    path = write_elf(tmp_path / "segments", kind, [RawSection(".text", 1, 6, **_plain(kind, 0))], segments)
    got = [(segment.type[:SEGMENT_TYPE_WIDTH], segment.flag_letters) for segment in ElfFile(path).segments]
    assert got == [(row.type, row.flags) for row in binutils.segments(path)]


# What a compiler really makes. clang targets every machine; where it is not installed the host's compiler has to do.
CLANG_TARGETS = [
    "i386",
    "x86_64",
    "armv7",
    "armv7eb",
    "aarch64",
    "mips",
    "mips64el",
    "powerpc",
    "powerpc64",
    "powerpc64le",
]
CLANG_TARGETS += ["riscv32", "riscv64", "s390x", "sparc64"]

SOURCE = """
__attribute__((section(".init.text"))) int early(int x) { return x + 1; }
static int counter; int shared = 5; const int fixed = 7; const char *text = "text";
static int unused(void); __attribute__((weak)) int maybe(void); __thread int tls_data = 3; __thread int tls_bss;
__attribute__((weak)) int weak_data = 4; __attribute__((aligned(64))) char buffer[300];
int main(void) { counter += shared; return early(counter) + fixed + (maybe ? maybe() : 0) + tls_data + buffer[3]; }
"""


def _find(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    pytest.skip(f"{names[0]} is not installed")


@pytest.mark.parametrize("target", CLANG_TARGETS)
def test_an_object_file_of_another_machine_as_readelf(target: str, tmp_path: Path) -> None:
    compiler = _find("clang", "clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19")
    source = tmp_path / "object.c"
    source.write_text(SOURCE)
    path = str(tmp_path / "object.o")
    options = ["-c", "-fintegrated-as", "-O1", "-g", "-ffunction-sections", "-fdata-sections", "-o", path, str(source)]
    subprocess.run([compiler, f"--target={target}-linux-gnu", *options], check=True, capture_output=True)
    assert_as_readelf(path)
    assert_symbols_as_nm(KernelImage(ElfFile(path)), binutils.symbols(path))


@pytest.mark.parametrize("target", ["i386", "x86_64", "armv7", "aarch64", "mips", "powerpc", "powerpc64le", "riscv64"])
def test_a_program_of_another_machine_as_readelf(target: str, tmp_path: Path) -> None:
    compiler = _find("clang", "clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19")
    linker = _find("ld.lld", "ld.lld-14", "ld.lld-15", "ld.lld-16", "ld.lld-17", "ld.lld-18", "ld.lld-19")
    source, linked = tmp_path / "program.c", str(tmp_path / "program")
    source.write_text(SOURCE.replace("maybe ? maybe() : 0", "0"))
    common = [f"--target={target}-linux-gnu", "-nostdlib", "-ffreestanding", "-fPIC", "-O1", "-g", "-c"]
    subprocess.run([compiler, *common, "-o", linked + ".o", str(source)], check=True, capture_output=True)
    subprocess.run([linker, "-shared", "--build-id", "-o", linked, linked + ".o"], check=True, capture_output=True)
    assert_as_readelf(linked)
    assert_symbols_as_nm(KernelImage(ElfFile(linked)), binutils.symbols(linked))
