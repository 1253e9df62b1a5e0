"""The kind and the content of a kernel file, for `kplug info FILE` and `kplug notes FILE`.

vmlinux and modules, separate debug files, vmcores (ELF, makedumpfile's formats), boot images and flat Images, and plain
notes (/sys/kernel/notes).
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kplug.arch import registry
from kplug.errors import InputError
from kplug.files.opening import open_file
from kplug.frozen import Frozen, field, replace
from kplug.image.banner import Banner, only_banner
from kplug.image.elf.file import ElfFile
from kplug.image.elf.modinfo import ModuleField, module_fields
from kplug.image.elf.note_names import VMCOREINFO, meaning
from kplug.image.elf.notes import BrokenNotes, DecodedNote, NoteFormat, decoded_notes, notes_of
from kplug.image.kernel_config import config_text, packed_config
from kplug.outputs import Hex, Size

if TYPE_CHECKING:
    from kplug.image.boot.boot_image import BootImage

VMLINUX, MODULE, DEBUG_FILE, VMCORE, OBJECT, ELF, BOOT_IMAGE, NOTES = (
    *("vmlinux", "module", "separate debug file", "vmcore", "object file", "ELF file", "boot image", "notes"),
)
_DUMP_MAGICS = (b"KDUMP   ", b"DISKDUMP", b"makedumpfile\0")
# .rodata of the largest debug builds is some tens of megabytes.
_MAX_PIECE_BYTES = 1 << 28
_MAX_BARE_NOTES_BYTES = 1 << 16


class Inspected(Frozen):
    """An opened file. `elf` is the ELF file that it is or contains; `payload` the flat Image that it contains.

    `container` are the facts of the container, by the names in `kplug.info/1`.
    """

    path: str
    kind: str
    elf: ElfFile | None = None
    payload: bytes = b""
    machine: str | None = None
    container: Mapping[str, Any] = field(default_factory=dict)
    dump_notes: bytes | None = None
    little_endian: bool | None = None  # None: as the machine usually is
    warnings: tuple[str, ...] = ()

    @cached_property
    def notes(self) -> Sequence[DecodedNote | BrokenNotes]:
        """Its notes; in a broken range, the last item says why it ends. InputError if they are outside the file."""
        if self.elf is not None:
            return list(notes_of(self.elf))
        word = registry.named(self.machine or "").word(little_endian=self.little_endian)
        form = NoteFormat(self.machine or "", word.little_endian, word.bits)
        if self.dump_notes is not None:
            return list(decoded_notes(self.dump_notes, form))
        if self.payload:
            from kplug.image.elf.raw_notes import find_notes

            # Nothing says which byte order a flat image has.
            for little_endian in (word.little_endian, not word.little_endian):
                found = find_notes(self.payload, little_endian=little_endian)
                if found is not None:
                    form = NoteFormat(self.machine or "", little_endian, word.bits)
                    return list(decoded_notes(found.data, form, "recognised by its form", found.offset))
        return []

    @cached_property
    def pieces(self) -> Sequence[bytes]:
        """The bytes that contain the banner and the configuration, if there are any."""
        return list(_pieces(self.elf)) if self.elf is not None else [self.payload]

    @cached_property
    def banner(self) -> Banner | None:
        return only_banner(self.pieces)

    @cached_property
    def packed_config(self) -> bytes | None:
        return packed_config(self.pieces)

    def config(self) -> str:
        """The text of the configuration in the image. InputError if there is none, or it is broken."""
        if self.packed_config is None:
            raise InputError(f"{self.path}: contains no configuration (CONFIG_IKCONFIG was not set); distributions "
                             "install it as /boot/config-RELEASE")  # fmt: skip
        return config_text(self.path, self.packed_config)

    @cached_property
    def module_fields(self) -> Sequence[ModuleField]:
        return module_fields(self.elf) if self.elf is not None and self.kind == MODULE else []

    def note_value(self, owner: str, name: str) -> str | None:
        """The content of the first note of that owner and name; None if there is none."""
        notes = (note for note in self.notes if isinstance(note, DecodedNote))
        return next((note.value for note in notes if note.owner == owner and note.name == name), None)


def inspect(path: str) -> Inspected:
    """Open the file and recognise its kind. InputError, one line naming it, if it is not a kernel's file or broken."""
    from kplug.image.boot.containers import HEAD_BYTES, is_boot_image
    from kplug.image.symbols.listings import is_listing
    from kplug.memory.foreign_dumps import foreign

    with open_file(path) as file:
        try:
            head = file.read(max(HEAD_BYTES, 64))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not head:
        raise InputError(f"{path}: the file is empty")
    if head.startswith(b"\x7fELF"):
        return _or_unpacked(_inspected_elf(path, ElfFile(path)))
    if head.startswith(_DUMP_MAGICS):
        return _inspected_dump(path)
    notes = _bare_notes(path)
    if notes is not None:
        return notes
    if is_boot_image(head):
        return _inspected_boot_image(path)
    what = "a list of symbols, and nothing else" if is_listing(path) else foreign(head)
    if what is None and (found := _or_unpacked(Inspected(path, ELF))).kind == BOOT_IMAGE:
        return found
    raise InputError(f"{path}: {what or 'not a kernel file: neither ELF, nor a boot image, nor a dump'}")


