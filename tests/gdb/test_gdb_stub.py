"""A stub that isn't QEMU's, and one that lets go in the middle of an answer.

It serves a dump (rsp_stub), whose guest said where its symbols are.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.gdb_expected import addresses_command, check_symbols, listed, sample
from support.gdbhelp import PATIENT, Session, run, surviving
from support.rsp_stub import ElfMemory, Stub, registers_of

if TYPE_CHECKING:
    from vmimages import DumpSet, KernelFiles

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


def registers(dumped: DumpSet, cpu: int = 0) -> dict[str, int]:
    return registers_of((dumped.root / "truth" / "registers").read_text(), cpu)


def test_plain_reads_do(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path: Path) -> None:
    symbols, kaslr_offset = sample(listed(dumped.truth), 100), dumped.truth.kaslr_offset(dumped.files)
    command = addresses_command(symbols)
    with Stub(memory, registers(dumped)) as stub:
        session = run(
            ["kwhere --json $pc", command, "kaslr", "kplug", "kwhere --json 0xffffffff80000000", "kaslr --apply",
             "p/x (unsigned long)&init_task", "kwhere --json $pc "],
            tmp_path, vmlinux=bare_61, before=[stub.command],
        )  # fmt: skip
        packets = list(stub.packets)
    check_symbols(session[command].json, symbols, kaslr_offset)
    (answer,) = session["kwhere --json $pc"].json
    assert int(answer["address"], 16) == registers(dumped)["rip"]
    assert answer["state"]["mapped"] is True
    assert answer["state"]["permissions"] is None
    assert session["kwhere --json 0xffffffff80000000"].json[0]["state"]["mapped"] is False
    assert "IDT at its fixed address" in session["kaslr"].text
    assert hex(dumped.truth.address("init_task")) in session["p/x (unsigned long)&init_task"].text
    assert session["kwhere --json $pc "].json[0]["summary"] == answer["summary"]
    # It is not QEMU: it is asked that once, and no monitor command and no mode change is tried.
    assert sum(packet == "qqemu.PhyMemMode" for packet in packets) == 1
    assert not [packet for packet in packets if packet.startswith(("qRcmd", "Qqemu"))]


def test_addresses_that_may_be_a_devices(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path: Path) -> None:
    """Without page tables, no byte of them is read to see whether one is mapped: a device would notice it."""
    lines = (dumped.root / "truth" / "vmallocinfo").read_text().splitlines()
    device = int(next(line for line in lines if line.endswith("ioremap")).split("-")[0], 16)
    hole, fixmap = 0xFFFFFFFF70000000, 0xFFFFFFFFFF5FC000
    asked = [f"kwhere --json {address:#x}" for address in (device, hole, fixmap, 0x400000)]
    with Stub(memory, registers(dumped)) as stub:
        session = run(asked, tmp_path, vmlinux=bare_61, before=[stub.command])
        packets = list(stub.packets)
    for command in asked:
        assert session[command].json[0]["state"]["mapped"] is None, command
        assert not [packet for packet in packets if packet.startswith(f"m{command.split('0x')[1]},")], command


def test_loading_reads_no_memory(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path: Path) -> None:
    with Stub(memory, registers(dumped)) as stub:
        run(["complete kwhere sched_se", "help kwhere", "show kplug"], tmp_path, vmlinux=bare_61)
        run([], tmp_path, vmlinux=bare_61, script=None, before=[stub.command])
        alone = stub.memory_packets()
        run(["complete kwhere sched_se", "help kwhere", "show kplug"], tmp_path, vmlinux=bare_61,
            before=[stub.command])  # fmt: skip
        assert stub.memory_packets() == 2 * alone


def test_without_an_interrupt_table(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path: Path) -> None:
    """Only the search for the banner is left."""

    class Image(ElfMemory):
        def read(self, address: int, size: int) -> bytes | None:
            return super().read(address, size) if address >= 0xFFFFFFFF80000000 else None

    module, _ = next(iter(dumped.truth.modules.values()))
    # Those around the program counter come first; the whole window, for one in a module, is 512 steps.
    for pc, limit in ((dumped.truth.address("schedule") + 4, 120), (module, 1200)):
        with Stub(Image(dumped.paths["elf-paging"]), {**registers(dumped), "rip": pc}) as stub:
            session = run(["kwhere --json schedule", "kaslr"], tmp_path, vmlinux=bare_61,
                          before=[stub.command])  # fmt: skip
            assert stub.memory_packets() < limit
        assert int(session["kwhere --json schedule"].json[0]["address"], 16) == dumped.truth.address("schedule")
        assert "search for the banner" in session["kaslr"].text


def test_kaslr_offset_told(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path: Path) -> None:
    kaslr_offset = dumped.truth.kaslr_offset(dumped.files)
    with Stub(memory, registers(dumped)) as stub:
        session = run(
            [f"set kplug slide {kaslr_offset:#x}", "kwhere --json schedule", "kaslr",
             f"set kplug slide {kaslr_offset + 0x200000:#x}",
             "kwhere --json schedule ", "set kplug check off", "kaslr --json", "set kplug slide none", "kaslr --json "],
            tmp_path, vmlinux=bare_61, before=[stub.command],
        )  # fmt: skip
    assert int(session["kwhere --json schedule"].json[0]["address"], 16) == dumped.truth.address("schedule")
    assert "given by the user" in session["kaslr"].text
    assert "not at the KASLR offset" in session["kwhere --json schedule "].complaint
    assert session["kaslr --json"].json[0]["slide"] == hex(kaslr_offset + 0x200000)
    assert "not checked" in session["kaslr --json"].json[0]["how"]
    assert session["kaslr --json "].json[0]["slide"] == "0x0"


def test_applied_twice(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path: Path) -> None:
    """gdb's symbols may be in a wrong place already: of the boot before, or by the user's own doing."""
    kaslr_offset = dumped.truth.kaslr_offset(dumped.files)
    where = "p/x (unsigned long)&init_task"
    wrong = [f"symbol-file -o 0x2000000 {bare_61}", f"add-symbol-file {bare_61} -o 0x2000000"]
    for name, commands in (("-o", wrong[:1]), ("add", ["symbol-file", *wrong[1:]]), ("both", wrong[1:])):
        with Stub(memory, registers(dumped)) as stub:
            session = run(
                [*commands, "kwhere --json init_task", "kaslr --apply", where, "kwhere --json init_task ",
                 "set kplug check off", f"set kplug slide {kaslr_offset + 0x400000:#x}", "kaslr --apply ", where + " ",
                 "set kplug slide auto", "set kplug check on", "kaslr --apply  ", where + "  ",
                 "kwhere --json schedule"],
                tmp_path, vmlinux=bare_61, before=["set confirm off", stub.command],
            )  # fmt: skip
        place = dumped.truth.address("init_task")
        for command in ("kwhere --json init_task", "kwhere --json init_task "):
            assert int(session[command].json[0]["address"], 16) == place, name
        assert hex(place) in session[where].text, name
        assert hex(place + 0x400000) in session[where + " "].text, name
        assert hex(place) in session[where + "  "].text, name
        assert int(session["kwhere --json schedule"].json[0]["address"], 16) == dumped.truth.address("schedule"), name


def test_user_mode(dumped: DumpSet, bare_61: Path, tmp_path: Path) -> None:
    """Under page-table isolation such a stub has nothing to offer: said, not guessed."""

    class User(ElfMemory):
        def read(self, address: int, size: int) -> bytes | None:
            mapped = address < 1 << 47 or 0xFFFFFE0000000000 <= address < 0xFFFFFE0000001000
            return super().read(address, size) if mapped else None

    user = registers(dumped, 1)
    assert user["cs"] & 3 == 3
    with Stub(User(dumped.paths["elf-paging"]), user) as stub:
        session = run(["kwhere", "kwhere schedule", "kplug"], tmp_path, vmlinux=bare_61,
                      before=[stub.command])  # fmt: skip
    assert "user mode" in session["kwhere schedule"].complaint
    assert "user mode" in session["kplug"].text


def test_another_kernel(
    dumped: DumpSet, memory: ElfMemory, kernel_612: KernelFiles, bare_612: Path, tmp_path: Path
) -> None:
    module, _ = next(iter(dumped.truth.modules.values()))
    for pc in (dumped.truth.address("schedule") + 4, module):  # wherever the CPU was when it was stopped
        with Stub(memory, {**registers(dumped), "rip": pc}) as stub:
            session = run([PATIENT, "kwhere", "p $kclass($pc)", "kaslr --apply", "kplug", "set kplug check off",
                           "kaslr --json", "set kplug slide 0x1000000", "kwhere --json schedule", "kaslr"],
                          tmp_path, vmlinux=bare_612, before=[stub.command])  # fmt: skip
        for command in ("kwhere", "p $kclass($pc)", "kaslr --apply"):
            complaint = session[command].complaint
            assert kernel_612.release in complaint
            assert dumped.files.release in complaint
        assert dumped.files.release in session["kplug"].text
        # Their first handler less ours is no KASLR offset that a kernel can have: no candidate is left.
        assert dumped.files.release in session["kaslr --json"].complaint
        (warning,) = session["kwhere --json schedule"].json[0]["warnings"]
        assert warning.startswith("not checked, and likely to be wrong")
        assert "not checked, and likely to be wrong" in session["kaslr"].text


@pytest.mark.parametrize("when", [1, 2, 3, 4, 6, 9])
def test_connection_drops(
    dumped: DumpSet, memory: ElfMemory, bare_61: Path, at_connection: int, tmp_path: Path, when: int
) -> None:
    def asked() -> Session:
        with Stub(memory, registers(dumped), drop_after=at_connection + when) as stub:
            return run(["kwhere $pc", "kwhere schedule init_task", "kwhere --brief schedule"], tmp_path,
                       vmlinux=bare_61, before=[stub.command], timeout=600)  # fmt: skip

    session = surviving(asked)
    failed = [result for result in session.results if result.error is not None]
    assert len(failed) <= 2
    for result in failed:
        assert "clos" in result.complaint or "No registers" in result.complaint
    assert not failed or "clos" in failed[0].complaint
    if failed:  # without a target the files alone answer
        assert "0xffffffff81" in session["kwhere --brief schedule"].text


@pytest.fixture(scope="module")
def at_connection(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many memory packets gdb itself sends when it connects."""
    with Stub(memory, registers(dumped)) as stub:
        run([], tmp_path_factory.mktemp("connection"), vmlinux=bare_61, script=None, before=[stub.command])
        return stub.memory_packets()


