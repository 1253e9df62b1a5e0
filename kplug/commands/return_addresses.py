"""Words of a stack: which are return addresses, and which belong to a frame found by the unwinder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from kplug import model
from kplug.arch.calls import call_reach, calls_before
from kplug.arch.types.word import WordFormat
from kplug.errors import TargetError
from kplug.frozen import replace
from kplug.named_tuples import NamedTuple
from kplug.space.signed_pointers import without_signature

if TYPE_CHECKING:
    from kplug.model import Annotation
    from kplug.session import Session
    from kplug.target import FramePlace

_PAGE = 0x1000


class ReturnAddresses:
    """Recognises them by the call instruction before the address, from memory (code is patched), else from the image.

    `where` answers for an address. Where calls cannot be recognised (another architecture, unreadable bytes), a word
    is not a return address: never a guess.
    """

    def __init__(self, session: Session, where: Callable[[int], Annotation]) -> None:
        self._session = session
        self._where = where
        self._word = session.word
        self._known: dict[int, bool | None] = {}

    def plain(self, word: int) -> int:
        """The address in a saved program counter, without a signature."""
        space = self._session.space
        return without_signature(word, self._session.machine, space.facts, self._word) if space is not None else word

    def follows_call(self, value: int) -> bool | None:
        """Whether the instruction before an address is a call; None if the address is not in code."""
        if value not in self._known:
            self._known[value] = self._follows_call(value)
        return self._known[value]

    def annotation(self, value: int) -> Annotation:
        """The answer for a return address: the call's symbol, with the offset of the address, as the kernel's %pB.

        A call that does not return may be a function's last instruction; the address is then in the next function.
        """
        return replace(self._where(value - 1), input=f"{value:#x}", address=value)

    def _follows_call(self, value: int) -> bool | None:
        # The call must be code; what follows it need not be (a function that ends in a call that does not return).
        if value < 0x1000 or not is_code(self._where(value - 1), self._word):
            return None
        for code in self._codes(value):
            for call in calls_before(code, value, self._session.machine):
                if call.target is None or is_code(self._where(call.target), self._word):
                    return True
        return False if is_code(self._where(value), self._word) else None

    def _codes(self, address: int) -> Iterator[bytes]:
        """The bytes before an address, as many as a call may have, from memory, else from the image.

        From both for code that is freed after boot: the memory may have other content now.
        """
        memory = self._from_memory(address)
        if memory is not None:
            yield memory
        if memory is None or self._where(address - 1).region_class == model.INIT:
            image = self._from_image(address)
            if image is not None:
                yield image

    def _from_memory(self, address: int) -> bytes | None:
        target = self._session.target
        reach = call_reach(self._session.machine)
        room = address % _PAGE or _PAGE
        for size in (reach, min(reach, room)):  # the page before may be missing
            try:
                return target.read(address - size, size) if target is not None else None
            except TargetError:
                continue
        return None

    def _from_image(self, address: int) -> bytes | None:
        reach = call_reach(self._session.machine)
        try:
            found = self._session.images.holding(address - 1)
        except TargetError:
            return None
        if found is None or found[0].image.is_module:  # a module's code on disk is not yet relocated
            return None
        placed = found[0]
        return placed.image.elf.read_address(placed.placement.link(address - reach), reach)


def is_code(annotation: Annotation, word: WordFormat) -> bool:
    """Whether the address is in code: an executable section, or memory that is executable in the page tables."""
    section = annotation.first(model.SECTION)
    # x86_64's .data may be marked as executable, too (cb33ff9e063c, 6.14).
    if section is not None and not {"W", "X"} <= set(section.details["flags"]):
        return "X" in section.details["flags"]
    if annotation.last(model.SYMBOL) is not None and annotation.region_class == model.TEXT:
        return True
    return word.is_kernel(annotation.address) and (annotation.state.permissions or "").endswith("x")


def frame_slots(frames: Sequence[FramePlace], start: int, words: Sequence[int], size: int) -> Mapping[int, FramePlace]:
    """Where on the stack the frames' program counters are saved: address -> frame (the outermost of inlined ones).

    `words` are the stack's words from `start` on, `size` bytes each. A frame whose slot is not found is left out.
    """
    stack = _Words(start, words, size)
    slots: dict[int, FramePlace] = {}
    inner = frames[0].sp if frames else 0
    for frame in frames[1:]:
        if frame.is_inline or (frame.pc, frame.sp) == (frames[0].pc, frames[0].sp):
            continue
        address = frame.saved_at
        if address is None or stack.at(address) != frame.pc:
            address = _saved_at(frame, inner, stack)
        if address is not None:
            slots[address] = frame
        inner = frame.sp
    return slots


class _Words(NamedTuple):
    """The words of a stack from `start` on."""

    start: int
    words: Sequence[int]
    size: int

    def at(self, address: int) -> int | None:
        number, rest = divmod(address - self.start, self.size)
        return self.words[number] if not rest and 0 <= number < len(self.words) else None

    def places(self, first: int, end: int) -> range:
        """The addresses of the words in a range, which may reach beyond them."""
        first = max(first + (self.start - first) % self.size, self.start)
        return range(first, min(end, self.start + len(self.words) * self.size), self.size)


def _saved_at(frame: FramePlace, inner: int, stack: _Words) -> int | None:
    if not frame.interrupted:
        # Just below the caller's stack pointer where a call pushes it; in the callee's frame where it does not.
        if stack.at(frame.sp - stack.size) == frame.pc:
            return frame.sp - stack.size
        return next((place for place in stack.places(inner, frame.sp) if stack.at(place) == frame.pc), None)
    # In the registers that the exception saved; the frame inside may be on another stack.
    end = stack.start + len(stack.words) * stack.size
    for place in stack.places(inner if stack.start <= inner < end else stack.start, end):
        if stack.at(place) != frame.pc:
            continue
        # x86 pushes ip, cs, flags, sp, ss; unlike a program counter, cs is never 0.
        if stack.at(place + stack.size) and stack.at(place + 3 * stack.size) == frame.sp:
            return place
        # arm64's struct user_pt_regs ends with sp, pc, pstate, of which the upper half is 0.
        state = stack.at(place + stack.size)
        if state is not None and state < 1 << 32 and stack.at(place - stack.size) == frame.sp:
            return place
    return None
