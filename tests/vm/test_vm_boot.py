"""Real boots: the machine comes up, says the truth about itself, stops where it is asked to, and can be dumped."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import vmimages
from vmimages import VM, DumpSet, GroundTruth, VMError, dumping, elf, modules, options

pytestmark = pytest.mark.boot
LINK_TEXT = 0xFFFFFFFF81000000
NAMES = ("amd64-6.1", "amd64-6.12")


@pytest.fixture(scope="module", params=vmimages.names(bootable=True))
def vm(request: pytest.FixtureRequest) -> Iterator[VM]:
    with vmimages.boot(request.param, quiet=True) as machine:
        yield machine


@pytest.fixture(scope="module")
def truth(vm: VM) -> GroundTruth:
    return vm.truth()


@pytest.fixture(scope="module", params=NAMES)
def dumps(request: pytest.FixtureRequest) -> DumpSet:
    return vmimages.dumps(request.param, quiet=True)


def test_truth(vm: VM, truth: GroundTruth) -> None:
    kaslr_offset = truth.kaslr_offset(vm.files)
    # KASLR: the image moved, by whole 2 MiB.
    if kaslr_offset == 0:  # chance has it so once in some 500 boots
        with vmimages.boot(vm.files.name, quiet=True) as other:
            assert other.truth().kaslr_offset(vm.files) != 0
    assert kaslr_offset % (2 << 20) == 0
    if vm.files.arch == "amd64":  # and stayed in the area of 1 GiB that the kernel has for it
        assert truth.address("_text") == LINK_TEXT + kaslr_offset < LINK_TEXT + (1 << 30)
    assert truth.build_id == vm.files.build_id
    assert vm.files.release in truth.text("version")
    assert len(truth.symbols) > 50_000
    # The direct map and vmalloc are there under true addresses, not hashes of them.
    assert truth.text("vmallocinfo").startswith("0xffff")
    assert "Kernel code" in truth.text("iomem")
    assert "00000000-00000000" not in truth.text("iomem")
    assert truth.address("init_task") not in (0, LINK_TEXT)
    for name in ("loop", "drop_monitor", "br_netfilter", "bridge", "qemu_fw_cfg"):
        base, size = truth.modules[name]
        text = truth.module_sections[name][".text"]
        assert base <= text < base + size


def test_debug_modules_are_the_loaded_ones(vm: VM, truth: GroundTruth) -> None:
    twins = {modules.module_name(path.name): path for path in vm.files.debug_modules.rglob("*.ko*")}
    common = truth.module_build_ids.keys() & twins.keys()
    assert {"loop", "drop_monitor", "br_netfilter", "bridge"} <= common
    for name in common:
        assert elf.build_id(twins[name]) == truth.module_build_ids[name]


def test_commands_in_the_guest(vm: VM) -> None:
    assert vm.run("echo a; echo b >&2") == "a\nb\n"
    assert vm.run_bytes("printf '\\000\\377'; exit 3") == (3, b"\x00\xff")
    assert (
        vm.read_file("/proc/cmdline").decode().split() == options.kernel_command_line(vm.options, vm.files.arch).split()
    )
    with pytest.raises(VMError, match="status 1"):
        vm.run("false")
    with pytest.raises(VMError, match="no-such"):
        vm.read_file("/no-such")


def test_stop_and_go_on(vm: VM) -> None:
    vm.stop()
    assert vm.qmp.status() == "paused"
    with pytest.raises(VMError, match="stopped"):
        vm.run("echo late", timeout=0.5)
    vm.cont()
    assert vm.run("echo now") == "now\n"
    assert re.search(r"\b(RIP|PC)=", vm.monitor("info registers"))


def test_files_and_process_go_away() -> None:
    with vmimages.boot(NAMES[0], quiet=True, cpus=1, memory=128, gdb="tcp") as machine:
        run_dir, pid = machine.run_dir, machine.pid
        assert machine.gdb.startswith("127.0.0.1:")
        assert machine.info()["vmlinux"] == str(machine.files.vmlinux)
        assert run_dir.exists()
    assert not run_dir.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(VMError, match="ended"):
        machine.stop()


@pytest.mark.parametrize("name", NAMES)
def test_user_mode_under_page_table_isolation(name: str) -> None:
    # The one is busy from the start on, the other once it has told its truth, which takes thrice as long else.
    early = name == NAMES[0]
    with vmimages.boot(name, quiet=True, pti=True, spin=1 if early else None, kaslr=False) as machine:
        truth = machine.truth()
        if not early:
            machine.spin(1)
        assert truth.kaslr_offset(machine.files) == 0
        assert "pti" in machine.run("grep -m1 flags /proc/cpuinfo").split()
        machine.stop_in_user_mode(1)
        assert machine.privileges() == [0, 3]
        # CPU 1 has page tables of its own kind, in which the kernel's text isn't mapped.
        for address in (LINK_TEXT, truth.address("init_task")):
            assert "Cannot access memory" in machine.monitor(f"x/1xb {address:#x}", cpu=1)
            assert "Cannot access memory" not in machine.monitor(f"x/1xb {address:#x}", cpu=0)


def test_paused_at_reset() -> None:
    with vmimages.boot(NAMES[0], quiet=True, paused=True) as machine:
        assert machine.qmp.status() == "prelaunch"
        assert machine.boot_seconds is None
        machine.cont()
        machine.wait_ready()
        assert machine.run("echo up") == "up\n"


def test_another_architecture_stops_in_user_mode_too() -> None:
    with vmimages.boot("arm64-6.12", quiet=True, pti=True, kaslr=False, cpu="cortex-a72") as machine:
        truth = machine.truth()
        machine.spin(1)
        assert truth.kaslr_offset(machine.files) == 0
        assert "0xd08" in truth.text("cpuinfo")  # Cortex-A72's part number
        machine.stop_in_user_mode(1)
        assert machine.privileges() == [0, 3]
        assert not [name for name in dumping.available(machine) if "paging" in name]


def test_five_levels_and_four_cpus() -> None:
    with vmimages.boot("amd64-6.12", quiet=True, la57=True, cpus=4, memory=512, threads="multi") as machine:
        assert machine.run("nproc") == "4\n"
        assert "la57" in machine.run("grep -m1 flags /proc/cpuinfo").split()


def test_guest_that_panics() -> None:
    with pytest.raises(VMError, match=r"QEMU ended with status 0: .*Kernel panic"):
        vmimages.boot(NAMES[0], quiet=True, append=("rdinit=/no-such-init", "root=/dev/no"))


def test_guest_that_is_too_slow() -> None:
    with pytest.raises(VMError, match=r"isn't ready after 1 s; its last words"):
        vmimages.boot(NAMES[0], quiet=True, timeout=1)


def test_qemu_that_refuses() -> None:
    with pytest.raises(VMError, match=r"QEMU ended with status 1: .*no-such-device"):
        vmimages.boot(NAMES[0], quiet=True, devices=("-device", "no-such-device"))


def readelf(path: Path, *flags: str) -> str:
    return subprocess.run(
        ["readelf", *flags, "-W", path],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout


def test_elf_dumps(dumps: DumpSet) -> None:
    physical, virtual = (readelf(dumps.paths[name], "-hl") for name in ("elf", "elf-paging"))
    for text in (physical, virtual):
        assert "CORE (Core file)" in text
        assert "X86-64" in text
    loads = [line.split() for line in physical.splitlines() if line.strip().startswith("LOAD")]
    assert {int(row[2], 16) for row in loads} <= {0, *(int(row[3], 16) for row in loads)}
    assert sum(int(row[4], 16) for row in loads) >= 256 << 20
    # By virtual address: the image is mapped where the guest says that it is.
    start = dumps.truth.address("_text")
    rows = [line.split() for line in virtual.splitlines() if line.strip().startswith("LOAD")]
    assert any(int(row[2], 16) <= start < int(row[2], 16) + int(row[5], 16) for row in rows)


@pytest.mark.parametrize("name", ["elf", "elf-paging", "makedumpfile-elf"])
def test_vmcoreinfo_is_in_the_dump(dumps: DumpSet, name: str) -> None:
    if name not in dumps.paths:
        pytest.skip(f"this host can't write {name}")
    assert "VMCOREINFO" in readelf(dumps.paths[name], "-n")
    with dumps.paths[name].open("rb") as file:
        head = file.read(1 << 20)
    assert b"OSRELEASE=" + dumps.files.release.encode() + b"\n" in head
    assert b"KERNELOFFSET=%x\n" % dumps.truth.kaslr_offset(dumps.files) in head


def test_compressed_dumps(dumps: DumpSet) -> None:
    flat = struct.pack("16s", b"makedumpfile")
    assert "kdump-zlib" in dumps.paths
    for name, path in dumps.paths.items():
        with path.open("rb") as file:
            head = file.read(8192)
        if name.endswith("elf") or name.startswith("elf"):
            assert head[:4] == b"\x7fELF"
        elif "flat" in name or name.startswith("kdump-"):
            # QEMU writes the flattened form, as if to a pipe.
            assert head.startswith(flat)
            assert b"KDUMP   " in head
        else:
            assert head.startswith(b"KDUMP   ")
        assert path.stat().st_size > 1 << 20


def test_dumps_are_used_again(dumps: DumpSet) -> None:
    again = vmimages.dumps(dumps.files.name, ["elf", "kdump-zlib"], quiet=True)
    assert again == dumps
    assert dumps.complete
    # One CPU in user mode and one in the kernel, as promised.
    assert [line.count("CPL=3") for line in dumps.truth.text("registers").splitlines() if "CPL=" in line] == [0, 1]


def test_dump_of_a_running_machine(vm: VM, tmp_path: Path) -> None:
    path = vmimages.dump(vm, tmp_path / "core", "kdump-zlib", quiet=True)
    assert path.stat().st_size > 1 << 20
    assert vm.qmp.status() == "running"
    assert [entry.name for entry in tmp_path.iterdir()] == ["core"]
    with pytest.raises(VMError, match="no format"):
        vmimages.dump(vm, tmp_path / "core", "zip")
    missing = set(dumping.FORMATS) - set(dumping.available(vm))
    for name in missing:
        with pytest.raises(VMError, match="can't write"):
            vmimages.dump(vm, tmp_path / "x", name)
