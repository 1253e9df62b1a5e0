"""QEMU guests under gdb: moved by KASLR, several CPUs, user mode, early boot, resets.

Truth: the guests' own /proc, over their consoles.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.gdb_expected import addresses_command, check_symbols, layer, listed, names_command, sample
from support.gdbhelp import PATIENT, connect, run

if TYPE_CHECKING:
    from vmimages import VM, GroundTruth, KernelFiles

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


class TestMoved:
    def test_symbols(self, moved: VM, moved_truth: GroundTruth, bare_61: Path, tmp_path: Path) -> None:
        symbols, kaslr_offset = sample(listed(moved_truth), 200), moved_truth.kaslr_offset(moved.files)
        assert kaslr_offset
        by_address, by_name = addresses_command(symbols), names_command(symbols)
        session = run(
            [by_address, by_name, "kaslr --json", "kplug"], tmp_path, vmlinux=bare_61, before=[connect(moved)]
        )
        check_symbols(session[by_address].json, symbols, kaslr_offset)
        check_symbols(session[by_name].json, symbols, kaslr_offset)
        assert session["kaslr --json"].json[0]["slide"] == hex(kaslr_offset)
        assert moved.files.build_id in session["kplug"].text

    def test_pc_on_each_cpu(self, moved: VM, moved_truth: GroundTruth, tmp_path: Path) -> None:
        session = run(
            ["thread 1", "kwhere --json", "p/x $pc", "thread 2", "kwhere --json ", "p/x $pc "],
            tmp_path, vmlinux=moved.files.vmlinux, before=[connect(moved)],
        )  # fmt: skip
        for kwhere, pc in (("kwhere --json", "p/x $pc"), ("kwhere --json ", "p/x $pc ")):
            (answer,) = session[kwhere].json
            assert answer["address"] == session[pc].text.split()[-1]
            name = layer(answer, "symbol")["name"]
            assert int(layer(answer, "symbol")["start"], 16) in [
                s.address for s in listed(moved_truth) if s.name == name
            ]
            assert answer["class"] == "text"
            assert layer(answer, "line")["details"]["line"] > 0
            assert answer["state"]["permissions"] == "r-x"

    def test_permissions(self, moved: VM, moved_truth: GroundTruth, bare_61: Path, tmp_path: Path) -> None:
        """The page tables' rights, against QEMU's own walk of them."""
        names = ("schedule", "linux_banner", "init_task", "jiffies", "__bss_start", "__init_begin", "_etext", "_sdata")
        command = "kwhere --json " + " ".join(f"{moved_truth.address(name):#x}" for name in names)
        moved.stop()
        rights = _tlb(moved.monitor("info tlb"))
        session = run([command], tmp_path, vmlinux=bare_61, before=[connect(moved)])
        for name, answer in zip(names, session[command].json):
            expected = rights(int(answer["address"], 16))
            assert answer["state"]["mapped"] is (expected is not None), name
            assert answer["state"]["permissions"] == expected, name

    def test_areas(self, moved: VM, moved_truth: GroundTruth, bare_61: Path, tmp_path: Path) -> None:
        """The randomised bases are read from memory: a vmalloc address of the guest is in vmalloc."""
        line = next(row for row in moved_truth.text("vmallocinfo").splitlines() if "vmalloc" in row)
        address = line.split("-")[0]
        module_base, _ = next(iter(moved_truth.modules.values()))
        session = run([f"kwhere --json {address}", f"kwhere --json {module_base:#x}"], tmp_path, vmlinux=bare_61,
                      before=[connect(moved)])  # fmt: skip
        assert layer(session[f"kwhere --json {address}"].json[0], "area")["name"] == "vmalloc"
        assert layer(session[f"kwhere --json {module_base:#x}"].json[0], "area")["name"] == "modules"

    def test_the_log(self, moved: VM, bare_61: Path, tmp_path: Path) -> None:
        said = moved.run("dmesg").splitlines()
        session = run(["klog --plain"], tmp_path, vmlinux=bare_61, before=[connect(moved)])
        assert session["klog --plain"].text.splitlines()[: len(said)] == said

    def test_runs_on_and_stops(self, moved: VM, moved_truth: GroundTruth, bare_61: Path, tmp_path: Path) -> None:
        schedule, tick = moved_truth.address("schedule"), moved_truth.address("update_process_times")
        session = run(
            [
                "kwhere --json schedule",
                f"hbreak *{tick:#x}", "continue", "kwhere --json", "delete",
                f"hbreak *{schedule:#x}", "continue", "kwhere --json ",
                'condition $bpnum $_streq($kregion($pc), "sched.text")', "continue", "kwhere --json  ",
                'condition $bpnum $_streq($kclass($pc), "data")', "delete",
                f'hbreak *{tick:#x} if $_streq($kclass($pc), "text")', "continue", "kwhere --json   ", "delete",
            ],
            tmp_path, vmlinux=bare_61, before=[connect(moved)],
        )  # fmt: skip
        assert not [result for result in session.results if result.error is not None]
        places = [int(session["kwhere --json" + " " * number].json[0]["address"], 16) for number in range(4)]
        assert places == [tick, schedule, schedule, tick]

    def test_applied(self, moved: VM, moved_truth: GroundTruth, tmp_path: Path) -> None:
        schedule = moved_truth.address("schedule")
        session = run(
            [
                "kwhere --brief init_task.stack", "kwhere --json &init_task.comm", "kaslr --apply", "kaslr --apply ",
                "p init_task.comm", "p/x (unsigned long)&runqueues", "break schedule", "continue", "bt 2",
                "kwhere --json", "kwhere --json schedule", "p $kclass(schedule)", "info symbol $pc",
                "kwhere --brief init_task.stack ",
                "p/x (unsigned long)&init_task", "kaslr --json", "delete", "info files",
            ],
            tmp_path, vmlinux=moved.files.vmlinux, before=[connect(moved)],
        )  # fmt: skip
        assert "kaslr --apply" in session["kwhere --brief init_task.stack"].complaint
        (answer,) = session["kwhere --json &init_task.comm"].json
        assert layer(answer, "symbol")["name"] == "init_task"
        assert "moved by" in session["kaslr --apply"].text
        assert "already" in session["kaslr --apply "].text
        assert '"swapper/0' in session["p init_task.comm"].text
        # x86_64 up to 6.14: a per-CPU symbol is an offset, and stays one.
        percpu = next(s.address for s in moved_truth.symbols if s.name == "runqueues" and s.module is None)
        assert hex(percpu) in session["p/x (unsigned long)&runqueues"].text
        assert "schedule" in session["bt 2"].text.splitlines()[0]
        (answer,) = session["kwhere --json"].json
        assert layer(answer, "symbol")["name"] == "schedule"
        assert schedule <= int(answer["address"], 16) < schedule + 0xC7
        assert layer(answer, "line")["details"]["file"] == "kernel/sched/core.c"
        assert int(session["kwhere --json schedule"].json[0]["address"], 16) == schedule
        assert '"text"' in session["p $kclass(schedule)"].text
        assert "init_stack" in session["kwhere --brief init_task.stack "].text
        assert hex(moved_truth.address("init_task")) in session["p/x (unsigned long)&init_task"].text
        assert session["kaslr --json"].json[0]["slide"] == hex(moved_truth.kaslr_offset(moved.files))

    def test_of_another_kernel(self, moved: VM, kernel_612: KernelFiles, bare_612: Path, tmp_path: Path) -> None:
        session = run(
            [PATIENT, "kwhere", "p $kwhere($pc)", "kaslr", "kplug", f"set kplug vmlinux {moved.files.vmlinux}",
             "kwhere --json $pc"],
            tmp_path, vmlinux=bare_612, before=[connect(moved)],
        )  # fmt: skip
        for command in ("kwhere", "p $kwhere($pc)", "kaslr"):
            complaint = session[command].complaint
            assert kernel_612.release in complaint
            assert moved.files.release in complaint
        assert moved.files.release in session["kplug"].text
        assert session["kwhere --json $pc"].json[0]["class"] == "text"

    def test_trusting_readonly_sections(
        self, moved: VM, moved_truth: GroundTruth, bare_61: Path, tmp_path: Path
    ) -> None:
        """gdb then answers for .rodata from the file: the banner would be found where it is not."""
        session = run(["set trust-readonly-sections on", "kaslr --json", "show trust-readonly-sections"], tmp_path,
                      vmlinux=bare_61, before=[connect(moved)])  # fmt: skip
        assert session["kaslr --json"].json[0]["slide"] == hex(moved_truth.kaslr_offset(moved.files))
        assert "is on" in session["show trust-readonly-sections"].text

    def test_physical_mode_left_on(self, moved: VM, bare_61: Path, tmp_path: Path) -> None:
        packet = "maintenance packet Qqemu.PhyMemMode:"
        commands = [f"{packet}1", "kwhere schedule", f"{packet}0", "kwhere --brief schedule"]
        session = run(commands, tmp_path, vmlinux=bare_61, before=[connect(moved)])
        assert "physical memory mode" in session["kwhere schedule"].complaint
        assert "schedule+0x0" in session["kwhere --brief schedule"].text


def _tlb(text: str) -> Callable[[int], str | None]:
    """A function from address to rights, from QEMU's `info tlb`: "address: physical XGPDACTUW" of each page."""
    pages = {}
    for line in text.splitlines():
        match = re.match(r"([0-9a-f]{16}): ([0-9a-f]{16}) ([X-])([G-])([P-])([D-])([A-])([C-])([T-])([U-])([W-])", line)
        if match:
            rights = f"r{'w' if match[11] == 'W' else '-'}{'-' if match[3] == 'X' else 'x'}"
            pages[int(match[1], 16)] = (2 << 20 if match[5] == "P" else 4096, rights)

    def rights_of(address: int) -> str | None:
        for size in (4096, 2 << 20):
            found = pages.get(address & ~(size - 1))
            if found is not None and found[0] >= size:
                return found[1]
        return None

    return rights_of


