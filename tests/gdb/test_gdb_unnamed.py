"""No vmlinux in gdb: the kernel's own kallsyms in memory, a vmlinuz, a System.map.

Truth: the guests' own symbols, and what gdb answers with the vmlinux.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.gdb_expected import addresses_command, check_symbols, layer, listed, names_command, nm, sample
from support.gdbhelp import GDB_OF_ALL, PATIENT, Session, connect, run, surviving
from support.rsp_stub import ElfMemory, Stub, registers_of

if TYPE_CHECKING:
    from vmimages import VM, DumpSet, GroundTruth, KernelFiles

pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# So that what is asked for is answered by symbols alone, and fast.
OFF = "set kplug drgn off"
X86_64 = "set architecture i386:x86-64"


def facts(session: Session, command: str) -> dict[str, object]:
    """What `kaslr --json` or `kplug --json` says."""
    (found,) = session[command].json
    return dict(found)


class TestMoved:
    """A guest with KASLR, which gdb knows nothing of."""

    def test_symbols(self, moved: VM, moved_truth: GroundTruth, tmp_path: Path) -> None:
        symbols, kaslr_offset = sample(listed(moved_truth), 300), moved_truth.kaslr_offset(moved.files)
        by_address, by_name = addresses_command(symbols), names_command(symbols)
        session = run(
            [OFF, by_address, by_name, "kaslr --json", "kplug --json", "complete kwhere init_tas", "p $kclass(0)"],
            tmp_path, before=[connect(moved)],
        )  # fmt: skip
        check_symbols(session[by_address].json, symbols, kaslr_offset)
        check_symbols(session[by_name].json, symbols, kaslr_offset)
        # The kernel notes its own slide for dumps, and that is in memory too.
        found = facts(session, "kaslr --json")
        assert found["slide"] == hex(kaslr_offset)
        assert "VMCOREINFO" in str(found["how"])
        (image,) = session["kplug --json"].json[0]["images"]
        assert image["build_id"] == moved.files.build_id
        assert image["release"] == moved.files.release
        assert "kallsyms in memory" in image["symbols_from"]
        assert "kwhere init_task" in session["complete kwhere init_tas"].text.splitlines()

    def test_regions_are_the_vmlinuxs(self, moved: VM, bare_61: Path, tmp_path: Path) -> None:
        command, before = "kregions --json", [connect(moved)]
        without = run([command], tmp_path, before=before)[command].json
        with_it = run([command], tmp_path, vmlinux=bare_61, before=before)[command].json
        places = [{(row["name"], row["start"], row["end"]) for row in rows} for rows in (without, with_it)]
        assert len(places[0]) > 60
        # Nothing is made up; what is missing has boundary symbols that kallsyms leaves out.
        assert places[0] <= places[1]
        assert len(places[1] - places[0]) <= 4, places[1] - places[0]

    def test_pc_and_the_other_commands(self, moved: VM, moved_truth: GroundTruth, tmp_path: Path) -> None:
        session = run(
            [
                "thread 1", "kwhere --json $pc", "p/x $pc", "thread 2", "kwhere --json", "p/x $pc ",
                "kmap", "kstack -r", "kx init_task 4", "kregs", "ksym schedule", "kmod",
                "ksections", "ksegments", "kaslr --apply", "kwhere core.c:schedule",
            ],
            tmp_path, before=[connect(moved)],
        )  # fmt: skip
        texts = [symbol for symbol in listed(moved_truth) if symbol.letter in "tT"]
        for kwhere, pc in (("kwhere --json $pc", "p/x $pc"), ("kwhere --json", "p/x $pc ")):
            (answer,) = session[kwhere].json
            address = int(session[pc].text.split()[-1], 16)
            assert answer["address"] == hex(address)
            nearest = max(symbol.address for symbol in texts if symbol.address <= address)
            assert int(layer(answer, "symbol")["start"], 16) == nearest
            assert answer["class"] == "text"
            assert answer["state"]["permissions"] == "r-x"
        assert "init_task+0x0" in session["kx init_task 4"].text
        assert "schedule" in session["ksym schedule"].text
        assert "text" in session["kmap"].text
        for command in ("ksections", "ksegments", "kaslr --apply", "kwhere core.c:schedule"):
            assert session[command].complaint

    def test_the_kernels_records(self, moved: VM, moved_truth: GroundTruth, tmp_path: Path) -> None:
        """drgn takes the types from the BTF in memory."""
        pytest.importorskip("drgn")
        name, (base, _) = next(iter(moved_truth.modules.items()))
        inside = f"kwhere --json {base + 0x10:#x}"
        # The stack that CPU 0 idles on: a CPU's $sp may be on another one, in an interrupt.
        idle = f"kwhere --json {moved_truth.address('init_stack') + 0x3F00:#x}"
        session = run(["kmod --json", inside, idle, "kplug"], tmp_path, before=[connect(moved)])
        assert {row["name"] for row in session["kmod --json"].json} == set(moved_truth.modules)
        (answer,) = session[inside].json
        assert layer(answer, "module")["name"] == name
        (answer,) = session[idle].json
        details = layer(answer, "stack")["details"]
        assert (details["owner"], details["pid"]) == ("task", 0)
        assert "source lines" in session["kplug"].text
        assert "slab objects" not in session["kplug"].text

    def test_off(self, moved: VM, tmp_path: Path) -> None:
        session = run(["set kplug kallsyms off", "kwhere", "kplug"], tmp_path, before=[connect(moved)])
        complaint = session["kwhere"].complaint
        for remedy in ("file VMLINUX", "set kplug vmlinuz", "set kplug system-map", "set kplug kallsyms"):
            assert remedy in complaint
        assert "no vmlinux" in session["kplug"].text


class TestOtherFiles:
    def test_vmlinuz(self, moved: VM, moved_truth: GroundTruth, tmp_path: Path) -> None:
        symbols, kaslr_offset = sample(listed(moved_truth), 100), moved_truth.kaslr_offset(moved.files)
        command = addresses_command(symbols)
        session = run(
            [f"set kplug vmlinuz {moved.files.vmlinuz}", "set kplug kallsyms off", OFF, command, "kaslr --json",
             "kwhere --json schedule"],
            tmp_path, before=[connect(moved)],
        )  # fmt: skip
        check_symbols(session[command].json, symbols, kaslr_offset)
        assert "build ID found there" in str(facts(session, "kaslr --json")["ways"])
        assert layer(session["kwhere --json schedule"].json[0], "section")["name"] == ".text"

    def test_system_map(self, moved: VM, moved_truth: GroundTruth, tmp_path: Path) -> None:
        """What makes sure of it are the symbols in memory: there is nothing else in it."""
        symbols, kaslr_offset = sample(listed(moved_truth), 100), moved_truth.kaslr_offset(moved.files)
        command = addresses_command(symbols)
        session = run(
            [OFF, f"set kplug system-map {moved.files.system_map}", command, "kaslr --json", "kwhere --brief schedule",
             "set kplug kallsyms off", "kwhere schedule"],
            tmp_path, before=[connect(moved)],
        )  # fmt: skip
        check_symbols(session[command].json, symbols, kaslr_offset)
        assert facts(session, "kaslr --json")["slide"] == hex(kaslr_offset)

    def test_of_another_kernel(self, moved: VM, kernel_612: KernelFiles, bare_612: Path, tmp_path: Path) -> None:
        session = run(
            [PATIENT, f"set kplug vmlinuz {kernel_612.vmlinuz}", "kwhere schedule", "set kplug vmlinuz",
             f"set kplug system-map {kernel_612.system_map}", "kwhere schedule ", "set kplug system-map",
             "kwhere --brief schedule", f"set kplug vmlinux {bare_612}", "kwhere schedule  "],
            tmp_path, before=[connect(moved)],
        )  # fmt: skip
        for command in ("kwhere schedule", "kwhere schedule  "):
            assert kernel_612.release in session[command].complaint
            assert moved.files.release in session[command].complaint
        assert "different kernels" in session["kwhere schedule "].complaint
        assert "schedule+0x0" in session["kwhere --brief schedule"].text

    def test_without_a_target(self, kernel_61: KernelFiles, tmp_path: Path) -> None:
        schedule = next(symbol.address for symbol in nm(kernel_61.vmlinux) if symbol.name == "schedule")
        for setting in (f"system-map {kernel_61.system_map}", f"vmlinuz {kernel_61.vmlinuz}"):
            session = run([f"set kplug {setting}", "kwhere --json schedule", "kaslr"], tmp_path)
            (answer,) = session["kwhere --json schedule"].json
            assert int(answer["link_address"], 16) == schedule
            assert "as linked" in session["kaslr"].text


class TestIsolated:
    """A CPU in user mode under page-table isolation: the kernel through its own page tables."""

    @pytest.fixture(autouse=True)
    def _stopped(self, isolated: VM, isolated_truth: GroundTruth) -> Iterator[None]:
        isolated.stop_in_user_mode(1)
        yield
        isolated.cont()

    def test_from_user_mode(self, isolated: VM, isolated_truth: GroundTruth, tmp_path: Path) -> None:
        symbols, kaslr_offset = sample(listed(isolated_truth), 200), isolated_truth.kaslr_offset(isolated.files)
        command = addresses_command(symbols)
        session = run(
            [OFF, "thread 2", "kwhere --json $pc", command, "maintenance packet qqemu.PhyMemMode", "kplug",
             "thread 1", "kwhere --json $pc ", "kplug ", command + " "],
            tmp_path, before=[connect(isolated)],
        )  # fmt: skip
        assert layer(session["kwhere --json $pc"].json[0], "area")["name"] == "user"
        check_symbols(session[command].json, symbols, kaslr_offset)
        check_symbols(session[command + " "].json, symbols, kaslr_offset)
        assert 'received: "0"' in session["maintenance packet qqemu.PhyMemMode"].text
        assert "physical, through" in session["kplug"].text
        assert "as the CPU sees it" in session["kplug "].text
        assert session["kwhere --json $pc "].json[0]["class"] == "text"


@pytest.mark.parametrize("name", ["amd64-5.10", "amd64-sid", "arm64-6.12"])
def test_other_kernels(name: str, tmp_path: Path) -> None:
    """The oldest and the newest format of kallsyms, and the other architecture."""
    from vmimages import boot

    if GDB_OF_ALL is None:
        pytest.skip("no gdb-multiarch")
    with boot(name, quiet=True) as machine:
        truth = machine.truth()
        symbols, kaslr_offset = sample(listed(truth), 200), truth.kaslr_offset(machine.files)
        command = addresses_command(symbols)
        session = run(
            [OFF, "kwhere --json $pc", command, "kaslr --json", "kplug --json", "kwhere --json runqueues@1",
             "kstack --json"], tmp_path,
            before=[connect(machine)], program=GDB_OF_ALL,
        )  # fmt: skip
    check_symbols(session[command].json, symbols, kaslr_offset)
    assert facts(session, "kaslr --json")["slide"] == hex(kaslr_offset)
    (image,) = session["kplug --json"].json[0]["images"]
    assert (image["release"], image["build_id"]) == (machine.files.release, machine.files.build_id)
    assert session["kwhere --json $pc"].json[0]["class"] == "text"
    # arm64's CPU here has 52-bit addresses and signs return addresses, which since 6.9 VMCOREINFO alone tells.
    (answer,) = session["kwhere --json runqueues@1"].json
    assert layer(answer, "area")["name"] == "direct map"
    assert [row for row in session["kstack --json"].json if row["kind"] == "ret"]


def test_from_the_first_instruction(kernel_612: KernelFiles, tmp_path: Path) -> None:
    """Firmware; the kernel's startup code; its first C, where nothing tells yet where it was linked."""
    from vmimages import boot

    linked = {symbol.name: symbol.address for symbol in nm(kernel_612.vmlinux)}
    startup = linked["startup_64"] - linked["_text"] + 0x1000000  # CONFIG_PHYSICAL_START; not moved with nokaslr
    with boot("amd64-6.12", kaslr=False, paused=True, cpus=1, quiet=True) as machine:
        session = run(
            [
                "kwhere $pc",
                f"hbreak *{startup:#x}", "continue", "kwhere $pc ", "delete",
                f"hbreak *{linked['start_kernel']:#x}", "continue", "kwhere --json $pc", "kaslr --json", "kwhere $pc  ",
                "ksym --json schedule", "delete",
                f"hbreak *{linked['run_init_process']:#x}", "continue", "kwhere --json schedule",
            ],
            tmp_path, before=[connect(machine)],
        )  # fmt: skip
    for command in ("kwhere $pc", "kwhere $pc "):
        assert "none runs yet" in session[command].complaint
        assert "file VMLINUX" in session[command].complaint
    (answer,) = session["kwhere --json $pc"].json
    assert layer(answer, "symbol")["name"] == "start_kernel"
    assert answer["link_address"] is None
    assert answer["warnings"] == []
    found = facts(session, "kaslr --json")
    assert found["slide"] is None
    assert found["link"] is None
    assert "link" not in session["kwhere $pc  "].text
    (row,) = session["ksym --json schedule"].json
    assert (int(row["address"], 16), row["link_address"]) == (linked["schedule"], None)
    # By the time it starts the first program it has noted that.
    (answer,) = session["kwhere --json schedule"].json
    assert int(answer["link_address"], 16) == linked["schedule"]


