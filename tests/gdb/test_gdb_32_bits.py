"""Machines of 32 bits, whose stubs send registers of that width: a kernel made here, i386's and arm's."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from support.elf_builder import BANNER, BASE_32, Elf, small_vmlinux
from support.gdbhelp import GDB_OF_ALL, run
from support.rsp_stub import SectionMemory, Stub

EM_ARM = 40
MOVED = 0x4000000
KERNEL_CODE, USER_CODE = 0x60, 0x73  # i386's selectors
SUPERVISOR, USER = 0x13, 0x10  # arm's modes


class I386Stub(Stub):
    def _register_bytes(self) -> bytes:
        names = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "eip", "eflags", "cs")
        return struct.pack("<16I", *(self.registers.get(name, 0) for name in names), *(0,) * 5)


class ArmStub(Stub):
    def _register_bytes(self) -> bytes:
        values = [self.registers.get(name, 0) for name in (*(f"r{number}" for number in range(13)), "sp", "lr", "pc")]
        return struct.pack("<16I", *values) + bytes(8 * 12 + 4) + struct.pack("<I", self.registers["cpsr"])


def _kernel(tmp_path: Path, **changes: int) -> tuple[Elf, Path]:
    elf, path = small_vmlinux(32, **changes), tmp_path / "vmlinux"
    path.write_bytes(bytes(elf))
    return elf, path


def test_i386(tmp_path: Path) -> None:
    elf, path = _kernel(tmp_path)
    text = BASE_32 + MOVED
    registers = {"eip": text + 0x14, "esp": text + 0x2010, "eax": text + 0x48, "cs": KERNEL_CODE}
    with I386Stub(SectionMemory(elf, MOVED), registers) as stub:
        session = run(
            ["kwhere --json $pc", "kwhere --json $eax $esp", "kwhere --json (long)$eax", "kregs --json", "kaslr",
             f"kwhere -b {text + 0x14 | 0xFFFFFFFF00000000:#x}"],
            tmp_path, vmlinux=path, before=[stub.command],
        )  # fmt: skip
    (where,) = session["kwhere --json $pc"].json
    assert int(where["address"], 16) == text + 0x14
    assert where["summary"].startswith("start_kernel+0x4 ")
    assert where["state"]["mapped"] is True
    assert [int(each["address"], 16) for each in session["kwhere --json $eax $esp"].json] == [
        registers[name] for name in ("eax", "esp")
    ]
    assert session["kwhere --json (long)$eax"].json[0]["summary"].startswith("twin+0x8 ")
    values = {row["name"]: row["value"] for row in session["kregs --json"].json if "name" in row}
    assert int(values["eax"], 16) == registers["eax"]
    assert "banner and build ID found there" in session["kaslr"].text
    # A machine of 32 bits has no such address.
    assert session[f"kwhere -b {text + 0x14 | 0xFFFFFFFF00000000:#x}"].text.split()[1:] == ["unknown"]


def test_i386_in_user_mode(tmp_path: Path) -> None:
    """Its kernel is within a window of 512 MiB; if it is not mapped, that may be page-table isolation."""
    elf, path = _kernel(tmp_path)
    registers = {"eip": 0x8048000, "esp": 0xBFFFF000, "cs": USER_CODE}
    memory = SectionMemory(elf, MOVED)
    with I386Stub(memory, registers) as stub, I386Stub(memory, registers, unreadable=True) as blind:
        session = run(
            ["kwhere --json start_kernel", "disconnect", blind.command, "kwhere start_kernel"],
            tmp_path, vmlinux=path, before=[stub.command],
        )  # fmt: skip
    assert int(session["kwhere --json start_kernel"].json[0]["address"], 16) == BASE_32 + MOVED + 0x10
    assert "in user mode, where the kernel may not be mapped" in session["kwhere start_kernel"].complaint


def test_arm(tmp_path: Path) -> None:
    """And another kernel with the same symbols is told apart."""
    if GDB_OF_ALL is None:
        pytest.skip("no gdb-multiarch")
    elf, path = _kernel(tmp_path, machine=EM_ARM)
    other = small_vmlinux(32, machine=EM_ARM)
    rodata = next(each for each in other.sections if each.name == ".rodata")
    rodata.data = BANNER.replace(b"6.99.0", b"6.98.7").ljust(0x80, b"\0")
    registers = {"pc": BASE_32 + 0x14, "sp": BASE_32 + 0x2010, "r0": BASE_32 + 0x48, "cpsr": SUPERVISOR}
    with (
        ArmStub(SectionMemory(elf, 0), registers) as stub,
        ArmStub(SectionMemory(other, 0), {**registers, "cpsr": USER}) as another,
    ):
        session = run(
            ["kwhere --json $pc", "kwhere --json $r0", "kaslr", "disconnect", another.command, "kwhere $pc"],
            tmp_path, vmlinux=path, before=[stub.command], program=GDB_OF_ALL,
        )  # fmt: skip
    assert session["kwhere --json $pc"].json[0]["summary"].startswith("start_kernel+0x4 ")
    assert session["kwhere --json $r0"].json[0]["summary"].startswith("twin+0x8 ")
    assert "not moved: +0x0: banner and build ID found there" in session["kaslr"].text
    assert "6.99.0-test" in session["kwhere $pc"].complaint
    assert "6.98.7-test" in session["kwhere $pc"].complaint


def test_machines_whose_memory_is_searched(tmp_path: Path) -> None:
    """Those with a table of exception handlers, or a memory map, where the program counter may lead to the kernel."""
    if GDB_OF_ALL is None:
        pytest.skip("no gdb-multiarch")
    asked = "python from kplug_gdb import unnamed; print(unnamed.searched_machine())"
    names = {"i386": "i386", "arm": "arm", "i386:x86-64": "x86_64", "riscv:rv64": "riscv64", "mips": "None"}
    commands = [line for name in names for line in (f"set architecture {name}", asked)]
    session = run(commands, tmp_path, program=GDB_OF_ALL)
    assert [result.text.strip() for result in session.all(asked)] == list(names.values())
