"""Registers of CPUs that drgn does not give: control registers in a dump's notes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kplug.arch.note_registers import prstatus_registers, qemu_registers
from kplug.arch.registers import registers_of
from kplug.arch.registry import named
from kplug.arch.types.word import WordFormat
from kplug.errors import InputError, TargetError
from kplug.files.opening import open_file
from kplug.image.elf.file import notes_in
from kplug.image.elf.notes import are_the_kernels_own
from kplug.memory.crash_notes import NT_PRSTATUS
from kplug.memory.dump_notes import note_bytes


class CpuRegisters(Protocol):
    """Registers of each CPU by canonical name, current or from the time of the dump."""

    def of(self, cpu: int) -> Mapping[str, int]:
        """The registers of a CPU; empty if none are known. TargetError if they cannot be read any more."""

    def numbers(self) -> Sequence[int]:
        """The CPUs that have registers. TargetError, worded for the user, if it is not known which these are."""


class NoteRegisters:
    """The registers in a dump's notes: each CPU's PRSTATUS, and the control registers that QEMU adds.

    QEMU's notes are of all CPUs in their order. Which CPUs' a kernel's own are, `saved` says: the content of each
    CPU's PRSTATUS note as the kernel's memory has it, or a TargetError. makedumpfile keeps all of them. `machine` is
    the kernel's own name; an unknown one has no registers.
    """

    def __init__(self, path: str, machine: str | None, saved: Callable[[], Mapping[int, bytes]] = dict) -> None:
        self._path = path
        self._names = registers_of(machine or "").user_regs
        self._saved = saved
        self._cpus: Mapping[int, Mapping[str, int]] | None = None
        self._problem: str | None = None

    def of(self, cpu: int) -> Mapping[str, int]:
        return self._known().get(cpu, {})

    def numbers(self) -> Sequence[int]:
        known = self._known()
        if self._problem is not None:
            raise TargetError(self._problem)
        return sorted(known)

    def _known(self) -> Mapping[int, Mapping[str, int]]:
        if self._cpus is None:
            self._cpus = self._read()
        return self._cpus

    def _read(self) -> Mapping[int, Mapping[str, int]]:
        """Empty if the file has no such notes, or they are broken: they are optional."""
        if not self._names:
            return {}
        general: list[bytes] = []
        control: list[dict[str, int]] = []
        try:
            with open_file(self._path) as file:
                data, little_endian = note_bytes(self._path, file)
            for note in notes_in(data, little_endian):
                if note.owner == "CORE" and note.type == NT_PRSTATUS:
                    general.append(note.description)
                elif note.owner == "QEMU":
                    control.append(qemu_registers(note.description))
            by_cpu = self._by_cpu(general) if are_the_kernels_own(data) else dict(enumerate(general))
            registers = {cpu: prstatus_registers(note, self._names, little_endian) for cpu, note in by_cpu.items()}
        except (InputError, OSError, struct.error):
            return {}
        for cpu, more in enumerate(control):
            registers.setdefault(cpu, {}).update(more)
        return registers

    def _by_cpu(self, notes: Sequence[bytes]) -> Mapping[int, bytes]:
        """Notes that the kernel wrote, by CPU; none if that cannot be found out."""
        try:
            saved = self._saved()
        except TargetError as error:
            self._problem = f"which CPUs the registers of the dump's {len(notes)} notes are of is not known: {error}"
            return {}
        return {cpu: note for cpu, note in saved.items() if note in notes}


def pt_regs_bytes(
    registers: Mapping[str, int], machine: str, size: int, word: WordFormat | None = None
) -> bytes | None:
    """The registers as the bytes of a struct pt_regs of that size; None for an architecture that is not known. Words
    are as the machine usually has them, or as `word` says.
    """
    order = registers_of(machine).pt_regs
    if not order or not registers:
        return None
    data = (word or named(machine).word()).packed(registers.get(name, 0) for name in order)
    return data.ljust(size, b"\0")[:size] if size >= len(data) else None