# -- a stub that is not QEMU's -----------------------------------------------------------------------------------------


def registers(dumped: DumpSet) -> dict[str, int]:
    return registers_of((dumped.root / "truth" / "registers").read_text(), 0)


class _Swapped(Stub):
    """Has other memory behind gdb's back, as after a reset: at the first `monitor` command."""

    other: ElfMemory

    def _answer(self, packet: str) -> str | None:
        if packet.startswith("qRcmd"):
            self.memory = self.other
            return "OK"
        return super()._answer(packet)


class _Slow(Stub):
    """A serial line."""

    def _answer(self, packet: str) -> str | None:
        if packet.startswith("m"):
            time.sleep(0.05)
        return super()._answer(packet)


class _Changed(ElfMemory):
    """The memory of a dump with other bytes at some address, and nothing but read-only data and entry code mapped."""

    def __init__(self, path: Path, at: int, data: bytes, mapped: range, entry: int) -> None:
        super().__init__(path)
        self._at, self._data, self._mapped, self._entry = at, data, mapped, entry

    def read(self, address: int, size: int) -> bytes | None:
        held = address in self._mapped or self._entry <= address < self._entry + (2 << 20)
        if address >= 0xFFFFFFFF80000000 and not held:
            return None
        data = super().read(address, size)
        if data is None:
            return None
        start, end = max(address, self._at), min(address + len(data), self._at + len(self._data))
        if start >= end:
            return data
        return data[: start - address] + self._data[start - self._at : end - self._at] + data[end - address :]