class TestIsolated:
    """CPU 1 (gdb's thread 2) is in user mode, under page-table isolation: the kernel is not mapped there."""

    def test_few_packets(self, isolated: VM, bare_612: Path, tmp_path: Path) -> None:
        """A file without symbols, whose kallsyms and types are in it: under load each packet may take milliseconds."""
        stripped, log = tmp_path / "vmlinux", tmp_path / "packets"
        subprocess.run(["objcopy", "--strip-all", str(bare_612), str(stripped)], check=True)
        session = run(["thread 2", "kwhere --json $pc"], tmp_path, vmlinux=stripped,
                      before=[f"set remotelogfile {log}", connect(isolated)])  # fmt: skip
        (answer,) = session["kwhere --json $pc"].json
        assert layer(answer, "area")["name"] == "user"
        sent = re.findall(r"^w \+?\$(?:m|x|[qQ]qemu)", log.read_text(errors="replace"), re.MULTILINE)
        assert 100 < len(sent) < 600

    @pytest.fixture(autouse=True)
    def _stopped(self, isolated: VM, isolated_truth: GroundTruth) -> Iterator[None]:
        isolated.stop_in_user_mode(1)
        yield
        isolated.cont()

    def test_kernel_through_physical_memory(
        self, isolated: VM, isolated_truth: GroundTruth, bare_612: Path, tmp_path: Path
    ) -> None:
        symbols, kaslr_offset = sample(listed(isolated_truth), 100), isolated_truth.kaslr_offset(isolated.files)
        command = addresses_command(symbols)
        idt = "x/2gx 0xfffffe0000000000"
        session = run(
            [
                "thread 2", "p/x $cs", idt, "kwhere --json $pc", command, "maintenance packet qqemu.PhyMemMode",
                idt + " ", "kaslr", "kplug", "x/gx linux_banner", "thread 1", "kwhere --json $pc ", "kplug ",
                "thread 2 ", "kplug  ", "kwhere --json linux_banner",
            ],
            tmp_path, vmlinux=bare_612, before=[connect(isolated)],
        )  # fmt: skip
        assert session["p/x $cs"].text.strip().endswith("0x33")
        check_symbols(session[command].json, symbols, kaslr_offset)
        # Put back, and gdb reads what it read before.
        assert 'received: "0"' in session["maintenance packet qqemu.PhyMemMode"].text
        assert session[idt].text == session[idt + " "].text
        assert "page tables in physical memory" in session["kaslr"].text
        assert "memory" in session["kplug"].text
        assert "physical, through" in session["kplug"].text
        assert "as the CPU sees it" in session["kplug "].text
        assert "physical, through" in session["kplug  "].text
        (answer,) = session["kwhere --json $pc"].json
        assert layer(answer, "area")["name"] == "user"
        assert answer["state"]["mapped"] is True
        assert session["kwhere --json $pc "].json[0]["class"] == "text"
        (answer,) = session["kwhere --json linux_banner"].json
        state = {"mapped": True, "permissions": "r--", "freed": False, "page_size": 2 << 20, "kasan": None}
        assert answer["state"] == state

    def test_interrupted(self, isolated: VM, isolated_truth: GroundTruth, bare_612: Path, tmp_path: Path) -> None:
        """Ctrl-C in physical mode, the signal or gdb's own notice of it: the mode is put back first."""
        script = tmp_path / "interrupt.py"
        script.write_text(
            """
import gdb, os, signal
from kplug_gdb import physical

read = physical.read_plainly

def pressed(address, size):
    os.kill(os.getpid(), signal.SIGINT)
    return read(address, size)

def noticed(address, size):
    raise KeyboardInterrupt

connection = gdb.selected_inferior().connection
for way in (pressed, noticed, pressed, noticed):
    physical.read_plainly = way
    try:
        gdb.execute("kwhere schedule", to_string=True)
        outcome = "answered"
    except (KeyboardInterrupt, gdb.error) as error:
        outcome = f"{type(error).__name__} {error}"
    physical.read_plainly = read
    print(way.__name__, connection.send_packet("qqemu.PhyMemMode"), outcome)
"""
        )
        session = run(
            ["thread 2", "kwhere --json schedule", f"source {script}", "kwhere --json schedule "],
            tmp_path, vmlinux=bare_612, before=[connect(isolated)],
        )  # fmt: skip
        lines = session[f"source {script}"].text.splitlines()
        assert len(lines) == 4
        for line in lines:
            assert " b'0' " in line, lines
        assert "answered" not in lines[1]
        (answer,) = session["kwhere --json schedule "].json
        assert int(answer["address"], 16) == isolated_truth.address("schedule")


