"""The walk of a stack over made-up memory: what drgn finds by frame pointers counts only as far as calls return there.

Truth: the call chains that the tests plant.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

pytest.importorskip("drgn")

from support.fake_frames import FakeFrames
from support.fake_kernel import THREAD_SIZE, FakeKernel
from support.fake_machines import AARCH64, X86_64
from support.fake_tasks import FakeTasks

from kplug.errors import TargetError
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.threads.frame import Frame
from kplug.runtime.threads.selection import Selection
from kplug.runtime.threads.unwinder import Unwinder
from kplug.target import StackBounds

OUTER, OUTERMOST = 0x3200, 0x3300


class Walk:
    """Three functions called one by another; the inner one is where a test says."""

    def __init__(self, fake: FakeKernel) -> None:
        self.planted = FakeFrames(fake)
        self.fake = fake
        self.callers = [self.planted.after_call(0x300), self.planted.after_call(0x280)]
        self.planted.link(0x3100, OUTER, self.callers[0])
        self.planted.link(OUTER, OUTERMOST, self.callers[1])

    def frames(self, pc: int, *, sp: int = 0x3080, fp: int = 0x3100, guesses: bool = False, **more: int) -> list[Frame]:
        stack = self.planted.stack
        bounds = StackBounds(stack, stack + THREAD_SIZE, "a stack", "a test")
        unwinder = Unwinder(self.fake.kernel, (lambda address: bounds) if guesses else None)
        found = unwinder.of_registers(self.planted.registers(pc, sp, fp, **more), "a stack")
        assert found is not None
        assert [frame.number for frame in found] == list(range(len(found)))
        return list(found)


@pytest.fixture
def x86() -> Walk:
    return Walk(FakeKernel(X86_64))


@pytest.fixture
def arm() -> Walk:
    return Walk(FakeKernel(AARCH64))


def counters(frames: list[Frame]) -> list[int]:
    return [frame.pc for frame in frames]


@pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=["x86_64", "aarch64"])
def test_callers_that_calls_return_to(machine: object) -> None:
    walk = Walk(FakeKernel(machine))  # type: ignore[arg-type]
    inner = walk.planted.code(0x210)
    found = walk.frames(inner)
    assert counters(found) == [inner, *walk.callers]
    assert not any(frame.guessed or frame.lost for frame in found)
    assert found[0].function == "kernel_clone"


@pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=["x86_64", "aarch64"])
def test_a_caller_that_no_call_returns_to_is_none(machine: object) -> None:
    walk = Walk(FakeKernel(machine))  # type: ignore[arg-type]
    walk.planted.link(0x3100, OUTER, walk.planted.code(0x1240))  # code, but no call before it
    found = walk.frames(walk.planted.code(0x210), guesses=machine is AARCH64)
    assert counters(found) == [walk.planted.code(0x210)]
    assert found[-1].lost


def test_a_guess_is_marked(x86: Walk) -> None:
    """The next word that follows a call; what is found by way of it is no better."""
    x86.planted.link(0x3100, OUTER, x86.planted.code(0x1240))
    back = x86.planted.after_call(0x380)
    x86.fake.words(x86.planted.stack + 0x30C0, x86.planted.code(0x1248), back)
    x86.fake.words(x86.planted.stack + 0x3100, x86.planted.stack + OUTER, x86.callers[0])
    inner = x86.planted.code(0x210)
    # Its frame pointer leads astray.
    x86.planted.link(0x3180, OUTER, x86.planted.code(0x1240))
    found = x86.frames(inner, fp=0x3180, guesses=True)
    assert counters(found)[:2] == [inner, back]
    assert [frame.guessed for frame in found] == [False, *(True for _ in found[1:])]
    assert found[-1].lost  # and no guess is built on a guess


@pytest.mark.parametrize("where", ["NULL", "an object", "data", "a program"])
def test_a_jump_to_where_no_code_is(x86: Walk, where: str) -> None:
    """The call has left its return address on top of the stack. The frame pointer is its caller's."""
    place = {"NULL": 0, "an object": x86.fake.take(64), "data": x86.planted.code(0x5000), "a program": 0x401000}[where]
    back = x86.planted.after_call(0x380)
    x86.fake.words(x86.planted.stack + 0x3080, back)
    found = x86.frames(place)
    assert counters(found) == [place, back, *x86.callers]
    assert [frame.interrupted for frame in found] == [True, False, False, False]
    assert found[1].sp == x86.planted.stack + 0x3088
    assert found[0].function is None
    assert not any(frame.guessed or frame.lost for frame in found)


def test_a_jump_that_was_no_call(x86: Walk) -> None:
    """Frame pointers that lead through data are no frames."""
    place = x86.fake.take(64)
    x86.planted.link(0x3100, OUTER, x86.fake.take(64))
    found = x86.frames(place)
    assert counters(found) == [place]
    assert found[-1].lost