def test_plain_reads_do(dumped: DumpSet, memory: ElfMemory, tmp_path: Path) -> None:
    symbols, kaslr_offset = sample(listed(dumped.truth), 100), dumped.truth.kaslr_offset(dumped.files)
    command = addresses_command(symbols)
    with Stub(memory, registers(dumped)) as stub:
        session = run(["kwhere --json $pc", command], tmp_path, before=[X86_64, stub.command])
        packets = list(stub.packets)
    check_symbols(session[command].json, symbols, kaslr_offset)
    assert int(session["kwhere --json $pc"].json[0]["address"], 16) == registers(dumped)["rip"]
    assert not [packet for packet in packets if packet.startswith(("qRcmd", "Qqemu"))]


def test_another_kernel_behind_gdbs_back(dumped: DumpSet, memory: ElfMemory, tmp_path: Path) -> None:
    """Memory is of another boot all at once: with another KASLR offset, and here of another release too."""
    from vmimages import dumps

    other = dumps("amd64-6.12", ("elf-paging",), quiet=True)
    command = "kwhere --json schedule init_task linux_banner"
    with _Swapped(memory, registers(dumped)) as stub:
        stub.other = ElfMemory(other.paths["elf-paging"])
        session = run(
            [OFF, command, "monitor swap", command + " ", "kplug"], tmp_path,
            before=[X86_64, stub.command],
        )  # fmt: skip
    for answered, truth in ((command, dumped.truth), (command + " ", other.truth)):
        for answer in session[answered].json:
            assert int(answer["address"], 16) == truth.address(answer["input"])
    assert other.files.release in session["kplug"].text


