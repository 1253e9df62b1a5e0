"""Registers of CPUs that drgn does not give: control registers in a dump's notes, all of a QEMU guest's by its monitor.

QEMU's note: struct QEMUCPUState in its target/i386/arch_dump.c. The monitor's text: x86_cpu_dump_state in
target/i386/cpu-dump.c, aarch64_cpu_dump_state in target/arm/cpu.c.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, BinaryIO, Protocol

from kplug.cpu.registers import canonical
from kplug.errors import InputError, TargetError
from kplug.image.elf import notes_in, open_file
from kplug.runtime.dump_header import unflattened_head

_MAX_NOTES_BYTES = 1 << 26
_MAX_ANSWER_BYTES = 1 << 26
_ANSWER_SECONDS = 10.0


class CpuRegisters(Protocol):
    """Registers of each CPU by canonical name, as they are now, or were when the dump was made."""

    def of(self, cpu: int) -> Mapping[str, int]:
        """Those of a CPU; empty if nothing is known of it. TargetError if they cannot be had any more."""


# -- notes of a dump ---------------------------------------------------------------------------------------------------

# version and size; rax rbx rcx rdx rsi rdi rsp rbp r8-r15 rip rflags; ten segments of 24 bytes; cr0-cr4; and
# kernel_gs_base, which QEMU has since 3.0 (the size tells).
_QEMU_CONTROL = 8 + 18 * 8 + 10 * 24
_QEMU_KERNEL_GS = _QEMU_CONTROL + 5 * 8


class NoteRegisters:
    """The registers in a dump's notes: each CPU's PRSTATUS, and the control registers that QEMU adds.

    CPUs are counted as their notes come. makedumpfile keeps both. `machine` is the kernel's own name of it; of one that
    is not known here there are no registers.
    """

    def __init__(self, path: str, machine: str | None) -> None:
        self._path = path
        self._names = _USER_REGS.get(machine or "", ())
        self._cpus: Sequence[Mapping[str, int]] | None = None

    def of(self, cpu: int) -> Mapping[str, int]:
        if self._cpus is None:
            self._cpus = self._read()
        return self._cpus[cpu] if 0 <= cpu < len(self._cpus) else {}

    def _read(self) -> Sequence[Mapping[str, int]]:
        """None where the file has no such notes, or they are broken: nothing hangs on them."""
        if not self._names:
            return ()
        general: list[dict[str, int]] = []
        control: list[dict[str, int]] = []
        try:
            with open_file(self._path) as file:
                for note in notes_in(_notes(self._path, file), little_endian=True):
                    if note.owner == "CORE" and note.type == _NT_PRSTATUS:
                        general.append(_prstatus(note.description, self._names))
                    elif note.owner == "QEMU":
                        control.append(_qemu_note(note.description))
        except (InputError, OSError, struct.error):
            return ()
        none: dict[str, int] = {}
        return tuple({**one, **more} for one, more in zip_longest(general, control, fillvalue=none))


# struct elf_prstatus (include/linux/elfcore.h): what comes before pr_reg, a struct user_regs_struct (arm64:
# user_pt_regs).
_NT_PRSTATUS, _PR_REG = 1, 112
_ARM64_USER_REGS = (*(f"x{number}" for number in range(31)), "sp", "pc", "pstate")
_USER_REGS: Mapping[str, tuple[str, ...]] = {
    "x86_64": (
        *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", ""),
        *("rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
    ),
    "aarch64": _ARM64_USER_REGS,
}


def _prstatus(data: bytes, names: Sequence[str]) -> dict[str, int]:
    values = struct.unpack_from(f"<{len(names)}Q", data, _PR_REG)
    return {name: value for name, value in zip(names, values) if name}


def _notes(path: str, file: BinaryIO) -> bytes:
    """The bytes of the notes of a 64-bit dump, ELF or kdump-compressed; empty for another file."""
    head = file.read(1 << 14)
    flattened = head.startswith(b"makedumpfile\0")
    if flattened:
        head = unflattened_head(path, file)
    if head.startswith(b"\x7fELF\x02\x01"):
        table, count = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<H", head, 56)[0]
        headers = _at(head if flattened else file, table, 56 * count)
        for place in range(0, len(headers) - 55, 56):
            kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", headers, place)
            if kind == 4:
                return _at(head if flattened else file, offset, size)
    if head.startswith(b"KDUMP   "):
        # struct kdump_sub_header is in the second block; (offset_note, size_note) in it since version 4.
        version, block = struct.unpack_from("<i", head, 8)[0], struct.unpack_from("<i", head, 428)[0]
        if version >= 4 and 0 < block <= len(head) - 64:
            return _at(head if flattened else file, *struct.unpack_from("<QQ", head, block + 48))
    return b""


def _at(file: BinaryIO | bytes, offset: int, size: int) -> bytes:
    if size > _MAX_NOTES_BYTES or offset > 1 << 62:
        return b""
    if isinstance(file, bytes):
        return file[offset : offset + size]
    file.seek(offset)
    return file.read(size)


def _qemu_note(data: bytes) -> dict[str, int]:
    """The registers of struct QEMUCPUState that PRSTATUS does not have; none of another version of it."""
    if len(data) < _QEMU_KERNEL_GS or struct.unpack_from("<I", data)[0] != 1:
        return {}
    cr0, _, cr2, cr3, cr4 = struct.unpack_from("<5Q", data, _QEMU_CONTROL)
    found = {"cr0": cr0, "cr2": cr2, "cr3": cr3, "cr4": cr4}
    if struct.unpack_from("<I", data, 4)[0] >= _QEMU_KERNEL_GS + 8 <= len(data):
        found["k_gs_base"] = struct.unpack_from("<Q", data, _QEMU_KERNEL_GS)[0]
    return found


# -- a guest -----------------------------------------------------------------------------------------------------------


class MonitorRegisters:
    """All registers of a guest's CPUs, by QEMU's monitor.

    `descriptor` is a QMP connection in command mode, drgn's own: QEMU serves one client at a time. Both ask and then
    wait for the answer, so their words do not mix; what is no answer to a question is passed over.
    """

    def __init__(self, descriptor: int) -> None:
        self._connection = socket.socket(fileno=os.dup(descriptor))
        self._asked = 0

    def of(self, cpu: int) -> Mapping[str, int]:
        return parse_registers(self._monitor("info registers -a")).get(cpu, {})

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
    for name, value in _VALUE.findall(text):
        machine = "aarch64" if name[0] == "X" or name in ("SP", "PC", "PSTATE") else "x86_64"
        lower = f"x{int(name[1:])}" if name[0] == "X" else "eflags" if name == "RFL" else name.lower()
        found.setdefault(canonical(lower, machine)[0], int(value, 16))
    for name, selector, base in _SEGMENT.findall(text):
        found[name.lower()] = int(selector, 16)
        if name in ("FS", "GS"):
            found[f"{name.lower()}_base"] = int(base, 16)
    return found


# struct pt_regs, both in their order since ever: drgn unwinds from one.
_X86_64_PT_REGS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi", ""),
    *("rip", "cs", "eflags", "rsp", "ss"),
)
_ARM64_PT_REGS = _ARM64_USER_REGS


def pt_regs_bytes(registers: Mapping[str, int], machine: str, size: int) -> bytes | None:
    """The registers as the bytes of a struct pt_regs of that size; None for an architecture that is not known."""
    order = {"x86_64": _X86_64_PT_REGS, "aarch64": _ARM64_PT_REGS}.get(machine)
    if order is None or not registers:
        return None
    data = b"".join(struct.pack("<Q", registers.get(name, 0)) for name in order)
    return data.ljust(size, b"\0")[:size] if size >= len(data) else None
