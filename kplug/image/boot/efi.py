"""Boot images that are EFI programs: EFI zboot, and unified kernel images."""

from __future__ import annotations

from kplug.arch import registry
from kplug.files.compression import FORMATS
from kplug.image.boot.formats import BadImageError, Container, Part
from kplug.image.boot.window import Window
from kplug.named_tuples import NamedTuple

_MAGIC = b"MZ"


class PeSection(NamedTuple):
    name: bytes
    offset: int
    size: int


def _pe_header(data: Window) -> int | None:
    """The position of the PE header for EFI; None if there is none."""
    head = data[:0x40]
    if head[:2] != _MAGIC or len(head) < 0x40:
        return None
    start = int.from_bytes(head[0x3C:0x40], "little")
    return start if data[start : start + 4] == b"PE\0\0" and start + 24 <= len(data) else None


def _pe_machine(data: Window) -> str | None:
    start = _pe_header(data)
    architecture = None if start is None else registry.by_pe(data.unpack("<H", start + 4)[0])
    return None if architecture is None else architecture.name


def pe_sections(data: Window) -> list[PeSection]:
    start = _pe_header(data)
    if start is None:
        return []
    count, optional_size = data.unpack("<H12xH", start + 6)
    position, found = start + 24 + optional_size, []
    for _ in range(min(count, 96)):  # the limit of Windows; an EFI program has five to ten
        if position + 40 > len(data):
            break
        name, size, offset = data.unpack("<8s8x2I", position)
        found.append(PeSection(name.rstrip(b"\0"), offset, size))
        position += 40
    return found


def _zboot(data: Window) -> list[Part] | None:
    head = data[:0x40]
    if head[:2] != _MAGIC or len(head) < 0x40:
        return None
    start, size = data.unpack("<2I", 8)
    word = head[24:32].split(b"\0")[0].decode("ascii", "backslashreplace")
    name = {"zstd22": "zstd", "xzkern": "xz"}.get(word, word)
    if name not in FORMATS:
        raise BadImageError(f"its EFI zboot header says it is packed with {word!r}, which is not known")
    known = None
    if name not in ("gzip", "zstd") and start + size + 4 <= len(data):
        # The unpacked size is appended, and not counted. Since only gzip and zstd are left (6.14), it is not always
        # there, and there may be other bytes.
        known = int.from_bytes(data[start + size : start + size + 4], "little")
    return [Part(start, size, name, unpacked_size=known, machine=_pe_machine(data), is_packed=True)]


def _unified(data: Window) -> list[Part] | None:
    """A boot image in the section .linux."""
    found = [Part(section.offset, section.size) for section in pe_sections(data) if section.name == b".linux"]
    return found[:1] or None


ZBOOT = Container("EFI zboot", "drivers/firmware/efi/libstub/zboot-header.S", "by its header", (b"zimg",), 4, _zboot)
UNIFIED = Container(
    "unified kernel image",
    "UAPI group, Unified Kernel Image (UKI)",
    "its section .linux",
    (_MAGIC,),
    0,
    _unified,
    searched=False,
)
