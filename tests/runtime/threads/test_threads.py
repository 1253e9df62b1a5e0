"""Threads, frames and registers of dumps, what kregs makes of them, and expressions with them.

Truth: what QEMU's monitor said of the registers at the moment of the dump, and drgn's own stack traces and reads.
"""

from __future__ import annotations

import argparse
import re
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.answers import outputs, rows
from support.open_dumps import kernel_in, session_in
from support.patched import patch
from support.threads import asleep, target_of

from kplug.commands import COMMANDS
from kplug.errors import ExpressionError, TargetError, UsageError
from kplug.outputs import Problem
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.opening.request import Request
from kplug.runtime.session import open_session
from kplug.runtime.threads.selection import Selection
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import DumpSet


pytestmark = [pytest.mark.kernel, pytest.mark.boot]

# QEMU's name -> ours.
GENERAL = {f"R{name}": f"r{name.lower()}" for name in ("AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP", "IP")}
GENERAL.update({f"CR{number}": f"cr{number}" for number in (0, 2, 3, 4)})
GENERAL.update({f"R{number}": f"r{number}" for number in range(8, 16)}, RFL="eflags")


def monitor(dumps: DumpSet) -> list[dict[str, int]]:
    """The registers of each CPU, as QEMU's monitor had them."""
    cpus = []
    for text in re.split(r"^CPU#\d+", dumps.truth.text("registers"), flags=re.MULTILINE)[1:]:
        values = {
            ours: int(found.group(1), 16)
            for theirs, ours in GENERAL.items()
            if (found := re.search(rf"\b{theirs} ?=([0-9a-f]+)\b", text))
        }
        for segment in ("CS", "SS", "DS", "ES", "FS", "GS"):
            found = re.search(rf"^{segment} =([0-9a-f]{{4}}) ([0-9a-f]{{16}})", text, re.MULTILINE)
            assert found is not None
            values[segment.lower()] = int(found.group(1), 16)
            if segment in ("FS", "GS"):
                values[f"{segment.lower()}_base"] = int(found.group(2), 16)
        cpus.append(values)
    return cpus


class TestRegisters:
    @pytest.mark.parametrize("form", ["elf", "kdump-zlib", "makedumpfile-zlib-d31"])
    def test_of_each_cpu_are_what_qemu_said(self, dumps: DumpSet, form: str) -> None:
        session = session_in(dumps, form)
        target = target_of(session)
        cpus = monitor(dumps)
        assert [thread.cpu for thread in target.selection.threads()] == list(range(len(cpus)))
        for cpu, expected in enumerate(cpus):
            target.selection.select_cpu(cpu)
            found = {register.name: register.value for register in target.registers()}
            assert found.items() >= expected.items()
            assert {row["name"]: int(row["value"]) for row in rows(session, "regs")} == found

    def test_order_is_gdbs(self, target: DrgnTarget) -> None:
        names = [register.name for register in target.registers()]
        assert names[:9] == ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8"]
        assert names[16:24] == ["rip", "eflags", "cs", "ss", "ds", "es", "fs", "gs"]

    def test_those_asked_for(self, session: Session, target: DrgnTarget) -> None:
        assert [row["name"] for row in rows(session, "regs", "rsp", "$pc", "rflags")] == ["rsp", "rip", "eflags"]
        assert outputs(session, "regs", "r99") == [Problem("r99: no such register here")]

    def test_what_they_hold(self, session: Session, target: DrgnTarget) -> None:
        """As kwhere has it; a number that is no address is left alone."""
        for row in rows(session, "regs"):
            if row["annotation"] is not None:
                assert row["annotation"] == session.resolver.where(int(row["value"]))
            elif int(row["value"]) >> 47 == (1 << 17) - 1:
                assert row["flags"] is not None, row
        assert [row["annotation"] is None for row in rows(session, "regs", "rip", "rsp", "cs")] == [False, False, True]

    def test_flags_as_qemu_spells_them(self, dumps: DumpSet, session: Session, target: DrgnTarget) -> None:
        (row,) = rows(session, "regs", "eflags")
        letters = {"DF": "D", "OF": "O", "SF": "S", "ZF": "Z", "AF": "A", "PF": "P", "CF": "C"}
        spelled = re.search(r"RFL=\w+ \[(.*?)\]", dumps.truth.text("registers"))
        assert spelled is not None
        assert {letters[flag] for flag in row["flags"] if flag in letters} == set(spelled.group(1)) - {"-"}
        assert ("IF" in row["flags"]) == bool(int(row["value"]) & 0x200)

    def test_of_an_outer_frame_are_those_that_were_saved(self, session: Session, target: DrgnTarget) -> None:
        for thread in target.selection.threads():
            target.selection.select_cpu(thread.cpu)
            for frame in target.selection.frames():
                target.selection.select_frame(frame.number)
                found = {register.name: register.value for register in target.registers()}
                assert found["rip"] == frame.pc
                assert found["rax"] == frame.registers.get("rax")
                if found["rax"] is None:
                    (row,) = rows(session, "regs", "rax")
                    assert row["summary"] == "not saved in this frame"