def _or_unpacked(file: Inspected) -> Inspected:
    """The file; the kernel in it instead, if it is an ELF file that unpacks itself, or has one somewhere."""
    if file.kind == ELF:
        with contextlib.suppress(InputError):
            return _inspected_boot_image(file.path)
    return file


def _inspected_elf(path: str, elf: ElfFile, **more: Any) -> Inspected:
    return Inspected(path, _elf_kind(elf), elf, machine=elf.machine, **more)


def _elf_kind(elf: ElfFile) -> str:
    if elf.type == "CORE":
        return VMCORE
    text = elf.section(".text")
    if text is not None and text.type == "NOBITS":
        return DEBUG_FILE  # objcopy --only-keep-debug keeps the headers of removed sections
    if elf.relocatable:
        return MODULE if elf.section(".modinfo") or elf.section(".gnu.linkonce.this_module") else OBJECT
    return VMLINUX if only_banner(_pieces(elf)) is not None else ELF


def _pieces(elf: ElfFile) -> Iterator[bytes]:
    """The bytes of .rodata; without that section, those of all others with data in memory."""
    if elf.type == "CORE":
        return
    sections = [s for s in elf.sections if s.allocated and s.type not in ("NOBITS", "NOTE")]
    rodata = [s for s in sections if s.name == ".rodata"]
    ranges = [(s.offset, s.size, s.name) for s in rodata or sections if not s.executable]
    if not elf.sections:
        ranges = [(s.offset, s.file_size, s.name) for s in elf.segments if s.type == "LOAD"]
    left = _MAX_PIECE_BYTES
    for offset, size, name in ranges:
        if size > left:
            raise InputError(f"{elf.path}: {name} claims {size:#x} bytes, more than any kernel has")
        left -= size
        yield elf.read(offset, size, name)


def _inspected_boot_image(path: str) -> Inspected:
    from kplug.image.boot.boot_image import open_boot_image
    from kplug.progress import Progress

    with Progress(f"unpacking {os.path.basename(path)}") as progress:
        image = open_boot_image(path, progress.update, any_elf=True)
    container = _boot_facts(image)
    if image.kind == "ELF":
        elf = ElfFile(path, io.BytesIO(image.payload))
        inspected = _inspected_elf(path, elf, container=container, warnings=image.warnings)
        return replace(inspected, kind=BOOT_IMAGE) if inspected.kind == VMLINUX else inspected
    return Inspected(
        path, BOOT_IMAGE, None, image.payload, machine=image.machine, container=container, warnings=image.warnings
    )


