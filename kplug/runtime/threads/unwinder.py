"""The walk of a stack: drgn's frames as far as each one's caller is a return address, and on from where drgn errs.

drgn unwinds by debug information and the kernel's ORC tables. Where it has neither for an address it guesses by frame
pointers, and takes whatever they lead to for a frame. So each caller is checked: the instruction before it must be a
call. The walk goes on where

- the CPU went where there is no code (a call of NULL, of an object). The call left its return address on top of the
  stack, or in the link register.
- nothing says how to unwind the code. The next word on the stack that follows a call may be the return address: a
  guess, as the kernel's own traces mark it with "?".
- an exception saved all registers, and drgn goes on with the frame pointer alone (arm64).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Optional

import drgn

from kplug.arch.registers import canonical, is_register, ordered, registers_of
from kplug.arch.registry import named
from kplug.errors import TargetError
from kplug.named_tuples import NamedTuple
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.modules.debug_files import debug_files_of
from kplug.runtime.modules.images import symbol_extent
from kplug.runtime.tables.translation import page_tables
from kplug.runtime.threads.call_sites import call_sites_of
from kplug.runtime.threads.cpu_registers import pt_regs_bytes
from kplug.runtime.threads.frame import Frame
from kplug.target import StackBounds

StackAt = Callable[[int], Optional[StackBounds]]

# How many modules a stack may go through.
_MAX_MODULES = 64
# How often a walk may go on from where drgn's ended: each wild jump under an exception handler is one.
_MAX_TRACES = 16
# FRAME_META_TYPE_PT_REGS
_RECORD_OF_PT_REGS = 2


class _Onward(NamedTuple):
    """The registers from which a walk goes on. `back`: those at a call that returns there; None: those that an
    exception saved. `saved_at` is where that address or program counter is, if that is known."""

    registers: Mapping[str, int]
    back: int | None = None
    saved_at: int | None = None
    guessed: bool = False


class Unwinder:
    """Walks stacks of a kernel with types. `what` names the stack in errors. TargetError if it cannot be read.

    `stack_at` gives the stack that holds an address; without it nothing is guessed.
    """

    def __init__(self, kernel: Kernel, stack_at: StackAt | None = None) -> None:
        self._kernel = kernel
        self._stack_at = stack_at
        self._sites = call_sites_of(kernel)
        self._counter = canonical("pc", kernel.machine)[0]
        self._pointer = canonical("sp", kernel.machine)[0]
        self._frame_pointer = canonical("fp", kernel.machine)[0]
        # Where in a struct pt_regs an exception's entry code makes a frame record; None where it makes none.
        self._record_offset: int | None = None
        with suppress(LookupError):
            self._record_offset = kernel.prog.type("struct pt_regs").member("stackframe").offset

    def of_task(self, task: Any, what: str, more: Mapping[str, int]) -> Sequence[Frame]:
        """The frames of a task. `more` are registers of its CPU that drgn does not give."""
        with self._kernel.reading(what):
            return self._walk(self._traced(task), what, more)

    def of_registers(self, registers: Mapping[str, int], what: str) -> Sequence[Frame] | None:
        """The frames from a CPU's registers; None if those are not known."""
        trace = self._traced_from(registers, what)
        return self._walk(trace, what, registers) if trace is not None else None

    # -- the walk ------------------------------------------------------------------------------------------------------

    def _walk(self, trace: Any, what: str, more: Mapping[str, int]) -> Sequence[Frame]:
        found: list[Frame] = []
        pending: Sequence[Frame] = self._frames_of(trace, what, more)
        guessed = False
        for _ in range(_MAX_TRACES):
            believed, onward, ended = self._believed(pending)
            found += [f._replace(number=number, guessed=guessed) for number, f in enumerate(believed, len(found))]
            if not found or ended:
                break
            onward = onward or self._onward(found[-1], guessed)
            if onward is None:
                found[-1] = found[-1]._replace(lost=True)
                break
            guessed = guessed or onward.guessed
            pending = self._from(onward, what)
        return tuple(found)

    def _believed(self, frames: Sequence[Frame]) -> tuple[Sequence[Frame], _Onward | None, bool]:
        """The frames up to where drgn went astray, what it goes on from if that is known already, and whether the
        stack ends with these frames."""
        start = 0  # of the function that a frame belongs to, with what is inlined there
        for number, frame in enumerate(frames):
            if frame.is_inline:
                continue
            if start and not frame.interrupted:
                saved = self._saved_by_exception(frames[start - 1], frame)
                if saved is not None:
                    return frames[:start], saved, False
                if self._sites.follows_call(self._sites.plain(frame.pc)) is False:  # 0 ends a chain of frame records
                    return frames[:start], None, not frame.pc
                skipped = self._skipped(frames[start - 1], frame)
                if skipped is not None:
                    return frames[:start], skipped, False
            if self._is_user(frame):
                return frames[: number + 1], None, True
            if frame.interrupted and self._is_wild(frame):
                return (*frames[:start], frame), None, False
            start = number + 1
        saved = self._saved_by_exception(frames[-1], None) if frames else None
        return frames, saved, saved is None

    def _skipped(self, callee: Frame, caller: Frame) -> _Onward | None:
        """The frame between the two, if drgn's step left one out: by the frame pointer, which the callee had not set.

        The caller calls some other function, and between the two frames lies an address in that function to which the
        call of the callee returns.
        """
        size = self._kernel.word.size
        called = self._sites.called(self._sites.plain(caller.pc))
        callees, missing = self._function(callee.pc), self._function(called)
        if not named(self._kernel.machine).calls_push or callees is None or missing is None or called == callees.start:
            return None
        with suppress(TargetError):
            for place in range(callee.sp, caller.sp - size, size):
                back = self._sites.plain(self._kernel.read_word(place))
                if missing.start < back <= missing.stop and self._sites.called(back) == callees.start:
                    registers = {**callee.registers, self._counter: back - 1, self._pointer: place + size}
                    return _Onward(registers, back, place)
        return None

    def _function(self, address: int | None) -> range | None:
        """The addresses of the function that holds one."""
        found = symbol_extent(self._kernel, address) if address is not None else None
        if found is None:
            return None
        placed, extent = found
        return range(placed.placement.runtime(extent.start), placed.placement.runtime(extent.end))

    def _saved_by_exception(self, entry: Frame, found: Frame | None) -> _Onward | None:
        """The registers that an exception saved, if a frame is of the code that it entered the kernel by: drgn takes
        what was interrupted for its caller where the entry makes a frame record of its own (arm64).

        The record lies in the struct pt_regs, and has the frame pointer and program counter that were saved; since
        6.13 it has none and says that it is one of these (arch/arm64/include/asm/stacktrace/frame.h).
        """
        kernel, record = self._kernel, entry.registers.get(self._frame_pointer)
        if self._record_offset is None or not record:
            return None
        size, order = kernel.word.size, registers_of(kernel.machine).pt_regs
        place = record - self._record_offset
        try:
            if found is None and kernel.read_word(record + 2 * size) != _RECORD_OF_PT_REGS:
                return None
            place_of_pc = place + order.index(self._counter) * size
            if found is not None and self._sites.plain(kernel.read_word(place_of_pc)) != found.pc:
                return None
            registers = dict(zip(order, kernel.word.numbers(kernel.read(place, len(order) * size))))
        except TargetError:
            return None
        if found is not None and registers[self._frame_pointer] != found.registers.get(self._frame_pointer):
            return None
        return _Onward(registers, saved_at=place_of_pc)

    def _is_wild(self, frame: Frame) -> bool:
        """Whether the CPU was where there is no code."""
        return self._sites.is_code(frame.pc) is False

    def _is_user(self, frame: Frame) -> bool:
        """Whether a frame belongs to the program that entered the kernel: a wild jump stays on the kernel's stack."""
        paging = page_tables(self._kernel).paging
        return paging is not None and paging.is_user(frame.pc) and bool(frame.sp) and paging.is_user(frame.sp)

    def _onward(self, frame: Frame, guessed: bool) -> _Onward | None:
        """The caller of the last believed frame. None if nothing says; no guess is built on another."""
        with suppress(TargetError):
            if frame.interrupted and self._is_wild(frame):
                caller = self._pushed(frame)
                if caller is not None:
                    return caller
            return None if guessed else self._guess(frame)
        return None

    def _pushed(self, frame: Frame) -> _Onward | None:
        """The caller whose call has just been made: its return address is on top of the stack, or in a register."""
        kernel = self._kernel
        if named(kernel.machine).calls_push:
            return self._at_call(kernel.read_word(frame.sp), frame.sp + kernel.word.size, frame)
        if not is_register("lr", kernel.machine):
            return None
        link, order = canonical("lr", kernel.machine)[0], registers_of(kernel.machine).pt_regs
        caller = self._at_call(frame.registers.get(link, 0), frame.sp, frame)
        if caller is None or frame.saved_at is None:
            return caller
        distance = (order.index(self._counter) - order.index(link)) * kernel.word.size
        return caller._replace(saved_at=frame.saved_at - distance)

    def _guess(self, frame: Frame) -> _Onward | None:
        """The caller by the next word on the stack that follows a call; where calls push nothing, no word says."""
        kernel, size = self._kernel, self._kernel.word.size
        if self._stack_at is None or not named(kernel.machine).calls_push or frame.sp % size:
            return None
        bounds = self._stack_at(frame.sp)
        if bounds is None:
            return None
        for place in range(max(frame.sp, bounds.start), bounds.end, size):
            caller = self._at_call(kernel.read_word(place), place + size, frame)
            if caller is not None:
                return caller._replace(guessed=True)
        return None

    def _at_call(self, word: int, sp: int, callee: Frame) -> _Onward | None:
        """The caller if a word is a return address: with the registers that its callee has."""
        if not self._kernel.word.is_kernel(word):
            return None
        back = self._sites.plain(word)
        if not self._sites.follows_call(back):
            return None
        # Unwound from the call itself: its line, and what is inlined there.
        return _Onward({**callee.registers, self._counter: back - 1, self._pointer: sp}, back)

    def _from(self, onward: _Onward, what: str) -> Sequence[Frame]:
        trace = self._traced_from(onward.registers, what)
        frames = self._frames_of(trace, what, onward.registers) if trace is not None else []
        for number, frame in enumerate(frames):
            if onward.back is not None and frame.pc == onward.back - 1:
                registers = {**frame.registers, self._counter: onward.back}
                frame = frame._replace(pc=onward.back, registers=registers, interrupted=False)
            frames[number] = frame._replace(saved_at=onward.saved_at)
            if not frame.is_inline:
                break
        return frames

    # -- drgn's traces -------------------------------------------------------------------------------------------------

    def _traced_from(self, registers: Mapping[str, int], what: str) -> Any:
        """drgn's stack trace from registers; None if they are not known."""
        prog = self._kernel.prog
        with self._kernel.reading(what):
            kind = prog.type("struct pt_regs")
            data = pt_regs_bytes(registers, self._kernel.machine, kind.size or 0, self._kernel.word)
            return self._traced(drgn.Object.from_bytes_(prog, kind, data)) if data is not None else None

    def _traced(self, of: Any) -> Any:
        """drgn's stack trace. If it ends at a module that is not registered with drgn, it is made again."""
        trace = self._kernel.prog.stack_trace(of)
        for _ in range(_MAX_MODULES):
            if not debug_files_of(self._kernel).give(_counters(trace)):
                break
            trace = self._kernel.prog.stack_trace(of)
        return trace

    def _frames_of(self, trace: Any, what: str, more: Mapping[str, int]) -> list[Frame]:
        """drgn's frames. The innermost has all of the `more` registers, its callers those that no call changes."""
        machine = self._kernel.machine
        with self._kernel.reading(what):
            frames = [self._frame_of(number, frame) for number, frame in enumerate(trace)]
        kept = {name: value for name, value in more.items() if name in registers_of(machine).system}
        return [
            frame._replace(registers=ordered({**(kept if frame.number else more), **frame.registers}, machine))
            for frame in frames
        ]

    def _frame_of(self, number: int, frame: Any) -> Frame:
        machine = self._kernel.machine
        registers = ordered(frame.registers(), machine)
        try:
            pc = frame.pc
            # drgn does not have arm64's among the registers.
            registers = ordered({self._counter: pc, **registers}, machine)
        except LookupError:
            pc = 0
        try:
            sp = frame.sp
        except LookupError:
            sp = registers.get(self._pointer, 0)
        returns = self._sites.is_return(pc, frame.interrupted)
        name = frame.function_name or symbol_name(self._kernel, pc - 1 if returns else pc)
        return Frame(number, pc, sp, name, registers, frame.is_inline, frame.interrupted, frame)


def symbol_name(kernel: Kernel, address: int) -> str | None:
    """The image's symbol at an address, for assembly, which has no function names in debug information. Only code has:
    a small address is no per-CPU variable's here."""
    if call_sites_of(kernel).is_code(address) is False:
        return None
    found = symbol_extent(kernel, address)
    return found[1].symbol.name if found is not None else None


def _counters(trace: Any) -> Iterator[int]:
    """The program counters of a stack trace's frames."""
    for frame in trace:
        with suppress(LookupError):
            yield frame.pc
