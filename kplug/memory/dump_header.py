"""The header of a dump, read before drgn opens the file: its format, machine, size and notes.

Formats: ELF core files (elf(5)); makedumpfile's compressed ones (its IMPLEMENTATION file and diskdump_mod.h), which
crash calls kdump-compressed; and either of them flattened, which is a stream of (offset, size, data) records.
Headers may be wrong: anything invalid is an InputError here, of one line, before a library sees it.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO

from kplug.arch import registry
from kplug.arch.types.word import LITTLE, STRUCT_ORDERS, StructOrder, struct_order
from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.frozen import Frozen, replace
from kplug.memory.foreign_dumps import XEN, foreign, xen_dump_core
from kplug.memory.kdump_pages import PAGE_DESCRIPTOR, bytes_at, cut_pages, data_end, page_frame

ELF, KDUMP, FLATTENED = "ELF", "kdump", "flattened"

_ET_CORE, _PT_LOAD, _PT_NOTE, _PN_XNUM = 4, 1, 4, 0xFFFF
_ELF_TYPES = {1: "an object file or module", 2: "an executable or vmlinux", 3: "a shared object"}
# QEMU writes this for all machines except x86 (seen with 7.2). A dump of arm64 then has blocks of 64 KiB regardless of
# the kernel's page size, and libkdumpfile looks for pages in the wrong places.
NO_MACHINE = "Unknown"
# A dump of a machine with terabytes has some thousands of segments; its notes some for each CPU.
_MAX_SEGMENTS = 1 << 20
_MAX_NOTES_BYTES = 1 << 26
_VMCOREINFO = b"VMCOREINFO\0"

KDUMP_SIGNATURE, _DISKDUMP_SIGNATURE, _FLAT_SIGNATURE = b"KDUMP   ", b"DISKDUMP", b"makedumpfile\0"
_FLAT_HEADER_BYTES = 4096  # MAX_SIZE_MDF_HEADER
_FLAT_RECORDS = 4096  # the header and sub header are among the first
# struct disk_dump_header: utsname at 12; what follows its struct timeval, whose size is the machine's own.
_UTS_RELEASE, _UTS_MACHINE, _UTS_FIELD = 12 + 2 * 65, 12 + 4 * 65, 65
_AFTER_TIME = {8: 424, 4: 412}
# status, block_size, sub_hdr_size, bitmap_blocks, max_mapnr
_AFTER_TIME_FORMAT = "IiiII"
_INCOMPLETE = 0x8  # DUMP_DH_COMPRESSED_INCOMPLETE: the disk was full
_HEAD_BYTES = 1 << 17  # header and sub header, with blocks of up to 64 KiB
# struct kdump_sub_header of 64-bit machines: dump_level at 8, (offset, size) of VMCOREINFO at 32.
_LEVEL, _VMCOREINFO_PLACE, _SUB_HEADER_BYTES = 8, 32, 104
_LEAST_RAW = 1 << 24
_MOST_CUT_PAGES = 1 << 12
# (first version of the header that has it, its name, where its offset and size are in the sub header)
_SUB_HEADER_PLACES = ((3, "VMCOREINFO", 32), (4, "notes", 48), (5, "ERASEINFO", 64))


class CoreSegment(Frozen):
    """A PT_LOAD: `file_size` bytes at `offset` in the file, of `size` at the physical and virtual addresses."""

    offset: int
    file_size: int
    virtual: int
    physical: int
    size: int


class DumpHeader(Frozen):
    """The facts in a dump's header, before any of its memory is read. A fact that is not in it is None.

    `has_vmcoreinfo` is None if this needs more reading. `missing` is the number of bytes that the file lacks at its end
    according to its header. `pages_end` is the physical address after the last page, 0 if only drgn can find it;
    `level` is makedumpfile's dump level (-d), whose bits say what was left out. `cut` are the physical addresses of the
    pages whose data begins in the file and reaches past its end. `wider`: an ELF file of 64 bits with the memory of a
    machine of 32, as QEMU writes them where memory is mapped up to 4 GiB. `little_endian` is the byte order of an ELF
    file, which QEMU gets wrong for ppc64el.
    """

    path: str
    format: str
    machine: str | None = None
    release: str | None = None
    has_vmcoreinfo: bool | None = None
    segments: tuple[CoreSegment, ...] = ()
    pages_end: int = 0
    level: int | None = None
    missing: int = 0
    incomplete: bool = False
    cut: tuple[int, ...] = ()
    wider: bool = False
    little_endian: bool | None = None

    def is_zero_filled(self, physical: int) -> bool:
        """Whether drgn reads zeros at a physical address because the dump does not contain the page.

        makedumpfile's ELF files do not distinguish pages of zeros from excluded ones.
        """
        return any(s.physical + s.file_size <= physical < s.physical + s.size for s in self.segments)


def read_header(path: str) -> DumpHeader:
    """Read the file's header. InputError if it has none of these formats, or is broken."""
    with open_file(path) as file:
        try:
            head = file.read(_FLAT_HEADER_BYTES)
            if head.startswith(b"\x7fELF"):
                return _elf(path, file, head)
            if head.startswith((KDUMP_SIGNATURE, _DISKDUMP_SIGNATURE)):
                return _kdump(path, file, KDUMP)
            if head.startswith(_FLAT_SIGNATURE):
                return _flattened(path, file)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
    if not head:
        raise InputError(f"{path}: not a dump: it is empty")
    what = foreign(head) or "not a dump: neither an ELF core file nor makedumpfile's kdump format"
    may_be_raw = os.path.getsize(path) >= _LEAST_RAW and not os.path.getsize(path) % 4096
    raw = " (a raw image of memory is opened with --raw and its physical ranges)" if may_be_raw else ""
    raise InputError(f"{path}: {what}{raw}")