def test_a_jump_to_null_with_the_return_address_in_a_register(arm: Walk) -> None:
    back = arm.planted.after_call(0x380)
    found = arm.frames(0, lr=back)
    assert counters(found) == [0, back, *arm.callers]
    assert [frame.interrupted for frame in found] == [True, False, False, False]


def test_an_exception_saved_the_registers(arm: Walk) -> None:
    """Not only the frame pointer: a function that made no record has its caller in the link register."""
    back = arm.planted.after_call(0x380)
    saved = arm.planted.registers(0, 0x3080, 0x3100, lr=back)
    record = arm.planted.exception(0x2800, saved)
    handler = arm.planted.after_call(0x480)
    arm.planted.link(0x2780, record, handler)
    inner = arm.planted.code(0x210)
    found = arm.frames(inner, sp=0x2700, fp=0x2780)
    assert counters(found) == [inner, handler, 0, back, *arm.callers]
    assert [frame.interrupted for frame in found] == [True, False, True, False, False, False]
    assert found[2].sp == arm.planted.stack + 0x3080
    assert found[2].saved_at == arm.planted.stack + 0x2800 + 8 * arm.planted.order.index("pc")


def test_a_record_that_says_that_it_is_in_saved_registers(arm: Walk) -> None:
    """Since 6.13 it has no caller: 0, 0, and what it is."""
    inner, interrupted = arm.planted.code(0x210), arm.planted.code(0x500)
    record = arm.planted.exception(0x2800, arm.planted.registers(interrupted, 0x3080, 0x3100))
    arm.fake.words(arm.planted.stack + record, 0, 0, 2)
    handler = arm.planted.after_call(0x480)
    arm.planted.link(0x2780, record, handler)
    found = arm.frames(inner, sp=0x2700, fp=0x2780)
    assert counters(found) == [inner, handler, interrupted, *arm.callers]


def test_a_stack_ends_with_the_program(x86: Walk) -> None:
    unwinder = Unwinder(x86.fake.kernel)
    registers = {**x86.planted.registers(0x401000, 0, 0), "rsp": 0x7FFF0000}
    found = unwinder.of_registers(registers, "a stack")
    assert found is not None
    assert [(frame.pc, frame.lost) for frame in found] == [(0x401000, False)]


def test_registers_that_nobody_has(x86: Walk) -> None:
    assert Unwinder(x86.fake.kernel).of_registers({}, "a stack") is None


def test_a_task_that_has_ended(x86: Walk) -> None:
    """A zombie waits for its parent, and its stack is freed."""
    FakeTasks(x86.fake).task(42, "ended")
    selection = Selection(x86.fake.kernel)
    selection.select_thread(42)
    with pytest.raises(TargetError, match=r"42 \(ended\) has ended: it is a zombie, whose stack is freed"):
        selection.frames()


class RunningCpus:
    """CPUs that stand in one place while they run."""

    def __init__(self, registers: Mapping[str, int]) -> None:
        self._registers = registers

    def of(self, cpu: int) -> Mapping[str, int]:
        return self._registers


@pytest.mark.parametrize("its_own", [True, False])
def test_a_cpu_that_has_gone_to_another_task(x86: Walk, its_own: bool) -> None:
    """Of a kernel that runs: the frames are another task's by the time that the CPU tells its registers."""
    tasks = FakeTasks(x86.fake)
    tasks.task(42, "busy", stack=x86.planted.stack if its_own else x86.fake.take(0x4000, 0x4000))
    live = Kernel(x86.fake.kernel.prog, x86.fake.kernel.image, live=True, vmcoreinfo=x86.fake.kernel.vmcoreinfo)
    selection = Selection(live, RunningCpus(x86.planted.registers(x86.planted.code(0x210), 0x3080, 0x3100)))
    selection._select(selection.select_thread(42)._replace(cpu=1))
    if its_own:
        assert counters(list(selection.frames()))[1:] == x86.callers
        return
    with pytest.raises(TargetError, match="runs there no more: CPU 1 has another task now"):
        selection.frames()


@pytest.mark.parametrize("names_it", [True, False], ids=["its call names the callee", "its call is of another"])
def test_a_frame_that_the_frame_pointer_leaves_out(x86: Walk, names_it: bool) -> None:
    """The callee has not set a frame pointer, so that it leads to the caller's caller."""
    inner, missing, outer = x86.planted.code(0x20), 0x150, 0x300
    back = x86.planted.after_call(missing, 0x10 if names_it else 0x200)
    x86.planted.link(0x3100, OUTER, x86.planted.after_call(outer, 0x100))
    x86.fake.words(x86.planted.stack + 0x30C0, back)
    found = x86.frames(inner)
    between = [back] if names_it else []
    assert counters(found) == [inner, *between, x86.planted.code(outer), x86.callers[1]]
    assert not any(frame.guessed for frame in found)
