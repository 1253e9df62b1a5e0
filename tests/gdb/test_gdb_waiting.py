"""What is seen at a terminal while an answer takes long: never nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.elf_builder import BASE_64, small_vmlinux
from support.gdbhelp import GDB, SCRIPT
from support.rsp_stub import SectionMemory, Stub
from support.terminal import terminal


def test_what_it_waits_for(tmp_path: Path) -> None:
    """Said after a second, and gone when there is an answer."""
    elf, path = small_vmlinux(), tmp_path / "vmlinux"
    path.write_bytes(bytes(elf))
    program = (shutil.which(GDB) or GDB, "-nx", "-q", "-iex", "set debuginfod enabled off", str(path))
    slow = SectionMemory(elf, 0x4000000, seconds=0.2)
    with (
        Stub(slow, {"rip": BASE_64 + 0x4000014}) as stub,
        terminal(folder=tmp_path, program=program) as person,
    ):
        person.prompt = r"\(gdb\) "
        person.is_asked()
        person.enters(f"source {SCRIPT}", "")
        person.enters(stub.command, "in ")
        person.type("kwhere $pc\r")
        person.sees(r"looking for the kernel \.\.\. \d+ s")
        person.sees("start_kernel\\+0x4")
        assert b" s\x1b[K\r\x1b[K" in person.raw  # the line is removed
        person.is_asked()
