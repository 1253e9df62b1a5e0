"""Kernels that really crash: what comes first is the task that crashed, as the kernel's own last words have it."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("drgn")

from support.kept_guests import kept_guest
from vmimages import VM, DumpSet, VMError
from vmimages.deaths import write_memory

from kplug import model
from kplug.commands import COMMANDS
from kplug.outputs import Output, Table
from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.opening.request import Request
from kplug.runtime.session import open_session
from kplug.runtime.threads.frame import Frame
from kplug.runtime.threads.selection import Selection
from kplug.session import Session
from kplug.summary import summarize

_QEMU = "qemu-system-x86_64"
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.boot,
    pytest.mark.skipif(shutil.which(_QEMU) is None, reason=f"needs {_QEMU}"),
]
_FORMATS = ("elf-paging", "makedumpfile-zlib-d31")
_SECONDS = 600.0
# mov 0x18, %rax
_READ_NEAR_NULL = bytes.fromhex("488b042518000000")


class Crash(NamedTuple):
    """A kernel that has crashed: the dump as seen by kplug, and what was said on the console."""

    session: Session
    console: str

    @property
    def selection(self) -> Selection:
        assert isinstance(self.session.target, DrgnTarget)
        return self.session.target.selection

    def said(self, pattern: str) -> tuple[str, ...]:
        match = re.search(pattern, self.console)
        assert match is not None, self.console
        return match.groups()

    def trace(self, unsure: str = "") -> list[str]:
        """The functions of the (last) call trace that the kernel itself is sure of; with "?", those that it is not."""
        text = self.console.rpartition("<TASK>\n")[2].partition("</TASK>")[0]
        mark = re.escape(f"{unsure} ") if unsure else ""
        return re.findall(rf"^\[[ .\d]+\]  {mark}(\w+)(?:\.\w+)*\+0x", text, re.MULTILINE)

    def functions(self) -> list[str]:
        return [frame.function or "" for frame in self.selection.frames() if not frame.is_inline]


def _crash(vm: VM, command: str, truth: Path) -> None:
    """Run what crashes the guest; what it said meanwhile is kept. The machine is stopped then."""
    with pytest.raises(VMError):
        vm.run(command, timeout=0.2)
    deadline = time.monotonic() + _SECONDS
    while "end Kernel panic" not in vm.console.read_text(errors="replace"):
        assert time.monotonic() < deadline, vm.console.read_text(errors="replace")
        time.sleep(0.1)
    vm.stop()
    (truth / "console").write_text(vm.console.read_text(errors="replace").replace("\r", ""))


def _opened(dumps: DumpSet, form: str = "elf") -> Crash:
    files = dumps.files
    request = Request(
        str(dumps.paths[form]), symbols=(str(files.vmlinux),), module_directories=(str(files.debug_modules),)
    )
    return Crash(open_session(request), dumps.truth.text("console"))


def _follow_null_in_a_module(vm: VM, truth: Path) -> None:
    function = int(vm.run("grep ' lo_ioctl' /proc/kallsyms").split()[0], 16)
    write_memory(vm, function + 9, _READ_NEAR_NULL)  # after ENDBR64 and the room for ftrace
    _crash(vm, "losetup /dev/loop0 /init", truth)


def _jump_into_data(vm: VM, truth: Path) -> None:
    symbols = {row.split()[2]: row.split()[0] for row in vm.run("cat /proc/kallsyms").splitlines()}
    (truth / "target").write_text(symbols["init_task"])
    target = bytes.fromhex(symbols["init_task"])[::-1]
    jump = b"\x48\xb8" + target + b"\xff\xe0"  # mov $target, %rax; jmp *%rax
    write_memory(vm, int(symbols["lo_ioctl"], 16) + 9, jump)
    _crash(vm, "losetup /dev/loop0 /init", truth)


def _ask_for_a_crash(vm: VM, truth: Path) -> None:
    _crash(vm, "echo c > /proc/sysrq-trigger", truth)


@pytest.fixture(scope="module")
def in_a_module() -> Crash:
    """A NULL pointer followed in a module, and panic_on_oops."""
    append = ("panic=0", "oops=panic")
    return _opened(kept_guest("null-in-a-module", "amd64-6.12", _follow_null_in_a_module, append=append))


@pytest.fixture(scope="module")
def sysrq_dumps() -> dict[str, Crash]:
    """`echo c > /proc/sysrq-trigger`, under page-table isolation."""
    dumps = kept_guest("sysrq", "amd64-6.1", _ask_for_a_crash, _FORMATS, append=("panic=0",), pti=True)
    return {form: _opened(dumps, form) for form in _FORMATS}


@pytest.fixture(params=_FORMATS)
def by_sysrq(request: pytest.FixtureRequest, sysrq_dumps: dict[str, Crash]) -> Crash:
    return sysrq_dumps[request.param]


def _interrupted(frames: list[Frame]) -> Frame:
    """The frame where the exception came; the innermost, where the CPU was stopped, is another."""
    return next(frame for frame in frames if frame.interrupted and frame.pc != frames[0].pc)


def _is_subsequence(names: list[str], of: list[str]) -> bool:
    left = iter(of)
    return all(name in left for name in names)


def test_the_task_that_crashed_comes_first(by_sysrq: Crash) -> None:
    cpu, pid, comm = by_sysrq.said(r"CPU: (\d+) (?:UID: \d+ )?PID: (\d+) Comm: (\S+)")
    thread = by_sysrq.selection.thread
    assert (thread.crashed, thread.cpu, thread.tid, thread.comm) == (True, int(cpu), int(pid), comm)
    # The other CPU was taken offline by the panic, and is told of all the same.
    assert sorted(thread.cpu or 0 for thread in by_sysrq.selection.threads()) == [0, 1]


def test_the_stack_is_the_one_on_the_console(by_sysrq: Crash) -> None:
    functions = by_sysrq.functions()
    trace = by_sysrq.trace()
    assert "sysrq_handle_crash" in trace
    # dump_stack() had returned when the machine was stopped; the entry's name is another alias of the same code.
    assert _is_subsequence([name for name in trace if name not in ("dump_stack_lvl", "dump_stack")], functions)


def test_the_stack_ends_with_the_program(by_sysrq: Crash) -> None:
    (rip,) = by_sysrq.said(r"RIP: 0033:0x([0-9a-f]+)")
    last = by_sysrq.selection.frames()[-1]
    assert last.pc == int(rip, 16)
    vma = by_sysrq.session.resolver.where(last.pc).last("vma")
    assert vma is not None
    assert vma.details["path"] == "/bin/busybox"


def test_another_cpu_stopped_by_the_panic(by_sysrq: Crash) -> None:
    crashed = by_sysrq.selection.thread
    try:
        by_sysrq.selection.select_cpu(1 - (crashed.cpu or 0))
        assert "stop_this_cpu" in by_sysrq.functions()
    finally:
        by_sysrq.selection.select((crashed, 0))


def test_the_frame_of_the_exception(in_a_module: Crash) -> None:
    name, offset = in_a_module.said(r"RIP: 0010:(\w+)\+0x([0-9a-f]+)/0x[0-9a-f]+ \[loop\]")
    frames = list(in_a_module.selection.frames())
    frame = _interrupted(frames)
    answer = in_a_module.session.resolver.where(frame.pc)
    assert summarize(answer).head == f"{name}+0x{offset}"
    assert answer.first(model.MODULE).name == "loop"  # type: ignore[union-attr]
    assert answer.last(model.LINE).details["file"] == "drivers/block/loop.c"  # type: ignore[union-attr]
    # Its registers are those that the kernel printed.
    for register in ("RAX", "RBX", "RSI", "RDI", "R12", "R15"):
        (value,) = in_a_module.said(rf"RIP: 0010:[^$]*?\b{register}: ([0-9a-f]{{16}})")
        assert frame.registers[register.lower()] == int(value, 16), register


def test_a_stack_goes_on_through_the_module(in_a_module: Crash) -> None:
    functions = in_a_module.functions()
    assert _is_subsequence(["panic", "page_fault_oops", "asm_exc_page_fault", "lo_ioctl"], functions)
    callers = [name for name in in_a_module.trace() if "ioctl" in name]
    assert len(callers) >= 2
    assert _is_subsequence(callers, functions[functions.index("lo_ioctl") + 1 :])


def test_the_faulting_address(in_a_module: Crash) -> None:
    (cr2,) = in_a_module.said(r"NULL pointer dereference, address: ([0-9a-f]+)")
    command = COMMANDS["regs"]
    parser = command.parser("kregs")
    outputs: list[Output] = list(command.run(in_a_module.session, parser.parse_args(["cr2"])))
    (table,) = outputs
    assert isinstance(table, Table)
    (row,) = table.rows
    assert row["value"] == int(cr2, 16) == 0x18
    assert str(summarize(row["annotation"])) == "NULL+0x18"


def test_the_last_words_are_those_of_the_console(by_sysrq: Crash, in_a_module: Crash) -> None:
    for crash in (by_sysrq, in_a_module):
        (message,) = crash.said(r"Kernel panic - not syncing: (.*)")
        assert isinstance(crash.session.target, DrgnTarget)
        facts = crash.session.target.crash_facts()
        assert facts["panic"] == message
        found = re.search(r"BUG: .*", crash.console)
        assert facts.get("reason") == (found[0] if found else None)


def test_a_jump_into_data() -> None:
    """Where the CPU went is told with the rights it has, and who sent it there is found behind it."""
    dumps = kept_guest("jump-into-data", "amd64-6.12", _jump_into_data, append=("panic=0", "oops=panic"))
    crash, target = _opened(dumps), int(dumps.truth.text("target"), 16)
    frames = list(crash.selection.frames())
    frame = _interrupted(frames)
    assert frame.pc == target
    answer = crash.session.resolver.where(frame.pc)
    assert (answer.region_class, answer.state.permissions) == (model.DATA, "rw-")
    # The kernel's own unwinder ends at the jump; it prints what it sees on the stack all the same, old words too.
    callers = ["blkdev_ioctl", "__x64_sys_ioctl"]
    assert set(callers) <= set(crash.trace("?"))
    assert _is_subsequence(callers, [each.function or "" for each in frames[frame.number + 1 :]])
    assert [each.number for each in frames] == list(range(len(frames)))