def test_a_slow_line_is_not_made_to_wait(dumped: DumpSet, memory: ElfMemory, tmp_path: Path) -> None:
    with _Slow(memory, registers(dumped)) as stub:
        started = time.monotonic()
        session = run(["kwhere", "kplug"], tmp_path, before=[X86_64, stub.command], patient=False)
        assert time.monotonic() - started < 600
    complaint = session["kwhere"].complaint
    assert "minutes" in complaint
    assert "set kplug kallsyms on" in complaint
    assert "no vmlinux" in session["kplug"].text


def test_interrupted(dumped: DumpSet, memory: ElfMemory, tmp_path: Path) -> None:
    """Ctrl-C ends a search that takes long, and gdb goes on."""
    press = "python import os, signal, threading; threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()"
    with _Slow(memory, registers(dumped)) as stub:
        started = time.monotonic()
        session = run(
            ["set kplug kallsyms on", press, "kwhere", "p 6 * 7", "set kplug kallsyms off", "kwhere "], tmp_path,
            before=[X86_64, stub.command],
        )  # fmt: skip
        assert time.monotonic() - started < 600
    assert session["kwhere"].error in ("KeyboardInterrupt", "Quit")
    assert "42" in session["p 6 * 7"].text
    assert "not searched" in session["kwhere "].complaint