def test_stub_falls_silent(
    dumped: DumpSet, memory: ElfMemory, bare_61: Path, at_connection: int, tmp_path: Path
) -> None:
    with Stub(memory, registers(dumped), silent_after=at_connection + 3) as stub:
        started = time.monotonic()
        session = run(["set remotetimeout 1", "kwhere $pc"], tmp_path, vmlinux=bare_61,
                      before=[stub.command], timeout=600)  # fmt: skip
        assert time.monotonic() - started < 600
    assert "does not answer" in session["kwhere $pc"].complaint


def test_out_of_step(dumped: DumpSet, bare_61: Path, tmp_path: Path) -> None:
    """QEMU stalled: what comes for the monitor's answer is another packet's, memory in hexadecimal."""

    class Image(ElfMemory):
        def read(self, address: int, size: int) -> bytes | None:
            return super().read(address, size) if address >= 0xFFFFFFFF80000000 else None

    others = {"qqemu.PhyMemMode": "0", "qRcmd": "fffe80"}
    with Stub(Image(dumped.paths["elf-paging"]), registers(dumped), others=others) as stub:
        session = run(["kwhere schedule"], tmp_path, vmlinux=bare_61, before=[stub.command], timeout=600)
    assert "out of step" in session["kwhere schedule"].complaint