@pytest.fixture(scope="module", params=["elf", "kdump-zlib", "makedumpfile-zlib-d31"])
def bare(request: pytest.FixtureRequest, dumps: DumpSet, tmp_path_factory: pytest.TempPathFactory) -> Session:
    path = tmp_path_factory.mktemp("bare") / "vmlinux"
    subprocess.run(["objcopy", "--strip-debug", str(dumps.files.vmlinux), str(path)], check=True)
    data = path.read_bytes()
    for name in (b"\0__start_BTF\0", b"\0__stop_BTF\0", b"\0.BTF\0"):
        data = data.replace(name, name.replace(b"BTF", b"XXX"))
    path.write_bytes(data)
    return open_session(Request(str(dumps.paths[request.param]), symbols=(str(path),)))


class TestWithoutDebugInformation:
    """A vmlinux with symbols, without DWARF and BTF: the notes have the registers, and nobody knows the tasks."""

    def test_registers(self, bare: Session, dumps: DumpSet) -> None:
        target = target_of(bare)
        for cpu, expected in enumerate(monitor(dumps)):
            thread = target.selection.select_cpu(cpu)
            assert str(thread) == f"the task on CPU {cpu}"
            assert {register.name: register.value for register in target.registers()}.items() >= expected.items()
            assert [place.address for place in bare.places("$pc")] == [expected["rip"]]
            assert len(target.selection.frames()) == 1

    def test_no_task_is_found(self, bare: Session) -> None:
        with pytest.raises(TargetError, match="DWARF"):
            target_of(bare).selection.select_thread(1)


class TestThreads:
    def test_first_those_on_cpus(self, dumps: DumpSet, target: DrgnTarget) -> None:
        """The dump is of a kernel that runs: none crashed, CPU 0's task is the selected one."""
        threads = target.selection.threads()
        assert target.selection.thread == threads[0]
        assert threads[0].cpu == 0
        assert not any(thread.crashed for thread in threads)

    def test_the_crashed_one_comes_first(self, dumps: DumpSet) -> None:
        """A kernel in which CPU 1 has panicked: the dump's own with that said in its memory."""
        kernel = kernel_in(dumps)
        patch(kernel, kernel.prog["panic_cpu"].address_, struct.pack("<i", 1))
        selection = Selection(kernel)
        assert [(thread.cpu, thread.crashed) for thread in selection.threads()] == [(1, True), (0, False)]
        assert selection.thread.crashed
        assert str(selection.thread).endswith("on CPU 1, crashed")
        assert selection.frame.registers["rip"] == monitor(dumps)[1]["rip"]

    def test_a_task_that_has_ended(self, dumps: DumpSet) -> None:
        """After the kernel ran on, another one may have its ID, or none."""
        kernel = kernel_in(dumps)
        selection = Selection(kernel)
        thread = selection.select_thread(1)
        patch(kernel, kernel.prog["init_pid_ns"].idr.idr_rt.address_of_().value_(), bytes(16))
        with pytest.raises(TargetError, match=re.escape(f"{thread}")):
            selection.frames()

    def test_any_task_by_its_id(self, session: Session, target: DrgnTarget, dumps: DumpSet) -> None:
        listed = dict(re.findall(r"^\s*(\d+)\s+\d+\s+(\S+)", dumps.truth.text("tasks"), re.MULTILINE))
        for task in asleep(session):
            pid = task.pid.value_()
            thread = target.selection.select_thread(pid)
            assert thread.tid == pid
            if not thread.comm.startswith("kworker/") and str(pid) in listed:  # /proc adds what those work on
                assert thread.comm.startswith(listed[str(pid)].rstrip("_"))

    def test_there_is_no_such(self, target: DrgnTarget) -> None:
        for select in (
            lambda: target.selection.select_thread(4_000_000),
            lambda: target.selection.select_cpu(99),
            lambda: target.selection.select_frame(999),
        ):
            with pytest.raises(UsageError):
                select()
        assert target.selection.thread.cpu == 0

    def test_frames_are_drgns(self, session: Session, target: DrgnTarget) -> None:
        tasks = asleep(session)
        assert len(tasks) > 30
        for task in tasks:
            target.selection.select_task(task)
            expected = list(target.kernel.prog.stack_trace(task))
            found = target.selection.frames()
            assert [(f.pc, f.sp, f.is_inline) for f in found] == [(f.pc, f.sp, f.is_inline) for f in expected]
            for ours, theirs in zip(found, expected):
                assert ours.function == theirs.function_name or theirs.function_name is None