def test_a_program_is_no_kernel(tmp_path: Path) -> None:
    """A process of this machine, stopped at its start."""
    session = run(["starti", "kwhere $pc", "kill"], tmp_path, vmlinux="/bin/true")
    assert session["starti"].error is None
    assert "no vmlinux" in session["kwhere $pc"].complaint


@pytest.mark.parametrize("table", ["kallsyms_markers", "kallsyms_token_index"])
def test_broken_tables(table: str, dumped: DumpSet, kernel_61: KernelFiles, tmp_path: Path) -> None:
    """One line, and no symbol of it."""
    kaslr_offset = dumped.truth.kaslr_offset(dumped.files)
    linked = {symbol.name: symbol.address + kaslr_offset for symbol in nm(kernel_61.vmlinux)}
    rodata = range(linked["__start_rodata"], linked["__end_rodata"])
    entry = linked["asm_exc_divide_error"] & -(2 << 20)
    changed = _Changed(dumped.paths["elf-paging"], linked[table] + 8, b"\xa5" * 64, rodata, entry)
    with Stub(changed, registers(dumped)) as stub:
        session = run(["kwhere schedule", "kplug"], tmp_path, before=[X86_64, stub.command])
    assert "no vmlinux" in session["kwhere schedule"].complaint
    assert "kallsyms" in session["kwhere schedule"].complaint
    assert "no vmlinux" in session["kplug"].text


@pytest.mark.parametrize("when", [3, 40, 400])
def test_connection_drops(when: int, dumped: DumpSet, memory: ElfMemory, tmp_path: Path) -> None:
    def asked() -> Session:
        with Stub(memory, registers(dumped), drop_after=when) as stub:
            return run(["kwhere schedule", "kplug"], tmp_path, before=[X86_64, stub.command])

    session = surviving(asked)
    assert "no vmlinux" in session["kwhere schedule"].complaint
    assert "no vmlinux" in session["kplug"].text


# -- cores -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["elf-paging", "elf"])
def test_cores(form: str, dumped: DumpSet, tmp_path: Path) -> None:
    symbols, kaslr_offset = sample(listed(dumped.truth), 100), dumped.truth.kaslr_offset(dumped.files)
    command = names_command(symbols)
    session = run([command, "kaslr --json", "kplug"], tmp_path, before=[f"core-file {dumped.paths[form]}"])
    answers = session[command].json
    for answer in answers:  # of those by physical address it is said that gdb cannot show their data
        assert all("physical addresses only" in warning for warning in answer["warnings"])
        answer["warnings"] = []
    check_symbols(answers, symbols, kaslr_offset)
    assert facts(session, "kaslr --json")["slide"] == hex(kaslr_offset)
    assert re.search(dumped.files.release, session["kplug"].text)
