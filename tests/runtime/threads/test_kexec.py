"""A real crash dump, with a vmlinux and without: registers and frames of the CPUs that the kernel saved them of.

Truth: the trace and the registers that the kernel itself wrote to its console, and the files that the notes are in.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import drgn
import pytest
from support.answers import outputs, rows
from support.open_dumps import session_in
from support.threads import target_of

from kplug import model
from kplug.arch.registers import canonical
from kplug.errors import TargetError
from kplug.outputs import Log
from kplug.runtime.attached import session_for
from kplug.runtime.drgn_target import DrgnTarget
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import DumpSet

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


# The first is asked by `make test`; the others take minutes to make, and `make test-all` asks them too.
KERNELS = ("amd64-6.1", "amd64-6.12", "arm64-6.12", "amd64-sid")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "crashed" in metafunc.fixturenames:
        kernels = KERNELS if metafunc.config.option.whole else KERNELS[:1]
        metafunc.parametrize("crashed", kernels, indirect=True, scope="module")


@pytest.fixture(scope="module")
def crashed(request: pytest.FixtureRequest) -> DumpSet:
    from vmimages import kexec_dumps

    return kexec_dumps(request.param, quiet=True)


OPENED = {"vmlinux": ("vmcore", True), "no vmlinux": ("vmcore", False), "makedumpfile, no vmlinux": ("zlib-d31", False)}


@pytest.fixture(scope="module", params=OPENED.values(), ids=OPENED.keys())
def session(request: pytest.FixtureRequest, crashed: DumpSet) -> Session:
    form, vmlinux = request.param
    if form not in crashed.paths:
        pytest.skip(f"no tool here makes {form}")
    if form != "vmcore" and crashed.files.name != KERNELS[0]:
        pytest.skip("makedumpfile 1.7 takes pages of 6.12 and newer for free that are not")
    return session_in(crashed, form, vmlinux=vmlinux)


@pytest.fixture
def target(session: Session) -> DrgnTarget:
    target = target_of(session)
    target.selection.select_cpu(2)
    return target


def test_frames_are_the_kernels_own_trace(crashed: DumpSet, target: DrgnTarget) -> None:
    trace = re.split(r"Call [Tt]race:|RIP:|SMP:", crashed.truth.text("console"))[1]
    said = re.findall(r"\] +([a-z_]\w+)[\w.]*\+0x", trace)
    # From where the kernel saved the registers; it printed its trace a little earlier, in panic().
    shared = said[said.index("sysrq_handle_crash") :]
    selection = target.selection
    frames = [(frame.function or "").partition(".")[0] for frame in selection.frames() if not frame.is_inline]
    assert str(selection.thread) == f"{session_pid(crashed)} (sh) on CPU 2, crashed"
    # panic() calls vpanic() since 6.17, which the compiler may have taken into it.
    assert frames[:2] == ["__crash_kexec", "vpanic" if "vpanic" in said else "panic"]
    assert frames[frames.index("sysrq_handle_crash") :][: len(shared)] == shared


def test_the_log_goes_on_as_the_console_does(crashed: DumpSet, session: Session) -> None:
    (log,) = outputs(session, "log", "--plain")
    assert isinstance(log, Log)
    said = [line for line in crashed.truth.text("console").splitlines() if line.startswith("[")]
    shown = iter(log.text.decode().splitlines())
    assert said
    assert [line for line in said if line not in shown] == []  # an iterator: in this order


def session_pid(crashed: DumpSet) -> str:
    (pid,) = re.findall(r"CPU: 2 (?:UID: 0 )?PID: (\d+) Comm: sh", crashed.truth.text("console"))
    return str(pid)


def test_registers_of_the_program_that_entered(crashed: DumpSet, target: DrgnTarget) -> None:
    if crashed.files.arch != "amd64":
        pytest.skip("only x86's kernel tells them")
    (said,) = re.findall(r"RIP: 0033:0x([0-9a-f]+)", crashed.truth.text("console"))
    assert target.selection.frames()[-1].pc == int(said, 16)


def test_kwhere_and_kregs_without_arguments(session: Session, target: DrgnTarget) -> None:
    counter = canonical("pc", target.kernel.machine)[0]
    assert rows(session, "regs", counter)[0]["value"] == target.evaluate("$pc")
    symbol = session.resolver.where(target.evaluate("$pc")).last(model.SYMBOL)
    assert symbol is not None
    assert symbol.name == "__crash_kexec"


def test_cpus_are_those_that_the_notes_are_of(crashed: DumpSet, session: Session, target: DrgnTarget) -> None:
    """The file has three notes, CPU 1 was offline. Truth: the PIDs in the notes, and what QEMU's CPUs ran."""
    shown = [row for row in rows(session, "notes") if row["name"] == "PRSTATUS"]
    assert [row["cpu"] for row in shown] == [0, 2, 3]
    assert shown[1]["pr_pid"] == int(session_pid(crashed))
    for row in shown:
        target.selection.select_cpu(row["cpu"])
        innermost = target.selection.frames()[0].registers
        assert {name: innermost[name] for name in row["registers"] if name in innermost} == {
            name: value for name, value in row["registers"].items() if name in innermost
        }
        assert target.selection.thread.tid == row["pr_pid"]
    target.selection.select_cpu(1)
    with pytest.raises(TargetError, match=r"on CPU 1: the dump has no registers of this CPU, "):
        target.selection.frames()


def test_a_file_alone_does_not_tell_the_cpus(crashed: DumpSet, session: Session) -> None:
    shown = [row for row in rows(session, "notes", str(crashed.paths["vmcore"])) if row["name"] == "PRSTATUS"]
    assert [row["cpu"] for row in shown] == [None] * 3
    assert shown[1]["says"].startswith(f"pr_pid {session_pid(crashed)}, ")


def test_without_symbols_it_is_said_that_the_cpus_are_not_known(crashed: DumpSet) -> None:
    """The dump whose disk was full has neither the kernel's types nor its symbols."""
    if "incomplete-d31" not in crashed.paths:
        pytest.skip("no small filesystem could be mounted")
    target = target_of(session_in(crashed, "incomplete-d31", vmlinux=False))
    with pytest.raises(TargetError, match=r"^which CPUs the registers of the dump's 3 notes are of is not known: "):
        target.selection.threads()


def test_the_shell_answers_about_the_crashed_frame(crashed: DumpSet) -> None:
    command = ["where", "-c", str(crashed.paths["vmcore"]), "--brief", "$pc", "$sp"]
    result = subprocess.run([sys.executable, "-m", "kplug", *command], capture_output=True, text=True, check=True)
    counter, stack = result.stdout.splitlines()
    assert "  __crash_kexec+0x" in counter
    assert f"stack of {session_pid(crashed)} (sh)+0x" in stack


def test_at_drgns_prompt_without_debug_information(crashed: DumpSet) -> None:
    prog = drgn.Program()
    prog.set_core_dump(crashed.paths["vmcore"])
    selection = target_of(session_for(prog)).selection
    assert [thread.cpu for thread in selection.threads()] == [0, 2, 3]
    selection.select_cpu(2)
    pointer = canonical("sp", target_of(session_for(prog)).kernel.machine)[0]
    (said,) = rows(session_for(prog), "regs", pointer)
    assert said["value"] == selection.frames()[0].sp
    shown = [row for row in rows(session_in(crashed, "vmcore", vmlinux=False), "notes") if row["cpu"] == 2]
    assert shown[0]["registers"][pointer] == said["value"]
