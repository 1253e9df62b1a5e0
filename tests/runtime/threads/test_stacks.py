"""What kstack and kx make of a dump's stacks and memory.

Truth: drgn's own stack traces and reads, and the guest's /proc/vmallocinfo.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from drgn.helpers.linux.pid import for_each_task
from support.answers import outputs, rows
from support.threads import asleep

from kplug.errors import TargetError, UsageError
from kplug.model import Annotation
from kplug.outputs import Problem, Table
from kplug.runtime.drgn_target import DrgnTarget
from kplug.session import Session

if TYPE_CHECKING:
    from vmimages import DumpSet


pytestmark = [pytest.mark.kernel, pytest.mark.boot]


class TestStack:
    def test_bounds_are_the_guests(self, session: Session, target: DrgnTarget, dumps: DumpSet) -> None:
        """Of all tasks' stacks that the guest listed when it was alive; a guard page is in the listing, too."""
        listed = {
            int(start, 16): int(end, 16) - 4096
            for start, end in re.findall(
                r"^0x(\w+)-0x(\w+).*(?:kernel_clone|fork_idle)", dumps.truth.text("vmallocinfo"), re.MULTILINE
            )
        }
        checked = 0
        for task in asleep(session):
            target.selection.select_task(task)
            sp = target.stack_pointer()
            assert sp is not None
            bounds = target.stack_bounds(sp)
            assert bounds is not None
            if bounds.start in listed:
                assert bounds.end == listed[bounds.start]
                checked += 1
        assert checked > 20

    def test_frames_are_where_the_unwinder_found_them(self, session: Session, target: DrgnTarget) -> None:
        """Of every task that sleeps: the slot below each frame's stack pointer holds where it goes on."""
        for task in asleep(session):
            target.selection.select_task(task)
            trace = [frame for frame in target.kernel.prog.stack_trace(task) if not frame.is_inline]
            expected = {frame.sp - 8: frame.pc for frame in trace[1:] if not frame.interrupted}
            found = {
                int(row["address"]): int(row["value"])
                for row in rows(session, "stack")
                if row["frame"] is not None and row["kind"] == "ret"
            }
            assert found == expected, task.comm

    def test_every_word_is_there(self, session: Session, target: DrgnTarget) -> None:
        target.selection.select_thread(1)
        sp = target.selection.frame.sp
        bounds = target.stack_bounds(sp)
        assert bounds is not None
        found = rows(session, "stack")
        assert [int(row["address"]) for row in found] == list(range(sp, bounds.end, 8))
        assert [int(row["value"]) for row in found] == [
            target.kernel.prog.read_u64(at) for at in range(sp, bounds.end, 8)
        ]

    def test_a_return_address_of_a_frame_follows_a_call(self, session: Session, target: DrgnTarget) -> None:
        """The unwinder's return addresses, which it has from debug information, are so by their bytes alone."""
        from kplug.commands.return_addresses import ReturnAddresses

        returns = ReturnAddresses(session, session.resolver.where)
        wrong, count = [], 0
        for task in asleep(session):
            trace = list(target.kernel.prog.stack_trace(task))
            for inner, frame in zip(trace, trace[1:]):
                if frame.interrupted or frame.pc >> 63 == 0 or frame.pc == inner.pc:
                    continue
                count += 1
                if not returns.follows_call(frame.pc):
                    wrong.append((hex(frame.pc), frame.name))
        assert count > 200
        # The first address of a task that has not run yet was never called from: the kernel put it there.
        assert {name for _, name in wrong} <= {"ret_from_fork", "ret_from_fork_asm", "secondary_startup_64"}

    def test_only_return_addresses(self, session: Session, target: DrgnTarget) -> None:
        target.selection.select_thread(1)
        assert rows(session, "stack", "-r") == [row for row in rows(session, "stack") if row["kind"] in ("ret", "ip")]

    def test_what_a_return_address_is_in_is_the_caller(self, session: Session, target: DrgnTarget) -> None:
        """Looked up at the call, as the kernel's traces do: it may be the function's last instruction."""
        target.selection.select_thread(1)
        for row in rows(session, "stack", "-r"):
            if row["kind"] != "ret":
                continue  # where the task was in user space
            annotation = row["annotation"]
            assert isinstance(annotation, Annotation)
            assert annotation.address == row["value"]
            assert annotation.layers == session.resolver.where(int(row["value"]) - 1).layers

    def test_stale_ones_are_marked(self, session: Session, target: DrgnTarget) -> None:
        target.selection.select_thread(1)
        found = rows(session, "stack", "-r")
        assert {row["mark"] for row in found if row["stale"]} <= {"?"}
        assert all(row["frame"] is None for row in found if row["stale"])

    def test_where_an_exception_came(self, session: Session, target: DrgnTarget) -> None:
        """A task in a system call: its user program counter is where the unwinder's last frame says."""
        target.selection.select_thread(1)
        last = target.selection.frames()[-1]
        assert not last.pc >> 63
        (row,) = [row for row in rows(session, "stack") if row["kind"] == "ip"]
        assert (row["frame"], int(row["value"]), row["annotation"]) == (last.number, last.pc, None)

    def test_user_mode(self, session: Session, target: DrgnTarget) -> None:
        cpu = target.selection.threads()[-1]
        target.selection.select_cpu(cpu.cpu or 0)
        with pytest.raises(TargetError, match="user"):
            outputs(session, "stack")

    def test_from_an_address(self, session: Session, target: DrgnTarget) -> None:
        sp = target.selection.frame.sp
        found = rows(session, "stack", f"{sp + 3:#x}", "-n", "5")
        assert [int(row["address"]) for row in found] == [sp + 8 * number for number in range(5)]