# -- ELF ---------------------------------------------------------------------------------------------------------------


def _elf(path: str, file: BinaryIO, head: bytes) -> DumpHeader:
    if len(head) < 64 or head[4] not in (1, 2) or head[5] not in (1, 2):
        raise InputError(f"{path}: its ELF header is broken or truncated")
    order, wide = struct_order(head[5] == 1), head[4] == 2
    kind, number = struct.unpack_from(order + "HH", head, 16)
    if kind != _ET_CORE:
        what = _ELF_TYPES.get(kind, f"of ELF type {kind}")
        hint = " (a vmlinux is given with -s)" if kind in (2, 3) else ""
        raise InputError(f"{path}: not a dump but {what}{hint}")
    architecture = registry.by_elf(number, 64 if wide else 32)
    machine = f"ELF machine {number}" if architecture is None else architecture.name
    offset, entry_size, count = program_header_place(order, wide, head)
    # /proc/kcore is memory, and has neither size nor end.
    endless = os.path.realpath(path).startswith("/proc/")
    size = sys.maxsize if endless else _size(file)
    if count == _PN_XNUM:
        count = _many_program_headers(path, file, order, wide, head)
    expected = 56 if wide else 32
    if not count and xen_dump_core(file, order, wide, head):
        raise InputError(f"{path}: {XEN}")
    if not 0 < count <= _MAX_SEGMENTS or entry_size != expected:
        raise InputError(f"{path}: its ELF header is broken: {count} program headers of {entry_size} bytes")
    table = bytes_at(file, offset, count * entry_size)
    if len(table) != count * entry_size:
        raise InputError(f"{path}: truncated: {size} bytes, but its program headers are at {offset:#x}")
    segments: list[CoreSegment] = []
    end, has_vmcoreinfo = 0, False
    for kind, place in program_headers(order, wide, table):
        if kind == _PT_LOAD:
            segments.append(place)
        elif kind == _PT_NOTE:
            if place.offset + place.file_size > size:
                raise InputError(f"{path}: truncated: {size} bytes, and its notes are truncated")
            has_vmcoreinfo |= _has_vmcoreinfo(file, place, order)
        if kind in (_PT_LOAD, _PT_NOTE) and place.file_size:
            end = max(end, place.offset + place.file_size)
    if not segments:
        raise InputError(f"{path}: an ELF core file without memory")
    wrong = next((s for s in segments if s.offset >= 1 << 56 or s.size >= 1 << 56 or s.file_size > s.size), None)
    if wrong is not None and not endless:
        raise InputError(
            f"{path}: broken: a program header says {wrong.size:#x} bytes of memory, "
            f"{wrong.file_size:#x} of them at {wrong.offset:#x} in the file"
        )
    missing = 0 if endless else max(0, end - size)
    if missing and all(segment.offset >= size for segment in segments if segment.file_size):
        raise InputError(f"{path}: truncated: its memory is missing, {missing} bytes: only its headers are there")
    wider = wide and architecture is not None and architecture.bits == 32
    return DumpHeader(
        path, ELF, machine, None, has_vmcoreinfo, tuple(segments), missing=missing, wider=wider,
        little_endian=head[5] == 1,
    )  # fmt: skip