class TestExpressions:
    @pytest.mark.parametrize("text", ["$pc", "rip", "$rip", "pc", "RIP"])
    def test_program_counter(self, session: Session, target: DrgnTarget, text: str) -> None:
        (place,) = session.places(text)
        assert place.address == target.selection.frame.pc

    def test_sums_and_dereferences(self, session: Session, target: DrgnTarget) -> None:
        sp, read = target.selection.frame.sp, target.kernel.prog.read_u64
        for text, expected in {
            "$sp": sp,
            "$rsp+0x10": sp + 16,
            "$rsp - 8": sp - 8,
            "*$rsp": read(sp),
            "*($rsp + 8)": read(sp + 8),
            "*$rsp + 8": read(sp) + 8,
            "$esp": sp & 0xFFFFFFFF,
            "-1": (1 << 64) - 1,
        }.items():
            assert target.evaluate(text) == expected, text

    def test_of_the_selected_frame(self, session: Session, target: DrgnTarget) -> None:
        frame = target.selection.select_frame(1)
        assert [place.address for place in session.places("$pc")] == [frame.pc]
        innermost, *others = target.selection.frames()
        # Which frames have all registers depends on where the CPU was stopped: those that an exception interrupted.
        number, lost = next(
            (each.number, name) for each in others for name in innermost.registers if name not in each.registers
        )
        target.selection.select_frame(number)
        with pytest.raises(ExpressionError, match=f"not saved in frame {number}"):
            target.evaluate(f"${lost}")

    def test_a_symbol_wins_over_a_register(self, session: Session, target: DrgnTarget) -> None:
        """`sp`, `pc` and the like may be names of symbols; with a $ they are registers."""
        assert session.main is not None
        taken = [name for name in ("es", "cs", "sp", "gs", "fp", "ip") if session.main.image.symbols.exact(name)]
        for name in taken:
            assert session.places(name)[0].address != target.evaluate(f"${name}")

    @pytest.mark.parametrize("text", ["$foo", "foo", "$rsp +", "(rip", "$rip $rsp", "*", "$xmm0", "1" * 30])
    def test_what_it_does_not_know_is_one_line(self, target: DrgnTarget, text: str) -> None:
        with pytest.raises(ExpressionError) as error:
            target.evaluate(text)
        assert len(str(error.value).splitlines()) == 1

    def test_a_broken_pointer(self, target: DrgnTarget) -> None:
        with pytest.raises(TargetError):
            target.evaluate("*0xffffffffffffff00")

    def test_the_evaluator_is_asked_last(self, target: DrgnTarget) -> None:
        prog = target.kernel.prog
        values = {
            "an int": (-1, (1 << 64) - 1),
            "a pointer": (prog["init_task"].stack, prog["init_task"].stack.value_()),
            "a struct": (prog["init_task"], prog["init_task"].address_),
            "a function": (prog["schedule"], prog["schedule"].address_),
        }
        with target.evaluating(lambda text: values[text][0]):
            for text, (_, expected) in values.items():
                assert target.evaluate(text) == expected, text
        with target.evaluating(lambda text: "a string"), pytest.raises(ExpressionError, match="str"):
            target.evaluate("anything")


def test_arguments_are_not_changed(session: Session) -> None:
    """A prompt keeps what it parsed."""
    arguments = argparse.Namespace(names=["rip"], json=False)
    list(COMMANDS["regs"].run(session, arguments))
    assert arguments == argparse.Namespace(names=["rip"], json=False)


class _RunningCpu:
    """A CPU whose stack pointer is another one each time that it is looked at, or the same."""

    def __init__(self, registers: dict[str, int], step: int) -> None:
        self.registers, self.step = registers, step

    def of(self, cpu: int) -> dict[str, int]:
        self.registers = {**self.registers, "rsp": self.registers["rsp"] + self.step}
        return self.registers


@pytest.mark.parametrize("step", [0, 8])
def test_a_cpu_that_runs_on(session: Session, target: DrgnTarget, step: int) -> None:
    """A running kernel: its callers are told only if the stack was the same one before and after it was read."""
    task = next(task for task in asleep(session) if task.comm.string_() == b"kthreadd")
    sleeper = Selection(target.kernel)
    sleeper.select_task(task)
    innermost = sleeper.frames()
    live = Kernel(target.kernel.prog, target.kernel.image, live=True)
    selection = Selection(live, _RunningCpu(dict(innermost[0].registers), step))
    selection._select(selection.select_task(task)._replace(cpu=0))
    found = selection.frames()
    if step:
        assert len([frame for frame in found if not frame.is_inline]) == 1
        assert found[-1].alone
    else:
        assert [(frame.pc, frame.sp) for frame in found][-3:] == [(frame.pc, frame.sp) for frame in innermost][-3:]
        assert not any(frame.alone for frame in found)


def test_a_running_kernel_whose_registers_nobody_has(session: Session, target: DrgnTarget) -> None:
    """/proc/kcore: tasks that run have no frames, in one line; those that sleep have."""
    live = Kernel(target.kernel.prog, target.kernel.image, live=True)
    selection = Selection(live)
    assert selection.thread.tid == 1
    assert len(selection.frames()) > 3
    selection.select_cpu(0)
    with pytest.raises(TargetError, match="is running: its registers are in the CPU"):
        selection.frames()