class TestMemoryWords:
    @pytest.mark.parametrize("size", [1, 2, 4, 8])
    def test_words_are_memorys(self, session: Session, target: DrgnTarget, size: int) -> None:
        prog, start = target.kernel.prog, session.places("init_task")[0].address
        found = rows(session, "x", "init_task", "33", "--size", str(size))
        reads = {1: prog.read_u8, 2: prog.read_u16, 4: prog.read_u32, 8: prog.read_u64}
        assert [int(row["value"]) for row in found] == [reads[size](start + size * number) for number in range(33)]
        assert [int(row["offset"]) for row in found] == [size * number for number in range(33)]

    def test_pointers_are_followed(self, session: Session, target: DrgnTarget) -> None:
        """A list of tasks goes in a circle: at most as deep as asked, and never round it twice."""
        prog = target.kernel.prog
        head = prog["init_task"].tasks.address_of_().value_()
        found = rows(session, "x", f"{head:#x}", "1", "-fff")
        assert [row["depth"] for row in found] == [0, 1, 2, 3]
        for outer, inner in zip(found, found[1:]):
            assert inner["address"] == outer["value"]
            assert int(inner["value"]) == prog.read_u64(int(inner["address"]))

    def test_a_loop_is_said(self, session: Session, target: DrgnTarget) -> None:
        """An empty list points to itself."""
        prog = target.kernel.prog
        lone = next(
            node.value_() for task in for_each_task(prog)
            if (node := task.children.address_of_()).value_() == task.children.next.value_()
        )  # fmt: skip
        found = rows(session, "x", f"{lone:#x}", "1", "-ffff")
        assert [row["note"] for row in found] == [None, "points back to here"]

    def test_what_cannot_be_read_is_said_and_the_rest_shown(self, session: Session, target: DrgnTarget) -> None:
        """A guard page below a stack, then the stack."""
        target.selection.select_thread(1)
        bounds = target.stack_bounds(target.selection.frame.sp)
        assert bounds is not None
        found = outputs(session, "x", f"{bounds.start - 16:#x}", "4")
        assert [type(output) for output in found] == [Problem, Table]
        assert f"{bounds.start - 16:#x}-{bounds.start:#x} cannot be read" in str(found[0])

    def test_unknown_names_and_counts(self, session: Session) -> None:
        assert [type(output) for output in outputs(session, "x", "no_such_thing")] == [Problem]
        for words in (("init_task", "0"), ("init_task", "99999999")):
            with pytest.raises(UsageError):
                outputs(session, "x", *words)
