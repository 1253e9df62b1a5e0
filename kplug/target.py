"""What a debugger must provide: the core reads a running or crashed kernel only through this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from kplug.frozen import Frozen
from kplug.lifetimes import Memo
from kplug.model import UNKNOWN_STATE, State

if TYPE_CHECKING:
    from kplug.memory.vmcoreinfo import VmcoreInfo


class Register(Frozen):
    """A register of the selected frame; its value is None where the frame's caller did not save it."""

    name: str
    value: int | None


class FramePlace(Frozen):
    """A frame of the selected stack, as the host's unwinder has it: innermost 0, inlined functions counted.

    `interrupted`: it did not call the frame inside it; an exception or interrupt came (its pc is not a return address).
    `saved_at` is where on the stack its pc is saved, if the host knows that. `guessed`: nothing says that the frame is
    one but a word on the stack that looks like its return address. `record` is where its frame record is, if the host
    knows that instead of its stack pointer, which is 0 then.
    """

    number: int
    pc: int
    sp: int
    function: str | None
    is_inline: bool = False
    interrupted: bool = False
    saved_at: int | None = None
    guessed: bool = False
    record: int = 0


class StackBounds(Frozen):
    """The stack that holds an address: `[start, end)`, whose it is, and how that is known; `guessed`: by no record."""

    start: int
    end: int
    owner: str
    source: str
    guessed: bool = False


class Target(Protocol):
    """A kernel that a debugger has open. Front ends derive their own; nothing is read before it is asked for."""

    def description(self) -> str:
        """What it is, for the user: "QEMU gdbstub", "vmcore /var/crash/vmcore"."""

    def has_memory(self) -> bool:
        """Whether there is memory to read at all (false for a vmlinux alone)."""

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a kernel virtual address. TargetError if they cannot be read."""

    def evaluate(self, expression: str) -> int:
        """The value of an expression in the host's own language, as an unsigned 64-bit number. ExpressionError."""

    @property
    def memo(self) -> Memo:
        """What is remembered of it; dropped whenever it may no longer hold, because the target ran, for one."""

    def registers(self) -> Sequence[Register]:
        """All registers of the selected frame, in the architecture's usual order. TargetError if there are none."""

    def stack_pointer(self) -> int | None:
        """The selected frame's stack pointer; None if there are no registers."""

    def frames(self) -> Sequence[FramePlace]:
        """The frames of the selected stack, innermost first; none where the host cannot unwind it. Never raises."""

    def stack_bounds(self, address: int) -> StackBounds | None:
        """The kernel stack that holds an address; None if it is not on a known stack."""

    # What only some targets can answer; the defaults are for those that cannot.

    def state(self, address: int) -> State:
        """What the debugger itself sees of an address: mapped, with which rights. TargetError if it cannot look."""
        return UNKNOWN_STATE

    def pc_returns(self) -> bool:
        """Whether the selected frame made a call, which returns to its program counter."""
        return False

    def core_path(self) -> str | None:
        """The path of the vmcore or core file; None if the target is not one."""
        return None

    def vmcoreinfo(self) -> VmcoreInfo | None:
        """What the kernel says of itself for readers of its dumps, where that is at hand."""
        return None

    def is_zero_filled(self, address: int) -> bool:
        """Whether `read` gives zeros at a kernel virtual address because the dump does not contain the page: it was
        excluded, or had only zeros."""
        return False

    def crash_facts(self) -> Mapping[str, str]:
        """Which task crashed, and what the kernel said about it; empty for a kernel that did not crash."""
        return {}

    def types_source(self) -> str | None:
        """Where the kernel's types are from, or why there are none; None where no types are used."""
        return None

    def pointed_types(self) -> Sequence[str]:
        """The structures that variables of the selected frame point to (`struct foo`), also of the functions that are
        inlined there; none where the debugger does not know them. Never raises."""
        return ()