def program_header_place(order: str, wide: bool, head: bytes) -> tuple[int, int, int]:
    """e_phoff, e_phentsize, e_phnum."""
    offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
    entry_size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    return offset, entry_size, count


def _many_program_headers(path: str, file: BinaryIO, order: str, wide: bool, head: bytes) -> int:
    """Their number if it does not fit into e_phnum: sh_info of section header 0."""
    offset = struct.unpack_from(order + ("Q" if wide else "I"), head, 40 if wide else 32)[0]
    data = bytes_at(file, offset, 64 if wide else 40)
    if not offset or len(data) < (64 if wide else 40):
        raise InputError(f"{path}: truncated: its section header is not there")
    return int(struct.unpack_from(order + "I", data, 44 if wide else 28)[0])


def program_headers(order: str, wide: bool, table: bytes) -> Iterator[tuple[int, CoreSegment]]:
    if wide:
        for kind, _, offset, virtual, physical, file_size, size, _ in struct.iter_unpack(order + "II6Q", table):
            yield kind, CoreSegment(offset, file_size, virtual, physical, size)
    else:
        for kind, offset, virtual, physical, file_size, size, _, _ in struct.iter_unpack(order + "8I", table):
            yield kind, CoreSegment(offset, file_size, virtual, physical, size)


def _has_vmcoreinfo(file: BinaryIO, place: CoreSegment, order: str) -> bool:
    """Whether there is a non-empty note of that name."""
    data = bytes_at(file, place.offset, min(place.file_size, _MAX_NOTES_BYTES))
    offset = 0
    while offset + 12 <= len(data):
        name_size, size, _ = struct.unpack_from(order + "III", data, offset)
        name = data[offset + 12 : offset + 12 + min(name_size, 64)]
        start = offset + 12 + (name_size + 3 & ~3)
        if name == _VMCOREINFO:
            return data.startswith(b"OSRELEASE=", start) and start + size <= len(data)
        offset = start + (size + 3 & ~3)
    return False


# -- makedumpfile's format ---------------------------------------------------------------------------------------------


def _kdump(path: str, file: BinaryIO, format: str) -> DumpHeader:
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    found = _parse_kdump(path, head, format)
    return found if format != KDUMP else _with_end(found, file, head)


def _flattened(path: str, file: BinaryIO) -> DumpHeader:
    head = unflattened_head(path, file)
    if head.startswith(b"\x7fELF"):
        return DumpHeader(path, FLATTENED)
    if not head.startswith((KDUMP_SIGNATURE, _DISKDUMP_SIGNATURE)):
        raise InputError(f"{path}: flattened, but its content is not a dump, or its start is missing")
    return _parse_kdump(path, head, FLATTENED)


def unflattened_head(path: str, file: BinaryIO) -> bytes:
    """The first bytes of the file that was flattened, from its first records. InputError if it is truncated."""
    head = bytearray(_HEAD_BYTES)
    end = 0
    file.seek(_FLAT_HEADER_BYTES)
    for _ in range(_FLAT_RECORDS):
        record = file.read(16)
        if len(record) < 16:
            raise InputError(f"{path}: truncated: the flattened stream ends without its end mark")
        offset, size = struct.unpack(">qq", record)
        if offset < 0 or size < 0:
            break
        if offset >= _HEAD_BYTES:
            file.seek(size, os.SEEK_CUR)
            if end >= 2 * 4096:
                break
            continue
        data = file.read(min(size, _HEAD_BYTES - offset))
        head[offset : offset + len(data)] = data
        end = max(end, offset + len(data))
        file.seek(max(0, size - len(data)), os.SEEK_CUR)
    return bytes(head[:end])


