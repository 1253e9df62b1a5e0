"""ELF notes: where each lies, its owner, the name of its type, and its content.

No library is used: pyelftools names a note by the kind of file, as readelf does, and stops at the first one that it
cannot decode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kplug.arch.note_registers import prstatus_pid, prstatus_registers, qemu_registers
from kplug.arch.registers import registers_of
from kplug.arch.registry import named
from kplug.arch.types.word import WIDEST_BITS, byte_order, struct_order
from kplug.errors import InputError
from kplug.frozen import Frozen, field, replace
from kplug.image.elf import note_names as kinds
from kplug.image.elf.file import MAX_NOTE_BYTES, ElfFile, Note, notes_at
from kplug.named_tuples import NamedTuple

# A dump has some hundred bytes of notes for each CPU, thousands if it has long vector registers.
MAX_DUMP_NOTE_BYTES = 1 << 26
# 8192 CPUs (NR_CPUS_RANGE_END), each with its registers in several notes.
_MOST_NOTES = 1 << 16
# The texts in notes are short; VMCOREINFO is one page, or two or three with the additions of 6.x.
_MAX_TEXT = 1 << 16
_SHOWN_BYTES = 32


class DecodedNote(Frozen):
    """A note and what is known about it. `name` is None if no type of that number is known for the owner.

    `value` is its content in one line, None if only bytes are known. `text` is its content if that has many lines,
    `registers` are those in it, by canonical name, of so many `bits`. `place` names the section or segment, `offset` is
    its position in the file (None: not in a file). For notes that each CPU has, `cpu` is the number of notes of that
    kind before it; None if they are the kernel's own, which do not tell (kplug/memory/crash_notes.py).
    """

    owner: str
    type: int
    name: str | None
    description: bytes
    value: str | None = None
    text: str | None = None
    pid: int | None = None
    cpu: int | None = None
    registers: Mapping[str, int] = field(default_factory=dict)
    place: str = ""
    offset: int | None = None
    bits: int = WIDEST_BITS

    @property
    def shown(self) -> str:
        """Its content in one line, or its first bytes."""
        if self.value is not None:
            return self.value
        more = " ..." if len(self.description) > _SHOWN_BYTES else ""
        return self.description[:_SHOWN_BYTES].hex(" ") + more


class BrokenNotes(NamedTuple):
    """An invalid note, at which the notes end: the rest of its range is not read."""

    place: str
    offset: int
    why: str


class NoteFormat(NamedTuple):
    """What the format of notes depends on."""

    machine: str
    little_endian: bool
    bits: int = WIDEST_BITS


def notes_of(elf: ElfFile) -> Iterator[DecodedNote | BrokenNotes]:
    """All notes of a file, from its NOTE sections, or the NOTE segments if it has none. InputError if invalid."""
    form = NoteFormat(elf.machine, elf.little_endian, elf.bits)
    ranges = [(s.name, s.offset, s.size, s.alignment) for s in elf.sections if s.type == "NOTE"]
    if not ranges:
        ranges = [(s.name, s.offset, s.file_size, s.alignment) for s in elf.segments if s.type == "NOTE"]
    most = MAX_DUMP_NOTE_BYTES if elf.type == "CORE" else MAX_NOTE_BYTES
    if sum(size for _, _, size, _ in ranges) > most:
        raise InputError(f"{elf.path}: claims over {most >> 20} MiB of notes; no kernel has that many")
    for place, offset, size, alignment in ranges:
        data = elf.read(offset, size, f"the notes in {place}")
        yield from decoded_notes(data, form, place, offset, 8 if alignment == 8 else 4)


def decoded_notes(
    data: bytes, form: NoteFormat, place: str = "", offset: int | None = None, alignment: int = 4
) -> Iterator[DecodedNote | BrokenNotes]:
    """The notes in a range of bytes at `offset` in a file; an invalid note ends them."""
    counts: dict[tuple[str, int], int] = {}
    in_order = not are_the_kernels_own(data)
    for number, (position, note) in enumerate(notes_at(data, form.little_endian, alignment)):
        at = None if offset is None else offset + position
        if number >= _MOST_NOTES:
            note = f"there are more than {_MOST_NOTES:,} of them"
        if isinstance(note, str):
            yield BrokenNotes(place, position if at is None else at, note)
            return
        cpu = counts[note.owner, note.type] = counts.get((note.owner, note.type), -1) + 1
        yield decode(note, form, place, at, cpu if in_order else None)


def decode(
    note: Note, form: NoteFormat, place: str = "", offset: int | None = None, cpu: int | None = None
) -> DecodedNote:
    """A note, decoded. If the content does not fit its type, it has no value: its bytes are shown, without an error."""
    name, kind = kinds.meaning(note.owner, note.type)
    try:
        decoded = _DECODERS[kind](note.description, form) if kind in _DECODERS else {}
    except (struct.error, ValueError, IndexError):
        decoded = {}
    if kind not in (kinds.PRSTATUS, kinds.QEMU_CPU):
        cpu = None
    found = DecodedNote(
        note.owner, note.type, name, note.description, place=place, offset=offset, bits=form.bits, **decoded
    )
    return found if cpu is None else of_cpu(found, cpu)


def are_the_kernels_own(notes: bytes) -> bool:
    """Whether the kernel that crashed wrote the notes of a dump: only of CPUs that were online and answered, so that a
    note's place among the others is not its CPU. A hypervisor writes those of all CPUs in their order.

    crash_save_vmcoreinfo() adds CRASHTIME; QEMU adds notes of its own to those that it makes.
    """
    return b"\nCRASHTIME=" in notes and b"QEMU\0" not in notes


def of_cpu(note: DecodedNote, cpu: int) -> DecodedNote:
    """A note that is known to be of a CPU."""
    return replace(note, cpu=cpu, value=None if note.value is None else f"CPU {cpu}: {note.value}")


# -- the decoders of each kind: they return keyword arguments of DecodedNote -------------------------------------------

_Told = dict[str, Any]


def _text(data: bytes, form: NoteFormat) -> _Told:
    """A string: up to its NUL, with only NULs after it."""
    words, _, rest = data[:_MAX_TEXT].partition(b"\0")
    if rest.strip(b"\0") or len(data) > _MAX_TEXT:
        return {}
    text = words.decode("utf-8", "backslashreplace")
    return {"value": text.split("\n")[0], "text": text} if "\n" in text.rstrip("\n") else {"value": text}


def _unsigned(data: bytes, form: NoteFormat) -> int:
    """A number of 4 or 8 bytes; ValueError for another size."""
    if len(data) not in (4, 8):
        raise ValueError
    return int.from_bytes(data, byte_order(form.little_endian))


def _words(data: bytes, form: NoteFormat, size: int) -> Sequence[int]:
    order = struct_order(form.little_endian)
    return struct.unpack(f"{order}{len(data) // size}{'Q' if size == 8 else 'I'}", data)


def _number(data: bytes, form: NoteFormat) -> _Told:
    return {"value": str(_unsigned(data, form))}


def _hex(data: bytes, form: NoteFormat) -> _Told:
    return {"value": f"{_unsigned(data, form):#x}"}


def _pairs(data: bytes, form: NoteFormat) -> _Told:
    """Masks and values: as wide as a machine address (maddr_t), which is 8 bytes with PAE."""
    words = _words(data, form, 8)
    if not words or len(words) % 2:
        return {}
    return {"value": ", ".join(f"mask {mask:#x} value {value:#x}" for mask, value in zip(words[::2], words[1::2]))}


def _features(data: bytes, form: NoteFormat) -> _Told:
    bits = _unsigned(data, form)
    named = [kinds.XEN_FEATURES.get(bit, f"bit {bit}") for bit in range(bits.bit_length()) if bits >> bit & 1]
    return {"value": "|".join([f"{bits:#x}", *named])}


def _phys32_reloc(data: bytes, form: NoteFormat) -> _Told:
    """x86: alignment, lowest and highest address for the image (elfnote.h); fewer words are allowed."""
    names = ("alignment", "minimum", "maximum")
    words = _words(data, form, 4)
    if not 1 <= len(words) <= len(names):
        return {}
    return {"value": ", ".join(f"{name} {word:#x}" for name, word in zip(names, words))}


def _build_id(data: bytes, form: NoteFormat) -> _Told:
    return {"value": data.hex()} if data else {}


def _abi_tag(data: bytes, form: NoteFormat) -> _Told:
    system, *version = _words(data[:16], form, 4)
    return {"value": f"{kinds.GNU_SYSTEMS[system]} {'.'.join(map(str, version))}"} if len(version) == 3 else {}


def _properties(data: bytes, form: NoteFormat) -> _Told:
    """Each: number, size, data, aligned to a word of the class."""
    order, alignment = struct_order(form.little_endian), form.bits // 8
    said: list[str] = []
    position = 0
    while position + 8 <= len(data):
        number, size = struct.unpack_from(order + "II", data, position)
        value = data[position + 8 : position + 8 + size]
        if len(value) != size:
            return {}
        said.append(_property(number, value, form))
        position += 8 + (size + alignment - 1) // alignment * alignment
    return {"value": ", ".join(said)} if said and position == len(data) else {}


def _property(number: int, data: bytes, form: NoteFormat) -> str:
    known = kinds.property_meaning(form.machine, number)
    if known is None or len(data) not in (0, 4, 8):
        return f"property {number:#x}: {data[:_SHOWN_BYTES].hex(' ')}".rstrip()
    name, bit_names = known
    if not data:
        return name
    value = _unsigned(data, form)
    if not bit_names:
        return f"{name}: {value:#x}"
    names = [bit_names[bit] if bit < len(bit_names) else f"bit {bit}" for bit in range(64) if value >> bit & 1]
    return f"{name}: {' '.join(names) or 'none'}"


def _version_code(data: bytes, form: NoteFormat) -> _Told:
    """LINUX_VERSION_CODE: its last part is at most 255 (stable releases of 5.10 and 4.19 went beyond that)."""
    code = _unsigned(data, form)
    return {"value": f"{code >> 16}.{code >> 8 & 0xFF}.{code & 0xFF}"}


def _prstatus(data: bytes, form: NoteFormat) -> _Told:
    names = registers_of(form.machine).user_regs
    if not names or form.bits != 64:
        return {}
    registers, pid = prstatus_registers(data, names, form.little_endian), prstatus_pid(data, form.little_endian)
    words = [
        f"pr_pid {pid}",
        *(f"{name} {registers[name]:#x}" for name in ("rip", "rsp", "pc", "sp") if name in registers),
    ]
    return {"value": ", ".join(words), "registers": registers, "pid": pid}


def _prpsinfo(data: bytes, form: NoteFormat) -> _Told:
    """struct elf_prpsinfo of 64-bit machines (include/linux/elfcore.h): pr_fname of 16 bytes, pr_psargs of 80."""
    if form.bits != 64 or len(data) != 136:
        return {}
    pid = struct.unpack_from(struct_order(form.little_endian) + "i", data, 24)[0]
    name, arguments = (part.split(b"\0", 1)[0].decode("utf-8", "backslashreplace") for part in (data[40:56], data[56:]))
    return {"value": f"pr_pid {pid}, {name}: {arguments}", "pid": pid}


def _qemu_cpu(data: bytes, form: NoteFormat) -> _Told:
    registers = qemu_registers(data) if named(form.machine).qemu_note else {}
    if not registers:
        return {}
    return {
        "value": ", ".join(f"{name} {registers[name]:#x}" for name in ("cr0", "cr3", "cr4")),
        "registers": registers,
    }


def _vmcoreinfo(data: bytes, form: NoteFormat) -> _Told:
    text = data[:_MAX_TEXT].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    lines = text.splitlines()
    return {"value": f"{lines[0]} ({len(lines)} lines)", "text": text} if lines else {}


def _device_dump(data: bytes, form: NoteFormat) -> _Told:
    """struct vmcoredd_header (include/uapi/linux/vmcore.h) begins with the note itself; then a name of 44 bytes."""
    name = data[:44].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    return {"value": f"{name}, {len(data) - 44:#x} bytes"} if len(data) >= 44 and name.isprintable() else {}


_DECODERS: Mapping[str, Callable[[bytes, NoteFormat], _Told]] = {
    kinds.TEXT: _text,
    kinds.NUMBER: _number,
    kinds.HEX: _hex,
    kinds.ADDRESS: _hex,
    kinds.PAIRS: _pairs,
    kinds.FEATURES: _features,
    kinds.PHYS32_RELOC: _phys32_reloc,
    kinds.BUILD_ID: _build_id,
    kinds.ABI_TAG: _abi_tag,
    kinds.PROPERTIES: _properties,
    kinds.VERSION_CODE: _version_code,
    kinds.PRSTATUS: _prstatus,
    kinds.PRPSINFO: _prpsinfo,
    kinds.QEMU_CPU: _qemu_cpu,
    kinds.VMCOREINFO: _vmcoreinfo,
    kinds.DEVICE_DUMP: _device_dump,
}
