"""The registers that a crashing kernel saved of its CPUs: kplug/memory/crash_notes.py, over memory made here."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.elf_builder import BASE_64, OBJECT, A, Elf, Sec, Sym, W, small_vmlinux
from support.elf_notes import note, prstatus

from kplug.errors import TargetError
from kplug.image.elf.notes import DecodedNote, NoteFormat, are_the_kernels_own, decoded_notes
from kplug.image.opening.files import open_vmlinux
from kplug.image.placed import PlacedImage
from kplug.image.placement import moved_by
from kplug.memory.crash_notes import saved_notes, with_cpus
from kplug.memory.reading import FaultError

KASLR_OFFSET = 0x8A00000
POINTER = 0x9400
# CPU 1 is not possible; of CPU 3 nothing was saved.
AREAS = {0: 0xFFFF888000400000, 2: 0xFFFF888000300000, 3: 0xFFFF888000500000}
REGISTERS = range(27)
SAVED = {0: prstatus(0, REGISTERS), 2: prstatus(212, REGISTERS)}
CRASHED = note(b"VMCOREINFO", 0, b"OSRELEASE=6.1.0\nCRASHTIME=1796037712\n")


def vmlinux(without: str = "") -> Elf:
    elf = small_vmlinux()
    elf.sections.append(Sec(".data..percpu", flags=A | W, address=0, data=bytes(0x10000)))
    elf.sections.append(Sec(".kernel", flags=A | W, address=BASE_64 + 0x3100, data=bytes(0x100)))
    assert elf.symbols is not None
    elf.symbols += [
        Sym("__per_cpu_start", 0, 0, ".data..percpu"),
        Sym("__per_cpu_end", 0x10000, 0, ".data..percpu"),
        Sym("__cpu_possible_mask", BASE_64 + 0x3100, 8, ".kernel", OBJECT),
        Sym("nr_cpu_ids", BASE_64 + 0x3110, 4, ".kernel", OBJECT),
        Sym("__per_cpu_offset", BASE_64 + 0x3140, 64, ".kernel", OBJECT),
        Sym("crash_notes", BASE_64 + 0x3120, 8, ".kernel", OBJECT),
    ]
    elf.symbols = [symbol for symbol in elf.symbols if symbol.name != without]
    return elf


class Memory:
    """A kernel's memory: its variables, and what each CPU has at `crash_notes`."""

    def __init__(self, notes: dict[int, bytes], areas: dict[int, int] = AREAS, pointer: int = POINTER) -> None:
        kernel = BASE_64 + KASLR_OFFSET
        self.parts = {
            kernel + 0x3100: struct.pack("<Q", sum(1 << cpu for cpu in areas)),
            kernel + 0x3110: struct.pack("<I", 4),
            kernel + 0x3120: struct.pack("<Q", pointer),
            kernel + 0x3140: struct.pack("<4Q", *(areas.get(cpu, 0) for cpu in range(4))),
        }
        for cpu, start in areas.items():
            if cpu in notes:
                self.parts[start + pointer] = notes[cpu].ljust(368, b"\0")

    def read(self, address: int, size: int) -> bytes:
        for start, data in self.parts.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise FaultError(f"memory at {address:#x} cannot be read")


def placed(tmp_path: Path, without: str = "") -> PlacedImage:
    path = tmp_path / "vmlinux"
    path.write_bytes(bytes(vmlinux(without)))
    image = open_vmlinux(str(path))
    return PlacedImage(image, moved_by(image.extents, KASLR_OFFSET, "a test"))


def core(content: bytes) -> bytes:
    return note(b"CORE", 1, content)


def test_a_cpu_has_the_note_that_is_in_its_own_memory(tmp_path: Path) -> None:
    memory = Memory({cpu: core(content) for cpu, content in SAVED.items()} | {3: b""})
    assert saved_notes(placed(tmp_path), memory.read) == SAVED


def test_a_kernel_without_smp_has_one(tmp_path: Path) -> None:
    memory = Memory({0: core(SAVED[2])}, {0: 0}, 0xFFFF888000009400)
    assert saved_notes(placed(tmp_path, "__per_cpu_offset"), memory.read) == {0: SAVED[2]}


@pytest.mark.parametrize(
    "wrong",
    [
        note(b"LINUX", 1, SAVED[0]),
        note(b"CORE", 2, SAVED[0]),
        struct.pack("<III", 5, 1 << 31, 1) + b"CORE\0\0\0\0",
        struct.pack("<III", 1 << 31, 336, 1) + b"CORE\0\0\0\0",
    ],
)
def test_what_is_no_prstatus_note_is_none(tmp_path: Path, wrong: bytes) -> None:
    assert saved_notes(placed(tmp_path), Memory({0: wrong, 2: core(SAVED[2]), 3: b""}).read) == {2: SAVED[2]}


def test_before_it_is_allocated_there_are_none(tmp_path: Path) -> None:
    assert saved_notes(placed(tmp_path), Memory({}, pointer=0).read) == {}


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    image = placed(tmp_path)
    with pytest.raises(TargetError, match=r"^memory at 0xffff888000409400 cannot be read$"):
        saved_notes(image, Memory({}).read)
    with pytest.raises(TargetError, match="no symbol crash_notes"):
        saved_notes(placed(tmp_path, "crash_notes"), Memory({}).read)


def decoded(data: bytes) -> list[DecodedNote]:
    return [each for each in decoded_notes(data, NoteFormat("x86_64", True)) if isinstance(each, DecodedNote)]


def test_the_notes_place_is_the_cpu_only_if_a_hypervisor_wrote_them() -> None:
    notes = core(SAVED[0]) + core(SAVED[2])
    assert not are_the_kernels_own(notes)
    assert [each.cpu for each in decoded(notes)] == [0, 1]
    assert are_the_kernels_own(notes + CRASHED)
    assert [each.cpu for each in decoded(notes + CRASHED)] == [None] * 3
    assert decoded(notes + CRASHED)[1].value == "pr_pid 212, rip 0x10, rsp 0x13"
    # QEMU's dump of a guest that has crashed: VMCOREINFO is the guest's.
    assert [each.cpu for each in decoded(notes + CRASHED + note(b"QEMU", 0, bytes(432)))][:2] == [0, 1]


def test_memory_tells_which_cpus_the_notes_are_of(tmp_path: Path) -> None:
    memory = Memory({cpu: core(content) for cpu, content in SAVED.items()} | {3: b""})
    notes = decoded(core(SAVED[0]) + core(SAVED[2]) + core(prstatus(1, REGISTERS)) + CRASHED)
    told = with_cpus(notes, placed(tmp_path), memory.read)
    assert [(each.cpu, each.value) for each in told if isinstance(each, DecodedNote)] == [
        (0, "CPU 0: pr_pid 0, rip 0x10, rsp 0x13"),
        (2, "CPU 2: pr_pid 212, rip 0x10, rsp 0x13"),
        (None, "pr_pid 1, rip 0x10, rsp 0x13"),
        (None, "OSRELEASE=6.1.0 (2 lines)"),
    ]
    assert with_cpus(notes, placed(tmp_path, "crash_notes"), memory.read) == notes
