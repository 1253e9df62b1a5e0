"""Registers in a dump's notes and in what QEMU's monitor says: broken and hostile ones give none, never an error.

The monitor's text is of QEMU 7.2.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("drgn")

from support.elf_notes import note, prstatus

from kplug.errors import TargetError
from kplug.runtime.threads.cpu_registers import NoteRegisters, pt_regs_bytes
from kplug.runtime.threads.monitor_registers import MonitorRegisters, parse_registers

X86 = """\r
CPU#0\r
RAX=000000000001ad40 RBX=0000000000000000 RCX=0000000000000001 RDX=4000000000000000\r
R8 =0000000000000000 R9 =0000000000000007 R10=00000000fffffffb R11=0000000000000001\r
RIP=ffffffff8e017a0b RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\r
GS =0000 ffff8c520f600000 00000000 00000000\r
CR0=80050033 CR2=00000000005e22c0 CR3=000000000230e000 CR4=00750eb0\r
EFER=0000000000000d01\r
YMM00=0000000000000000 0000000000000000 0000000000000004 0302000100008881\r
\r
CPU#1\r
RAX=0000000000000005 RBX=0000000000000000\r
"""
ARM64 = """
CPU#0
 PC=ffff800080f0a0b4 X00=0000000000000000 X01=ffff800081e93d20
X30=ffff800080f0a0b0  SP=ffff800081e93d40
PSTATE=600003c5 -ZC- EL1h    FPU disabled
"""


def test_x86_registers() -> None:
    cpus = parse_registers(X86)
    assert sorted(cpus) == [0, 1]
    assert cpus[0] == {
        "rax": 0x1AD40,
        "rbx": 0,
        "rcx": 1,
        "rdx": 1 << 62,
        "r8": 0,
        "r9": 7,
        "r10": 0xFFFFFFFB,
        "r11": 1,
        "rip": 0xFFFFFFFF8E017A0B,
        "eflags": 0x246,
        "cs": 0x10,
        "gs": 0,
        "gs_base": 0xFFFF8C520F600000,
        "cr0": 0x80050033,
        "cr2": 0x5E22C0,
        "cr3": 0x230E000,
        "cr4": 0x750EB0,
        "efer": 0xD01,
    }


def test_arm64_registers() -> None:
    assert parse_registers(ARM64)[0] == {
        "pc": 0xFFFF800080F0A0B4,
        "x0": 0,
        "x1": 0xFFFF800081E93D20,
        "x30": 0xFFFF800080F0A0B0,
        "sp": 0xFFFF800081E93D40,
        "pstate": 0x600003C5,
    }


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    parse_registers("CPU#0\n" + text)


def test_pt_regs() -> None:
    data = pt_regs_bytes({"rip": 1, "rsp": 2, "r15": 3}, "x86_64", 168)
    assert data is not None
    assert len(data) == 168
    assert (struct.unpack_from("<Q", data)[0], *struct.unpack_from("<QQQQ", data, 128)) == (3, 1, 0, 0, 2)
    assert pt_regs_bytes({}, "x86_64", 168) is None
    assert pt_regs_bytes({"rip": 1}, "s390x", 168) is None
    assert pt_regs_bytes({"rip": 1}, "x86_64", 8) is None


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x7fELF\x02\x01", b"KDUMP   ", b"makedumpfile\0"]))
def test_any_file(tmp_path_factory: pytest.TempPathFactory, data: bytes, magic: bytes) -> None:
    path = tmp_path_factory.mktemp("notes") / "dump"
    path.write_bytes(magic + data)
    assert NoteRegisters(str(path), "x86_64").of(0) == {}


def test_notes_that_end_too_soon(tmp_path: Path) -> None:
    note = struct.pack("<III", 5, 336, 1) + b"CORE\0\0\0\0" + bytes(40)
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<H", header, 18, 62)
    struct.pack_into("<QQ", header, 32, 64, 0)
    struct.pack_into("<H", header, 56, 1)
    segment = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, 1 << 40, 0, 0)
    path = tmp_path / "dump"
    path.write_bytes(bytes(header) + segment + note)
    assert NoteRegisters(str(path), "x86_64").of(0) == {}
    assert NoteRegisters(str(tmp_path / "none"), "x86_64").of(0) == {}


def dump_with(notes: bytes) -> bytes:
    """An ELF core file of nothing but notes."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<II6Q", 4, 4, 120, 0, 0, len(notes), len(notes), 4) + notes


def test_notes_of_the_kernels_own_are_of_the_cpus_that_memory_tells(tmp_path: Path) -> None:
    first, second = prstatus(0, range(27)), prstatus(212, range(100, 127))
    path = tmp_path / "dump"
    notes = note(b"CORE", 1, first) + note(b"CORE", 1, second)
    path.write_bytes(dump_with(notes + note(b"VMCOREINFO", 0, b"OSRELEASE=6.1.0\nCRASHTIME=1796037712\n")))
    other = prstatus(1, range(27))
    registers = NoteRegisters(str(path), "x86_64", lambda: {0: first, 2: second, 3: other})
    assert registers.numbers() == [0, 2]
    assert [registers.of(cpu).get("rip") for cpu in range(4)] == [16, None, 116, None]

    def unknown() -> dict[int, bytes]:
        raise TargetError("there are no symbols")

    registers = NoteRegisters(str(path), "x86_64", unknown)
    assert registers.of(0) == {}
    with pytest.raises(TargetError, match=r"dump's 2 notes are of is not known: there are no symbols$"):
        registers.numbers()
    path.write_bytes(dump_with(notes))
    assert NoteRegisters(str(path), "x86_64", unknown).numbers() == [0, 1]


class Monitor:
    """A QMP server's side of a connection: answers what it is told to, once."""

    def __init__(self, *lines: bytes) -> None:
        ours, self._theirs = socket.socketpair()
        self.registers = MonitorRegisters(ours.fileno())
        ours.close()
        self._lines = lines
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._theirs:
            request = json.loads(self._theirs.recv(4096))
            for line in self._lines:
                self._theirs.sendall(line.replace(b"ID", request["id"].encode()) + b"\n")

    def ask(self, question: Callable[[MonitorRegisters], object] = lambda registers: registers.of(0)) -> object:
        try:
            return question(self.registers)
        finally:
            self._thread.join()


def test_the_monitors_answer() -> None:
    """What is no answer is passed over: events, another client's, the end of a line that drgn has begun to read."""
    answer = json.dumps({"return": X86, "id": "ID"}).encode()
    found = Monitor(b'amp": 5}}', b'{"event": "STOP"}', b'{"return": "", "id": "other"}', answer).ask()
    assert found == parse_registers(X86)[0]


def test_the_cpus_of_a_guest() -> None:
    answer = json.dumps({"return": X86, "id": "ID"}).encode()
    assert Monitor(answer).ask(MonitorRegisters.numbers) == sorted(parse_registers(X86))


@pytest.mark.parametrize("lines", [(), (b"[]",), (b'{"error": {}, "id": "ID"}',), (b'{"return": 5, "id": "ID"}',)])
def test_no_answer(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(TargetError, match="registers cannot be read"):
        Monitor(*lines).ask()
