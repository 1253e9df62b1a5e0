"""A vmlinux whose debug information is in another file, which is not there."""

from __future__ import annotations

from pathlib import Path

from support.elf_builder import BASE_64, Sec, small_vmlinux
from support.gdbhelp import run
from support.rsp_stub import SectionMemory, Stub


def test_the_file_is_named(tmp_path: Path) -> None:
    """With every answer and in `kplug`; it is no reason to doubt where the kernel is."""
    elf, path = small_vmlinux(), tmp_path / "vmlinux"
    elf.sections.append(Sec(".gnu_debuglink", data=b"gone.debug\0\0" + bytes(4), align=4))
    path.write_bytes(bytes(elf))
    with Stub(SectionMemory(elf, 0), {"rip": BASE_64 + 0x14}) as stub:
        session = run(["kwhere --json $pc", "kplug", "kaslr --apply"], tmp_path, vmlinux=path, before=[stub.command])
    (answer,) = session["kwhere --json $pc"].json
    (warning,) = answer["warnings"]
    assert "gone.debug" in warning
    assert "gone.debug" in session["kplug"].text
    assert session["kaslr --apply"].text.startswith("gdb's symbols are at 0x0 already\n")
