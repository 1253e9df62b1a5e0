"""Registers of CPUs that drgn does not give: control registers in a dump's notes, all of a QEMU guest's by its monitor.

The monitor's text: x86_cpu_dump_state in QEMU's target/i386/cpu-dump.c, aarch64_cpu_dump_state in target/arm/cpu.c.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from kplug.arch.note_registers import prstatus_registers, qemu_registers
from kplug.arch.registers import monitor_names, registers_of
from kplug.arch.registry import named
from kplug.arch.types.word import WordFormat
from kplug.errors import InputError, TargetError
from kplug.files.opening import open_file
from kplug.image.elf.file import notes_in
from kplug.image.elf.notes import are_the_kernels_own
from kplug.memory.crash_notes import NT_PRSTATUS
from kplug.memory.dump_notes import note_bytes

_MAX_ANSWER_BYTES = 1 << 26
_ANSWER_SECONDS = 10.0


class CpuRegisters(Protocol):
    """Registers of each CPU by canonical name, current or from the time of the dump."""

    def of(self, cpu: int) -> Mapping[str, int]:
        """The registers of a CPU; empty if none are known. TargetError if they cannot be read any more."""

    def numbers(self) -> Sequence[int]:
        """The CPUs that have registers. TargetError, worded for the user, if it is not known which these are."""


# -- notes of a dump ---------------------------------------------------------------------------------------------------


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


# -- a guest -----------------------------------------------------------------------------------------------------------


class MonitorRegisters:
    """All registers of a guest's CPUs, through QEMU's monitor.

    `descriptor` is drgn's own QMP connection in command mode: QEMU serves one client at a time. Both send a command and
    wait for its answer, so they do not interfere; other messages are skipped.
    """

    def __init__(self, descriptor: int) -> None:
        self._connection = socket.socket(fileno=os.dup(descriptor))
        self._asked = 0

    def of(self, cpu: int) -> Mapping[str, int]:
        return self._all().get(cpu, {})

    def numbers(self) -> Sequence[int]:
        return sorted(self._all())

    def _all(self) -> Mapping[int, Mapping[str, int]]:
        return parse_registers(self._monitor("info registers -a"))

    def _monitor(self, command: str) -> str:
        self._asked += 1
        name = f"kplug-{self._asked}"
        arguments = {"command-line": command}
        request = {"execute": "human-monitor-command", "arguments": arguments, "id": name}
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            answer = self._answer(name)
        except OSError as error:
            why = "it does not answer" if isinstance(error, (TimeoutError, BlockingIOError)) else "it has gone away"
            raise TargetError(f"the guest's registers cannot be read: {why}") from None
        if not isinstance(answer, str):
            raise TargetError("the guest's registers cannot be read: QEMU's monitor has no such command")
        return answer

    def _answer(self, name: str) -> Any:
        deadline, data = time.monotonic() + _ANSWER_SECONDS, b""
        while time.monotonic() < deadline and len(data) < _MAX_ANSWER_BYTES:
            got = self._connection.recv(1 << 16)
            if not got:
                raise ConnectionError
            *lines, data = (data + got).split(b"\n")
            for line in lines:
                try:
                    message = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(message, dict) and message.get("id") == name:
                    return message.get("return")
        raise TimeoutError


_CPU = re.compile(r"^CPU#(\d+)\s*$", re.MULTILINE)
_SEGMENT = re.compile(r"\b([CDEFGS]S) =([0-9a-f]{4}) ([0-9a-f]{16})\b")
_VALUE = re.compile(r"\b(R[A-DSI0-9][A-Z0-9]?|RFL|CR[0-8]|EFER|X[0-9]{2}|SP|PC|PSTATE) ?=([0-9a-f]{8,16})\b")


def parse_registers(text: str) -> dict[int, dict[str, int]]:
    """The registers of each CPU in the text of `info registers -a`, by canonical name."""
    _, *parts = _CPU.split(text.replace("\r", ""))
    return {int(number): _parse_cpu(body) for number, body in zip(parts[::2], parts[1::2])}


def _parse_cpu(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    names = monitor_names()
    for name, value in _VALUE.findall(text):
        if name in names:
            found.setdefault(names[name], int(value, 16))
    for name, selector, base in _SEGMENT.findall(text):
        found[name.lower()] = int(selector, 16)
        if name in ("FS", "GS"):
            found[f"{name.lower()}_base"] = int(base, 16)
    return found


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