def _parse_kdump(path: str, head: bytes, format: str) -> DumpHeader:
    if len(head) < 4096:
        raise InputError(f"{path}: truncated: its header is truncated")
    machine, release = _text(head, _UTS_MACHINE), _text(head, _UTS_RELEASE)
    architecture = registry.by_uname(machine or "")
    fields = after_time(head)
    if fields is None:
        raise InputError(f"{path}: its kdump header is broken")
    order, status, block, sub_blocks, bitmap_blocks, pages = fields
    if not 0 <= sub_blocks <= 1 << 16 or bitmap_blocks > 1 << 24:
        raise InputError(f"{path}: its kdump header is broken: {sub_blocks} blocks of sub header")
    level: int | None = None
    has_vmcoreinfo: bool | None = None
    version = struct.unpack_from(order + "i", head, 8)[0]
    sub = head[block : block + _SUB_HEADER_BYTES]
    if len(sub) == _SUB_HEADER_BYTES and sub_blocks:
        if version >= 1:
            level = struct.unpack_from(order + "i", sub, _LEVEL)[0]
        if version >= 3:
            offset, size = struct.unpack_from(order + "QQ", sub, _VMCOREINFO_PLACE)
            has_vmcoreinfo = bool(offset and size)
        if version >= 6:
            pages = max(pages, struct.unpack_from(order + "Q", sub, 96)[0])
    if pages * block > 1 << 56:
        raise InputError(f"{path}: its kdump header is broken: {pages:#x} pages")
    return DumpHeader(
        path,
        format,
        machine if architecture is None else architecture.name,
        release,
        has_vmcoreinfo,
        pages_end=pages * block,
        level=level if level is not None and 0 <= level < 1 << 16 else None,
        incomplete=bool(status & _INCOMPLETE),
    )


def after_time(head: bytes) -> tuple[StructOrder, int, int, int, int, int] | None:
    """The byte order, and status, block_size, sub_hdr_size, bitmap_blocks and max_mapnr; None if none is plausible."""
    for offset in _AFTER_TIME.values():
        for order in STRUCT_ORDERS:
            status, block, sub_blocks, bitmap_blocks, pages = struct.unpack_from(
                order + _AFTER_TIME_FORMAT, head, offset
            )
            if 4096 <= block <= 65536 and not block & block - 1:
                return order, status, block, sub_blocks, bitmap_blocks, pages
    return None


def _text(head: bytes, offset: int) -> str | None:
    raw = head[offset : offset + _UTS_FIELD].split(b"\0", 1)[0]
    text = raw.decode("ascii", "replace")
    return text if re.fullmatch(r"[\x21-\x7e]+", text) else None


def _with_end(header: DumpHeader, file: BinaryIO, head: bytes) -> DumpHeader:
    """The header with the bytes missing at the file's end, from the last page descriptor or the descriptors' table."""
    fields = after_time(head)
    assert fields is not None  # it was parsed
    order, _, block, sub_blocks, bitmap_blocks, _ = fields
    bitmap, size = (1 + sub_blocks) * block, _size(file)
    version = struct.unpack_from(order + "i", head, 8)[0]
    for since, what, at in _SUB_HEADER_PLACES:
        if version >= since and len(head) >= block + _SUB_HEADER_BYTES:
            offset, length = struct.unpack_from(order + "QQ", head, block + at)
            if length and offset + length > size:
                raise InputError(f"{header.path}: truncated or broken: its {what} should be at {offset:#x}")
    # Two bitmaps of the same size (pages that exist, pages that are in the dump); one in diskdump's own format.
    half = bitmap_blocks * block // 2
    if not 0 <= half <= size - bitmap - half:
        raise InputError(f"{header.path}: truncated: {size} bytes end in the list of its pages")
    dumped = bytes_at(file, bitmap + half, half)
    pages = bin(int.from_bytes(dumped, LITTLE)).count("1")
    table = bitmap + 2 * half
    end = table + pages * PAGE_DESCRIPTOR
    if end > size:
        raise InputError(f"{header.path}: truncated: {size} bytes end in the list of its pages")
    end = max(end, data_end(file, order, table, pages))
    numbers = cut_pages(file, order, table, pages, size)
    if len(numbers) > _MOST_CUT_PAGES:
        raise InputError(f"{header.path}: broken: the data of {len(numbers)} pages reaches over its end")
    cut = tuple(page_frame(dumped, number) * block for number in numbers)
    return replace(header, missing=max(0, end - size), cut=cut)


def saved_ranges(header: DumpHeader) -> list[tuple[int, int]]:
    """The (start, end) of the physical memory of the pages in a compressed dump, each of eight pages or more; empty if
    the file's bitmap cannot be read.
    """
    if header.format != KDUMP:
        return []
    with open_file(header.path) as file:
        fields = after_time(file.read(4096))
        if fields is None:
            return []
        _, _, block, sub_blocks, bitmap_blocks, _ = fields
        half = bitmap_blocks * block // 2
        dumped = bytes_at(file, (1 + sub_blocks) * block + half, half)
    return [(8 * block * run.start(), 8 * block * run.end()) for run in re.finditer(rb"[^\0]+", dumped)]


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)