def test_from_the_first_instruction(kernel_612: KernelFiles, tmp_path: Path) -> None:
    """Firmware, the kernel's first instructions at their physical addresses, its own page tables, the system."""
    from support.gdb_expected import nm
    from vmimages import boot

    linked = {symbol.name: symbol.address for symbol in nm(kernel_612.vmlinux)}
    startup = linked["startup_64"] - linked["_text"] + 0x1000000  # CONFIG_PHYSICAL_START; not moved with nokaslr
    with boot("amd64-6.12", kaslr=False, paused=True, cpus=1, quiet=True) as machine:
        session = run(
            [
                "kwhere --json schedule", "kwhere --json $pc", "kaslr",
                f"hbreak *{startup:#x}", "continue", "kwhere --json $pc ", "delete",
                f"hbreak *{linked['x86_64_start_kernel']:#x}", "continue", "kwhere --json $pc  ", "delete",
                f"hbreak *{linked['start_kernel']:#x}", "continue", "kwhere --json $pc   ",
                "kwhere --json schedule ", "delete",
            ],
            tmp_path, vmlinux=kernel_612.vmlinux, before=[connect(machine)],
        )  # fmt: skip
        (answer,) = session["kwhere --json schedule"].json
        assert int(answer["address"], 16) == linked["schedule"]
        assert "not reached its kernel yet" in answer["warnings"][0]
        assert "not reached its kernel yet" in session["kwhere --json $pc"].json[0]["warnings"][0]
        (answer,) = session["kwhere --json $pc "].json
        assert layer(answer, "symbol")["name"] == "startup_64"
        assert int(answer["link_address"], 16) == linked["startup_64"]
        assert "physical address" in answer["warnings"][0]
        for command, name in (("kwhere --json $pc  ", "x86_64_start_kernel"), ("kwhere --json $pc   ", "start_kernel")):
            (answer,) = session[command].json
            assert layer(answer, "symbol")["name"] == name
            assert answer["warnings"] == []
            assert layer(answer, "line")["details"]["file"].endswith(".c")
        assert int(session["kwhere --json schedule "].json[0]["address"], 16) == linked["schedule"]
        machine.wait_ready()
        truth = machine.truth()
        assert truth.kaslr_offset(kernel_612) == 0
        symbols = sample(listed(truth), 100)
        command = addresses_command(symbols)
        session = run([command, "kaslr"], tmp_path, vmlinux=kernel_612.vmlinux, before=[connect(machine)])
        check_symbols(session[command].json, symbols, 0)
        assert re.search(r"^how +not moved$", session["kaslr"].text, re.MULTILINE)


def test_reset(kernel_61: KernelFiles, bare_61: Path, tmp_path: Path) -> None:
    """`monitor system_reset` behind gdb's back, and the next boot with another KASLR offset."""
    from vmimages import boot

    with boot("amd64-6.1", cpus=1, quiet=True, devices=("-action", "reboot=reset")) as machine:
        before = machine.truth(tmp_path / "before").kaslr_offset(kernel_61)
        session = run(
            ["kaslr --json", "monitor system_reset", "kaslr --json ", "kwhere --json schedule"],
            tmp_path, vmlinux=bare_61, before=[connect(machine)],
        )  # fmt: skip
        assert session["kaslr --json"].json[0]["slide"] == hex(before)
        assert session["kaslr --json "].json[0]["slide"] is None
        assert "not reached its kernel yet" in session["kwhere --json schedule"].json[0]["warnings"][0]
