"""What gdb debugs, as the core sees it (`kplug.target.Target`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import gdb
from kplug.arch.calls import call_reach, calls_before
from kplug.arch.types.word import WIDEST_BITS, WordFormat
from kplug.errors import ExpressionError, TargetError
from kplug.expressions import places
from kplug.image.placed import PlacedImage
from kplug.lifetimes import Memo
from kplug.memory.thread_size import thread_size
from kplug.model import UNKNOWN_STATE, State
from kplug.records import Records, Supply
from kplug.space.address_space import AddressSpace
from kplug.target import FramePlace, Register, StackBounds, Target
from kplug_gdb import linked, machine, registers
from kplug_gdb.corefile import core_path
from kplug_gdb.current_view import CurrentView
from kplug_gdb.reading import has_process
from kplug_gdb.type_layouts import pointed_types
from kplug_gdb.values import as_address, is_place, symbol_address
from kplug_gdb.views import CORES, LiveView, PhysicalCoreView

# The core's grammar, which is not C: core.c:schedule, "? schedule+0x4/0xc7 [ext4]".
_KERNELS_OWN = re.compile(r"\?.*|.*\s\[[\w.-]+\]|[^\s:']+\.\w+:\w.*")
# A name alone, with or without an offset: if gdb has no such symbol either, there was nothing to evaluate.
_NAME = re.compile(r"&?\s*\.?[A-Za-z_][\w.]*(?:\s*[-+]\s*\w+)?")
_UNKNOWN_TO_GDB = ("No symbol ", "A syntax error in expression, near `.")
NO_READING = "this core has physical addresses only: gdb would read the vmlinux, not the dump"


class GdbTarget(Target):
    """The selected inferior, with its memory read through `current`.

    `images` are the vmlinux in its place, then modules; empty while they are not known. `memo` has the kernel's
    remembered values, `supply` its own records, if they can be read, `space` its memory map.
    """

    def __init__(
        self,
        current: CurrentView,
        memo: Memo,
        images: Sequence[PlacedImage] = (),
        supply: Supply | None = None,
        space: Callable[[], AddressSpace | None] | None = None,
    ) -> None:
        self._current = current
        self._memo = memo
        self._images = images
        self._kernel = images[0] if images else None
        self._supply = supply
        self._space = space

    @property
    def memo(self) -> Memo:
        return self._memo

    def description(self) -> str:
        return description()

    def core_path(self) -> str | None:
        """The path of the core file that is debugged, or None."""
        return core_path()

    def has_memory(self) -> bool:
        return has_process()

    def read(self, address: int, size: int) -> bytes:
        return self._current.read(address, size)

    def state(self, address: int) -> State:
        view = self._current.view
        if view is None:
            return UNKNOWN_STATE
        found = view.state(address)
        if found == UNKNOWN_STATE and isinstance(view, LiveView) and self._is_memory(address):
            return view.state_by_reading(address)
        return found

    def _is_memory(self, address: int) -> bool:
        """Whether an address is in an image, or in an area of memory alone."""
        if any(placed.piece(address) is not None for placed in self._images):
            return True
        space = self._space() if self._space is not None else None
        return space is not None and space.is_memory(address)

    def evaluate(self, expression: str) -> int:
        """The value of a gdb expression, as an address. Kernel symbols in it are taken at their runtime addresses."""
        if linked.too_long(expression):
            raise ExpressionError(f"{expression}: more than {WIDEST_BITS} bits")
        kernel = self._kernel
        place = linked.place_of(expression, kernel) if kernel is not None else linked.ValuePlace.SAME
        if kernel is not None and (place is linked.ValuePlace.UNKNOWN or _holds_misplaced(expression, kernel)):
            raise linked.refusal(expression, kernel)
        if isinstance(self._current.view, PhysicalCoreView) and linked.may_read_memory(expression):
            raise ExpressionError(f"{expression}: {NO_READING}")
        try:
            value = gdb.parse_and_eval(expression)
            self._refuse_reading(value, expression)
            address = as_address(value, expression, self._word)
        except gdb.error as error:
            unknown = str(error).startswith(_UNKNOWN_TO_GDB) and _NAME.fullmatch(expression)
            if unknown or _KERNELS_OWN.fullmatch(expression):
                places(expression, self._images)  # raises an error that says more than gdb's
            raise ExpressionError(f"{expression}: {str(error).strip().splitlines()[0]}") from None
        return linked.moved(address, kernel) if place is linked.ValuePlace.MOVED and kernel is not None else address

    def address_of(self, value: gdb.Value, text: str) -> int:
        """The address that a gdb value means. Only its type shows where the value is from."""
        self._refuse_reading(value, text)
        symbol, kernel = symbol_address(value, self._word.mask), self._kernel
        if symbol is None or kernel is None or not linked.misplaced(symbol, kernel):
            return as_address(value, text, self._word)
        if not is_place(value):
            raise linked.refusal(text, kernel)
        return linked.moved(as_address(value, text, self._word), kernel)

    def _refuse_reading(self, value: gdb.Value, text: str) -> None:
        if isinstance(self._current.view, PhysicalCoreView) and value.address is not None and not is_place(value):
            raise ExpressionError(f"{text}: {NO_READING}")

    def registers(self) -> Sequence[Register]:
        if not has_process():
            raise TargetError("no target, so there are no registers")
        try:
            return tuple(Register(name, value) for name, value in registers.of_selected_frame())
        except gdb.error as error:
            raise TargetError(f"no registers: {str(error).strip().splitlines()[0]}") from None

    def stack_pointer(self) -> int | None:
        try:
            return registers.number(gdb.selected_frame().read_register("sp"))
        except (gdb.error, ValueError):
            return None

    def pc_returns(self) -> bool:
        try:
            frame = gdb.selected_frame()
            return registers.follows_call_of(frame) and self._follows_call(registers.counter(frame)) is not False
        except gdb.error:
            return False

    def frames(self) -> Sequence[FramePlace]:
        """The kernel's frames as drgn finds them: gdb does not know how the kernel's exceptions are unwound."""
        records = self._records()
        saved = registers.in_pt_regs(self._machine) if records is not None else {}
        walked = records.frames(saved) if records is not None and saved else ()
        return walked or self._gdbs_frames()

    def _gdbs_frames(self) -> Sequence[FramePlace]:
        """gdb's frames, as far as each caller's program counter follows a call. While gdb's symbols are not in place
        it guesses all but the innermost."""
        found: list[FramePlace] = []
        trusted = self._kernel is not None and linked.in_place(self._kernel)
        for frame, number in registers.frames():
            if number and not trusted:
                break
            try:
                sp = registers.number(frame.read_register("sp"))
                pc = registers.counter(frame)
            except (gdb.error, ValueError):
                break
            inner = frame.newer()
            interrupted = number == 0 or (inner is not None and inner.type() == gdb.SIGTRAMP_FRAME)
            if registers.follows_call_of(frame) and self._follows_call(pc) is False:
                break
            found.append(FramePlace(number, pc, sp, frame.name(), frame.type() == gdb.INLINE_FRAME, interrupted))
        return tuple(found)

    def _follows_call(self, address: int) -> bool | None:
        """Whether the instruction before an address is a call; None if it cannot be read, or calls are not known."""
        reach = call_reach(self._machine)
        try:
            code = self.read(address - reach, reach) if reach else None
        except TargetError:
            return None
        return any(calls_before(code, address, self._machine)) if code is not None else None

    @property
    def _machine(self) -> str:
        return self._kernel.image.machine if self._kernel is not None else machine.core_name()

    def pointed_types(self) -> Sequence[str]:
        return pointed_types() if self._kernel is not None and linked.in_place(self._kernel) else ()

    def is_zero_filled(self, address: int) -> bool:
        records = self._records() if isinstance(self._current.view, CORES) else None
        return records is not None and records.is_zero_filled(address)

    def stack_bounds(self, address: int) -> StackBounds | None:
        """From the kernel's records, else guessed: a task's stack is aligned to its size (fork.c, THREAD_ALIGN)."""
        records = self._records()
        known = records.stack_at(address) if records is not None else None
        if known is not None:
            return known
        size = thread_size(self._kernel) if self._kernel is not None else None
        if size is None or self._kernel is None or not self._kernel.image.elf.word.is_kernel(address):
            return None
        start = address & -size
        return StackBounds(start, start + size, "a task's stack, if it is one", "guessed: aligned by its size", True)

    @property
    def _word(self) -> WordFormat:
        return self._kernel.image.elf.word if self._kernel is not None else machine.word()

    def _records(self) -> Records | None:
        return self._supply.records() if self._supply is not None else None


def description() -> str:
    """The connection, in gdb's words."""
    connection = gdb.selected_inferior().connection
    if connection is None or not has_process():
        return "no target: the files alone"
    # gdb's own: "remote /run/gdb.sock", "core".
    details = core_path() if connection.type == "core" else connection.details
    return f"{connection.type} {details or ''}".rstrip()


def _holds_misplaced(expression: str, kernel: PlacedImage) -> bool:
    """Whether it uses a gdb value ($x, $1) that was computed from symbols which are not where the kernel is."""
    for name in set(re.findall(r"\$[\w$]*", expression)):
        try:
            address = symbol_address(gdb.parse_and_eval(name), kernel.image.elf.word.mask)
        except gdb.error:
            continue
        if address is not None and linked.misplaced(address, kernel):
            return True
    return False