def test_nothing_can_be_read(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path: Path) -> None:
    with Stub(memory, registers(dumped), unreadable=True) as stub:
        session = run(["kwhere $pc", "kaslr", "p $kwhere(0)"], tmp_path, vmlinux=bare_61,
                      before=[stub.command])  # fmt: skip
    for command in ("kwhere $pc", "kaslr", "p $kwhere(0)"):
        assert "in the target's memory" in session[command].complaint


def test_disconnect_and_connect(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path: Path) -> None:
    with Stub(memory, registers(dumped)) as stub:
        session = run(
            ["kaslr --json", "disconnect", "kaslr --json ", stub.command, "kaslr --json  "],
            tmp_path, vmlinux=bare_61, before=[stub.command],
        )  # fmt: skip
    kaslr_offset = hex(dumped.truth.kaslr_offset(dumped.files))
    found = [session[f"kaslr --json{' ' * number}"].json[0]["slide"] for number in range(3)]
    assert found == [kaslr_offset, None, kaslr_offset]


def test_values_before_apply(dumped: DumpSet, memory: ElfMemory, tmp_path: Path) -> None:
    """gdb has its symbols as linked: a value made of them is answered where the kernel is, or not at all."""
    address = dumped.truth.address
    right = {
        "$kwhere(schedule)": "schedule+0x0 ",
        "$kclass(init_task.comm)": "data",
        '$kwhere("&init_task")': "init_task+0x0 ",
        '$kwhere("schedule+0x4/0xc7")': "schedule+0x4 ",
        # DWARF and gdb call it finish_task_switch.
        "$kwhere(finish_task_switch)": "finish_task_switch.isra.0+0x0 ",
        '$kwhere("finish_task_switch+0x10/0x2c5")': "finish_task_switch.isra.0+0x10 ",
        '$ksection("init_task")': ".data",
        '$kclass("&init_task")': "data",
        "$kclass($pc)": "text",
        "$kwhere($sp)": "",
        f"$kwhere({address('init_task'):#x})": "init_task+0x0 ",
    }
    refused = [*(f"p ${name}(&init_task)" for name in ("kwhere", "kclass", "ksection", "kregion")),
               "p $kwhere(&schedule)", "p $kwhere(jiffies)", "p $kwhere(&init_task.comm)", "p $kwhere(linux_banner)",
               "kwhere (long)finish_task_switch", "kwhere *finish_task_switch",
               "kwhere $x", "kwhere (char *)$x + 8", "kwhere $", "p $kwhere($x)"]  # fmt: skip
    registers_in_kernel = {**registers(dumped), "rip": address("schedule") + 4, "rsp": address("init_stack") + 0x3E98}
    before = [f"p {value}" for value in right]
    with Stub(memory, registers_in_kernel) as stub:
        session = run(
            [*before, "set $x = &init_task", "p &init_task", *refused, 'p $kwhere("no_such_name")', "kaslr",
             "kaslr --apply", "p $kwhere(&init_task) ", "set $x = &init_task", "kwhere --json $x", "kaslr "],
            tmp_path, vmlinux=dumped.files.vmlinux, before=[stub.command],
        )  # fmt: skip
    for value, text in right.items():
        assert f'= "{text}' in session[f"p {value}"].text, value
    for command in refused:
        assert "kaslr --apply" in session[command].complaint, command
    assert "no_such_name" in session['p $kwhere("no_such_name")'].complaint
    assert '"init_task+0x0 ' in session["p $kwhere(&init_task) "].text
    assert int(session["kwhere --json $x"].json[0]["address"], 16) == address("init_task")
    assert "gdb's own symbols: no candidate" in session["kaslr"].text
    assert re.search(r"^gdb +symbols as linked \(kaslr --apply moves them\)$", session["kaslr"].text, re.MULTILINE)
    kaslr_offset = dumped.truth.kaslr_offset(dumped.files)
    assert re.search(rf"^gdb +symbols moved by \+{kaslr_offset:#x}$", session["kaslr "].text, re.MULTILINE)


