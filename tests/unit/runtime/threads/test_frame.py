"""Where frames are that were found by their records alone, as the commands ask."""

from __future__ import annotations

from kplug.commands.return_addresses import frame_slots
from kplug.commands.stacks_entered import stacks_entered
from kplug.runtime.threads.frame import Frame, frame_places
from kplug.target import StackBounds

IRQ, TASK = (StackBounds(start, start + 0x1000, owner, "test") for start, owner in ((0x1000, "IRQ"), (0x8000, "task")))


def frame(number: int, record: int, sp: int = 0, inlined: bool = False) -> Frame:
    return Frame(number, 0xFFFF0000 + 0x100 * number, sp, None, {"x29": record}, inlined, False)


# An interrupt's: #2 is inlined into #3, and has its registers; the record of #4 is on the task's stack.
FRAMES = [
    frame(0, 0x1100, 0x10F0),
    frame(1, 0x1200),
    frame(2, 0x1300, inlined=True),
    frame(3, 0x1300),
    frame(4, 0x8100),
]


def test_a_return_address_is_in_the_callees_record() -> None:
    places = frame_places(FRAMES, 8)
    assert [place.saved_at for place in places] == [None, 0x1108, 0x1208, 0x1208, 0x1308]
    assert [place.record for place in places] == [0, 0x1200, 0x1300, 0x1300, 0x8100]


def test_a_record_is_on_the_stack_of_its_frame() -> None:
    entered = stacks_entered(
        frame_places(FRAMES, 8), lambda at: next((s for s in (IRQ, TASK) if s.start <= at < s.end), None)
    )
    assert entered == {0: IRQ, 4: TASK}
    assert stacks_entered(FRAMES, lambda at: IRQ if at < 0x2000 else TASK) == entered


def test_an_old_copy_of_a_return_address_is_passed_over() -> None:
    callee, caller = frame(0, 0x8010, 0x8000), frame(1, 0x8090, 0x8080)
    words = [0] * 64
    words[3] = words[15] = caller.pc  # after the callee's record, and just below the caller's stack pointer
    assert set(frame_slots(frame_places([callee, caller], 8), 0x8000, words, 8)) == {0x8018}


def test_a_callee_without_a_record_of_its_own_has_its_callers() -> None:
    callee, caller = frame(0, 0x8090, 0x8000), frame(1, 0x8090, 0x8080)
    assert frame_places([callee, caller], 8)[1].saved_at is None
