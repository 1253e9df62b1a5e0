"""ELF cores: by virtual address, and by physical address only, where gdb serves the vmlinux's data.

Truth: what the guest itself said before it was dumped.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.gdb_expected import addresses_command, check_symbols, layer, listed, names_command, sample
from support.gdbhelp import PATIENT, run
from support.rsp_stub import registers_of

if TYPE_CHECKING:
    from vmimages import DumpSet, KernelFiles

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


def test_virtual_addresses(dumped: DumpSet, bare_61: Path, tmp_path: Path) -> None:
    symbols, kaslr_offset = sample(listed(dumped.truth), 150), dumped.truth.kaslr_offset(dumped.files)
    assert kaslr_offset
    by_address, by_name = addresses_command(symbols), names_command(symbols)
    session = run(
        ["set kplug lines off", by_address, by_name, "kaslr", "kplug", "kwhere --json $pc", "kwhere --json 0x1000000"],
        tmp_path, vmlinux=bare_61, before=[f"core-file {dumped.paths['elf-paging']}"],
    )  # fmt: skip
    check_symbols(session[by_address].json, symbols, kaslr_offset)
    check_symbols(session[by_name].json, symbols, kaslr_offset)
    # What was freed after boot may or may not be in the dump; of what was not there is all.
    kept = [answer for answer in session[by_address].json if answer["class"] in ("text", "data")]
    assert kept
    assert all(answer["state"]["mapped"] for answer in kept)
    assert "KERNELOFFSET of the core's VMCOREINFO: +" + hex(kaslr_offset) in session["kaslr"].text
    assert str(dumped.paths["elf-paging"]) in session["kplug"].text
    assert (
        int(session["kwhere --json $pc"].json[0]["address"], 16)
        == registers_of((dumped.root / "truth" / "registers").read_text())["rip"]
    )
    assert session["kwhere --json 0x1000000"].json[0]["state"]["mapped"] is None


def test_applied(dumped: DumpSet, tmp_path: Path) -> None:
    session = run(
        ["kaslr --apply", "p init_task.comm", "kwhere --json schedule", "p/x (unsigned long)&init_task", "kaslr",
         "kwhere --json init_task.stack", "info line schedule"],
        tmp_path, vmlinux=dumped.files.vmlinux, before=[f"core-file {dumped.paths['elf-paging']}"],
    )  # fmt: skip
    address = dumped.truth.address
    assert '"swapper/0' in session["p init_task.comm"].text
    assert f"{address('init_task'):#x}" in session["p/x (unsigned long)&init_task"].text
    (answer,) = session["kwhere --json schedule"].json
    assert int(answer["address"], 16) == address("schedule")
    assert layer(answer, "line")["details"]["file"] == "kernel/sched/core.c"
    assert f"{address('schedule'):#x}" in session["info line schedule"].text
    assert layer(session["kwhere --json init_task.stack"].json[0], "region")["name"] == "init_stack"


def test_physical_only(dumped: DumpSet, tmp_path: Path) -> None:
    symbols, kaslr_offset = sample(listed(dumped.truth), 40), dumped.truth.kaslr_offset(dumped.files)
    command = addresses_command(symbols)
    address = dumped.truth.address
    reading = ["kwhere *(void **)$sp", "kwhere init_task.stack", "p $kwhere(*(void **)$sp)", "kwhere *(long *)$sp + 8"]
    session = run([command, "kplug", "kaslr", "kwhere --json $sp", "kaslr --apply", "kwhere --json $pc",
                   "kwhere --json (long)&linux_banner", "p $kwhere(schedule)", *reading], tmp_path,
                  vmlinux=dumped.files.vmlinux, before=[f"core-file {dumped.paths['elf']}"])  # fmt: skip
    for question in reading:
        assert "physical addresses only" in session[question].complaint, question
    assert int(session["kwhere --json (long)&linux_banner"].json[0]["address"], 16) == address("linux_banner")
    assert '"schedule+0x0 ' in session["p $kwhere(schedule)"].text
    for question in ("kaslr", "kaslr --apply"):
        assert "physical addresses only" in session[question].text, question
    answers = session[command].json
    for answer in answers:
        (warning,) = answer.pop("warnings")
        assert "physical addresses only" in warning
        assert "drgn" in warning
        assert answer["state"]["mapped"] is not False  # by the page tables, where drgn is asked
        answer["warnings"] = []
    check_symbols(answers, symbols, kaslr_offset)
    assert "physical addresses only" in session["kplug"].text


def without_vmcoreinfo(source: Path, target: Path) -> None:
    """A dump whose VMCOREINFO is not recognised; the memory is shared with the original by hard disk blocks alone."""
    data = source.open("rb").read(1 << 16)
    at = data.index(b"VMCOREINFO\0")
    with target.open("wb") as out, source.open("rb") as file:
        while chunk := file.read(1 << 24):
            if chunk.strip(b"\0"):
                out.write(chunk)
            else:
                out.seek(len(chunk), 1)
        out.truncate()
    with target.open("r+b") as out:
        out.seek(at)
        out.write(b"NOTHINGATA")


def test_without_vmcoreinfo(dumped: DumpSet, bare_61: Path, tmp_path: Path) -> None:
    kaslr_offset = dumped.truth.kaslr_offset(dumped.files)
    for name in ("elf-paging", "elf"):
        without_vmcoreinfo(dumped.paths[name], tmp_path / name)
        session = run(["kaslr --json", "kwhere schedule", "kplug"], tmp_path, vmlinux=bare_61,
                      before=[f"core-file {tmp_path / name}"])  # fmt: skip
        if name == "elf-paging":
            assert session["kaslr --json"].json[0]["slide"] == hex(kaslr_offset)
        else:
            assert "where the kernel was is not known" in session["kwhere schedule"].complaint
            assert "where the kernel was is not known" in session["kplug"].text
        (tmp_path / name).unlink()


def test_of_another_kernel(dumped: DumpSet, kernel_612: KernelFiles, bare_612: Path, tmp_path: Path) -> None:
    without_vmcoreinfo(dumped.paths["elf-paging"], tmp_path / "bare")
    session = run([PATIENT, "kaslr"], tmp_path, vmlinux=bare_612, before=[f"core-file {tmp_path / 'bare'}"])
    complaint = session["kaslr"].complaint
    assert kernel_612.release in complaint
    assert dumped.files.release in complaint  # from the banner in the dump's memory
    for name in ("elf-paging", "elf"):
        session = run([PATIENT, "kwhere schedule", "kaslr", "p $kclass(0xffffffff81000000)", "kplug"], tmp_path,
                      vmlinux=bare_612, before=[f"core-file {dumped.paths[name]}"])  # fmt: skip
        for command in ("kwhere schedule", "kaslr", "p $kclass(0xffffffff81000000)"):
            complaint = session[command].complaint
            assert kernel_612.release in complaint
            assert dumped.files.release in complaint
            assert dumped.files.build_id in complaint


def test_truncated(dumped: DumpSet, bare_61: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(dumped.paths["elf-paging"].open("rb").read(1 << 20))
    session = run(["kwhere schedule", "kwhere schedule ", "kaslr"], tmp_path, vmlinux=bare_61,
                  before=[f"core-file {short}"])  # fmt: skip
    assert session["kwhere schedule"].complaint
    assert session["kaslr"].complaint


def test_without_the_kernels_memory(dumped: DumpSet, bare_61: Path, bare_612: Path, tmp_path: Path) -> None:
    """Dumped by a program's page tables: the note alone says where the kernel was, and its build ID which one."""
    with dumped.paths["elf-paging"].open("rb") as file:
        header = bytearray(file.read(64))
        file.seek(struct.unpack_from("<Q", header, 32)[0])
        note = bytearray(file.read(56))
        offset, size = struct.unpack_from("<Q", note, 8)[0], struct.unpack_from("<Q", note, 32)[0]
        file.seek(offset)
        notes = file.read(size)
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<H", header, 56, 2)
    struct.pack_into("<HHH", header, 58, 64, 0, 0)
    struct.pack_into("<Q", header, 40, 0)
    struct.pack_into("<Q", note, 8, 4096)
    load = struct.pack("<IIQQQQQQ", 1, 0, 12288, 0xFFFFFE0000001000, 0x1000, 4096, 4096, 0)
    data = (bytes(header) + note + load).ljust(4096, b"\0") + notes.ljust(8192, b"\0")
    (tmp_path / "hardly").write_bytes(data + bytes(4096))
    assert len(notes) <= 8192
    symbols, kaslr_offset = sample(listed(dumped.truth), 40), dumped.truth.kaslr_offset(dumped.files)
    command = addresses_command(symbols)
    session = run([command, "kaslr"], tmp_path, vmlinux=bare_61, before=[f"core-file {tmp_path / 'hardly'}"])
    answers = session[command].json
    for answer in answers:
        (warning,) = answer["warnings"]
        assert "does not hold the kernel's memory" in warning
        answer["warnings"] = []
    check_symbols(answers, symbols, kaslr_offset)
    assert "BUILD-ID" in session["kaslr"].text
    (tmp_path / "silent").write_bytes(data.replace(b"KERNELOFFSET=", b"NOTHINGATALL=") + bytes(4096))
    session = run(["kaslr"], tmp_path, vmlinux=bare_61, before=[f"core-file {tmp_path / 'silent'}"])
    assert "another kernel" not in session["kaslr"].complaint
    assert "of this kernel" in session["kaslr"].complaint
    session = run(["kaslr"], tmp_path, vmlinux=bare_612, before=[f"core-file {tmp_path / 'hardly'}"])
    assert dumped.files.release in session["kaslr"].complaint


def test_cpus_of_a_dump_that_the_kernel_itself_made(tmp_path: Path) -> None:
    """gdb's threads are the notes, and their place is not their CPU: CPU 1 was offline."""
    from vmimages import kexec_dumps

    crashed = kexec_dumps("amd64-6.1", quiet=True)
    session = run(
        ["knotes --json", "thread 2", "kwhere --json $pc", "klog --plain", "klog -e"],
        tmp_path, vmlinux=crashed.files.vmlinux, before=[f"core-file {crashed.paths['vmcore']}"],
    )  # fmt: skip
    notes = [row for row in session["knotes --json"].json if row["name"] == "PRSTATUS"]
    assert [row["cpu"] for row in notes] == [0, 2, 3]
    (answer,) = session["kwhere --json $pc"].json
    assert answer["address"] == notes[1]["registers"]["rip"]
    assert layer(answer, "symbol")["name"] == "__crash_kexec"
    said = [line for line in crashed.truth.text("console").splitlines() if line.startswith("[")]
    shown = session["klog --plain"].text.splitlines()
    assert shown[shown.index(said[0]) :] == said
    (event,) = session["klog -e"].text.splitlines()
    assert "  kernel panic: sysrq triggered crash  sh " in event