def _boot_facts(image: BootImage) -> Mapping[str, Any]:
    from kplug.image.boot.setup_header import HEAD_BYTES, setup_header

    facts: dict[str, Any] = {
        "container": " > ".join(name for name in image.containers if name != "vmlinux"),
        "compression": image.compression or "none",
        "payload": image.kind,
        "payload_offset": Hex(image.offset),
        "payload_size": Size(image.length),
        "unpacked_size": Size(len(image.payload)),
    }
    with open_file(image.path) as file:
        setup = setup_header(file.read(HEAD_BYTES))
    if setup is not None and "bzImage" in image.containers:
        facts.update(
            setup_version=setup.version,
            setup_protocol=setup.protocol,
            relocatable=_yes(setup.relocatable),
            kernel_alignment=_hex(setup.alignment),
            preferred_address=_hex(setup.preferred_address),
            init_size=None if setup.init_size is None else Size(setup.init_size),
            load_flags=None if setup.load_flags is None else " ".join(setup.load_flags),
        )
    header = image.header
    if header is not None:
        facts.update(
            text_offset=Hex(header.text_offset),
            image_size=Size(header.image_size),
            image_flags=Hex(header.flags),
            page_size=header.page_size,
        )
    return facts


def _inspected_dump(path: str) -> Inspected:
    """A dump in makedumpfile's format, or flattened. (An ELF one is an ELF file.)"""
    from kplug.memory.dump_header import NO_MACHINE, read_header
    from kplug.memory.dump_notes import note_bytes
    from kplug.memory.split_dump import part_of

    with open_file(path) as file:
        try:
            header, part = read_header(path), part_of(path)
            notes, little_endian = note_bytes(path, file)
        except (OSError, ValueError, IndexError, struct.error) as error:
            raise InputError(f"{path}: its notes cannot be read: {error}") from None
    machine = header.machine
    if machine in (None, NO_MACHINE):
        machine = _machine_of(
            vmcoreinfo_text(Inspected(path, VMCORE, dump_notes=notes, little_endian=little_endian)) or ""
        )
    facts = {
        "format": header.format,
        "machine": machine,
        "dump_level": header.level,
        "memory_end": Hex(header.pages_end) if header.pages_end else None,
        **({} if part is None else {"part_start": Hex(part.start), "part_end": Hex(part.end)}),
        "missing_bytes": Size(header.missing),
        "incomplete": _yes(header.incomplete),
        "release": header.release,
    }
    return Inspected(path, VMCORE, machine=machine, container=facts, dump_notes=notes, little_endian=little_endian)


def _machine_of(text: str) -> str | None:
    """The architecture of a VMCOREINFO, if it has a number that only one architecture's kernels write."""
    from kplug.memory.vmcoreinfo import VmcoreInfo

    found = registry.by_vmcoreinfo(VmcoreInfo(text).numbers)
    return None if found is None else found.name


def _bare_notes(path: str) -> Inspected | None:
    """Whether it is /sys/kernel/notes or a copy: notes from the first byte to the last, with a known name."""
    with open_file(path) as file:
        data = file.read(_MAX_BARE_NOTES_BYTES + 1)
    if not 12 < len(data) <= _MAX_BARE_NOTES_BYTES:
        return None
    for little_endian in (True, False):
        notes = list(decoded_notes(data, NoteFormat("", little_endian)))
        if notes and all(isinstance(note, DecodedNote) and note.name for note in notes):
            return Inspected(path, NOTES, dump_notes=data, little_endian=little_endian)
    return None


def _hex(number: int | None) -> Hex | None:
    return None if number is None else Hex(number)


def _yes(fact: bool | None) -> str | None:
    return None if fact is None else "yes" if fact else "no"


def vmcoreinfo_text(file: Inspected) -> str | None:
    """The text of a dump's VMCOREINFO: from its note, or from its place in makedumpfile's format."""
    for note in file.notes:
        if isinstance(note, DecodedNote) and meaning(note.owner, note.type)[1] == VMCOREINFO and note.text:
            return note.text
    if file.elf is None and file.kind == VMCORE:
        from kplug.memory.dump_notes import vmcoreinfo_text as beside_the_notes

        return beside_the_notes(file.path)
    return None
