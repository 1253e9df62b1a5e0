"""A kernel that died in an interrupt, as a core in gdb: kstack has the frames of the prompt's bt, which are held
against the kernel's own words in tests/runtime/threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("drgn")

from support.answers import rows
from support.gdbhelp import run
from support.open_dumps import session_in

from kplug.runtime.drgn_target import DrgnTarget
from kplug.runtime.threads.frame import Frame

if TYPE_CHECKING:
    from vmimages import DumpSet

    from kplug.session import Session

Answers = dict[str, list[dict[str, object]]]
# Fewer than there are on the IRQ stack from the stack pointer up.
WORDS = 88

pytestmark = [pytest.mark.kernel, pytest.mark.boot]


@pytest.fixture(scope="module")
def died() -> DumpSet:
    from vmimages import death

    return death("amd64-6.1", "irq", quiet=True)


@pytest.fixture(scope="module")
def prompt(died: DumpSet) -> Session:
    return session_in(died)


@pytest.fixture(scope="module")
def called(prompt: Session) -> Frame:
    """Who called panic(), which does not return: what follows the call is another function."""
    assert isinstance(prompt.target, DrgnTarget)
    frames = prompt.target.selection.frames()
    return frames[next(frame.number for frame in frames if frame.function == "panic") + 1]


@pytest.fixture(scope="module")
def told(died: DumpSet, prompt: Session, called: Frame, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What gdb answers on the CPU that died, in one run: it takes seconds to read so much debug information."""
    assert isinstance(prompt.target, DrgnTarget)
    cpu = prompt.target.selection.thread.cpu
    assert cpu is not None
    session = run(
        ["set kplug lines off", "kaslr --apply", f"thread {cpu + 1}", "kstack --json", "set kplug drgn off",
         f"kstack -n {WORDS} --json", f"frame {called.number}", "kwhere --json"],
        tmp_path_factory.mktemp("gdb"), vmlinux=died.files.vmlinux,
        before=[f"core-file {died.paths['elf-paging']}"],
    )  # fmt: skip
    return {result.command: result.json for result in session.results if "--json" in result.command}


def numbered(found: list[dict[str, object]]) -> list[tuple[int, int, str]]:
    """The frame, the saved program counter and the kind of each word that belongs to a frame."""
    return [
        (int(str(row["frame"])), int(str(row["value"]), 16), str(row["kind"]))
        for row in found
        if row["frame"] is not None
    ]


def test_the_frames_are_the_prompts(prompt: Session, told: Answers) -> None:
    """Across the exception, and from the IRQ stack to the task's."""
    expected = [
        (row["frame"], int(row["value"]), row["kind"]) for row in rows(prompt, "stack") if row["frame"] is not None
    ]
    assert {kind for *_, kind in expected} == {"ret", "ip"}
    assert numbered(told["kstack --json"]) == expected


def test_without_drgn_no_frame_is_invented(prompt: Session, told: Answers) -> None:
    """gdb takes words of the saved registers for frames; they follow no call."""
    real = {int(row["value"]) for row in rows(prompt, "stack") if row["frame"] is not None}
    values = [value for _, value, _ in numbered(told[f"kstack -n {WORDS} --json"])]
    assert len(values) >= 4
    assert set(values) <= real


def test_a_caller_is_told_by_its_call(told: Answers, called: Frame) -> None:
    (answer,) = told["kwhere --json"]
    assert int(str(answer["address"]), 16) == called.pc
    layers = answer["layers"]
    assert isinstance(layers, list)
    symbol = next(layer for layer in layers if layer["kind"] == "symbol")
    assert symbol["name"].partition(".")[0] == called.function