def test_symbols_still_moved(dumped: DumpSet, memory: ElfMemory, tmp_path: Path) -> None:
    """gdb's symbols stay at the KASLR offset of the last target, or at another: they are not taken for the kernel's."""
    kaslr_offset, place = dumped.truth.kaslr_offset(dumped.files), dumped.truth.address("init_task")
    asked = ["kwhere --json (unsigned long)&init_task", "p $kwhere(schedule)", "kwhere init_task.stack",
             "p $kwhere(&init_task)"]  # fmt: skip
    with Stub(memory, registers(dumped)) as stub:
        session = run(
            [f"symbol-file -o 0x2000000 {dumped.files.vmlinux}", *asked, "kaslr --apply", "disconnect",
             *(f"{command} " for command in asked), "kaslr --apply ", "p/x (unsigned long)&init_task"],
            tmp_path, vmlinux=dumped.files.vmlinux, before=["set confirm off", stub.command],
        )  # fmt: skip
    for end, expected in (("", place), (" ", place - kaslr_offset)):
        assert int(session[asked[0] + end].json[0]["address"], 16) == expected
        assert '"schedule+0x0 ' in session[asked[1] + end].text
        for command in asked[2:]:
            complaint = session[command + end].complaint
            assert "kaslr --apply" in complaint
            at, kernel = ("+0x2000000", f"+{kaslr_offset:#x}") if not end else (f"+{kaslr_offset:#x}", "+0x0")
            assert f"gdb's symbols are at {at}, the kernel is at {kernel}" in complaint
    assert hex(place - kaslr_offset) in session["p/x (unsigned long)&init_task"].text


def test_another_inferior(dumped: DumpSet, memory: ElfMemory, bare_61: Path, tmp_path: Path) -> None:
    """What is known of one inferior is not shown of the next."""
    with Stub(memory, registers(dumped)) as stub:
        session = run(["kplug", "add-inferior", "inferior 2", "kplug ", "inferior 1", "kplug  "], tmp_path,
                      vmlinux=bare_61, before=[stub.command])  # fmt: skip
    for command in ("kplug", "kplug  "):
        assert "as the CPU sees it" in session[command].text
        assert str(bare_61) in session[command].text
    assert "no vmlinux" in session["kplug "].text
    assert "as the CPU sees it" not in session["kplug "].text
    assert str(bare_61) not in session["kplug "].text
