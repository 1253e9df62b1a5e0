"""The program that drgn debugs, as a `kplug.target.Target`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from kplug.arch.registers import canonical, is_register
from kplug.errors import ExpressionError, TargetError
from kplug.lifetimes import Memo
from kplug.memory.thread_size import thread_size
from kplug.memory.vmcoreinfo import VmcoreInfo
from kplug.runtime.finders import types_source
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.panic_message import last_words
from kplug.runtime.kernel.values import address_of
from kplug.runtime.locators.stacks import stack_at
from kplug.runtime.tables.translation import is_zero_filled
from kplug.runtime.threads.call_sites import call_sites_of
from kplug.runtime.threads.cpu_registers import CpuRegisters
from kplug.runtime.threads.frame import frame_places
from kplug.runtime.threads.pointed_types import pointed_types
from kplug.runtime.threads.selection import Selection
from kplug.target import FramePlace, Register, StackBounds, Target

Evaluator = Callable[[str], Any]
_TOKEN = re.compile(r"\s*(?:(?P<number>0[xX][0-9a-fA-F]+|[0-9]+)|(?P<register>\$?[A-Za-z_][\w.]*)|(?P<sign>[-+*()]))")


class DrgnTarget(Target):
    """A vmcore, a guest or the running kernel. `description` names it for the user.

    `selection` is the thread and frame that the registers `$pc`, `rip`, ... belong to. Expressions that are not made of
    registers may be passed to an evaluator (a prompt's Python), which raises ExpressionError if it fails.
    """

    def __init__(
        self,
        kernel: Kernel,
        description: str,
        cpus: CpuRegisters | None = None,
        core_path: str | None = None,
        why_nameless: str = "",
    ) -> None:
        """`cpus` has registers of the CPUs that drgn does not give; `core_path` is the vmcore's path, if it is one;
        `why_nameless` says why there are no symbols, if there are none.
        """
        self.kernel = kernel
        self.selection = Selection(kernel, cpus, partial(stack_at, kernel))
        self._evaluator: Evaluator | None = None
        self._description = description
        self._core_path = core_path
        self._why_nameless = why_nameless

    def description(self) -> str:
        return self._description

    def has_memory(self) -> bool:
        return True

    def read(self, address: int, size: int) -> bytes:
        return self.kernel.read(address, size)

    def core_path(self) -> str | None:
        return self._core_path

    def types_source(self) -> str:
        """Where the kernel's types are from, or why there are none."""
        return types_source(self.kernel)

    def crash_facts(self) -> Mapping[str, str]:
        """Which task crashed, and what the kernel said about it; empty if it did not crash, or has no types."""
        if self.kernel.live or not self.kernel.has_types:
            return {}
        try:
            crashed = next((thread for thread in self.selection.threads() if thread.crashed), None)
            if crashed is None:
                return {}
            words = last_words(self.kernel)
        except TargetError:
            return {}
        found = {"crashed": str(crashed._replace(crashed=False)), "panic": words.panic, "reason": words.reason}
        return {name: text for name, text in found.items() if text is not None}

    def vmcoreinfo(self) -> VmcoreInfo | None:
        return self.kernel.vmcoreinfo or None

    def is_zero_filled(self, address: int) -> bool:
        return is_zero_filled(self.kernel, address)

    @property
    def memo(self) -> Memo:
        return self.kernel.memo

    # -- registers and stacks ------------------------------------------------------------------------------------------

    def registers(self) -> Sequence[Register]:
        frame = self.selection.frame
        innermost = self.selection.frames()[0].registers
        # A register that the innermost frame has and this one lacks was not saved in between.
        return tuple(Register(name, frame.registers.get(name)) for name in {**innermost, **frame.registers})

    def stack_pointer(self) -> int | None:
        try:
            return self.selection.frame.sp
        except TargetError:
            return None

    def pc_returns(self) -> bool:
        try:
            frame = self.selection.frame
            return call_sites_of(self.kernel).is_return(frame.pc, frame.interrupted)
        except TargetError:
            return False

    def frames(self) -> Sequence[FramePlace]:
        try:
            frames = self.selection.frames()
        except TargetError:
            return ()
        return frame_places(frames, self.kernel.word.size)

    def pointed_types(self) -> Sequence[str]:
        return pointed_types(self.selection)

    def stack_bounds(self, address: int) -> StackBounds | None:
        return stack_at(self.kernel, address) or self._first_stack(address)

    def _first_stack(self, address: int) -> StackBounds | None:
        """CPU 0's first stack, which is in the image: the only one that is known without types."""
        image = self.kernel.image
        start = self.kernel.symbol("init_stack") or self.kernel.symbol("init_thread_union")
        size = thread_size(image) if image is not None else None
        if start is None or size is None or not start <= address < start + size:
            return None
        return StackBounds(start, start + size, "stack of 0 (swapper/0)", "symbols of the vmlinux")

    # -- expressions ---------------------------------------------------------------------------------------------------

    def evaluate_with(self, evaluator: Evaluator) -> None:
        """From now on, evaluate with `evaluator` what is not a sum of registers."""
        self._evaluator = evaluator

    @contextmanager
    def evaluating(self, evaluator: Evaluator) -> Iterator[None]:
        """Inside, `evaluator` evaluates what is not a sum of registers."""
        before, self._evaluator = self._evaluator, evaluator
        try:
            yield
        finally:
            self._evaluator = before

    def evaluate(self, expression: str) -> int:
        """Sums of registers of the selected frame, with `*`; anything else is left to the evaluator."""
        tokens = _tokens(expression)
        if tokens is not None and all(self._is_known(token) for token in tokens):
            return _Sum(tokens, expression, self._register, self.kernel).value()
        why = f" ({self._why_nameless})" if self._why_nameless else ""
        if self._evaluator is not None:
            try:
                return address_of(self._evaluator(expression), expression, self.kernel)
            except ExpressionError as error:
                # It may have been meant as a symbol.
                raise ExpressionError(f"{error}{why if tokens is not None else ''}") from None
        unknown = next((t for t in tokens or () if not self._is_known(t)), expression)
        raise ExpressionError(f"{unknown}: no such symbol, section or register{why}")

    def _is_known(self, token: str) -> bool:
        """Whether a token is a number, an operator or a register, without evaluating it."""
        return not re.match(r"[$A-Za-z_]", token) or is_register(token.lstrip("$"), self.kernel.machine)

    def _register(self, name: str) -> int:
        wanted, mask = canonical(name.lstrip("$"), self.kernel.machine)
        try:
            frame = self.selection.frame
        except TargetError as error:
            raise ExpressionError(f"{name}: {error}") from None
        value = frame.registers.get(wanted)
        if value is None:
            raise ExpressionError(f"{name}: {self._why_not(wanted, frame.number)}")
        return value & mask

    def _why_not(self, name: str, number: int) -> str:
        innermost: Mapping[str, int] = self.selection.frames()[0].registers
        return f"was not saved in frame {number}" if name in innermost else "not among the registers that are known"


def _tokens(expression: str) -> list[str] | None:
    """Numbers, names and operators of an expression; None if it has anything else."""
    tokens, position = [], 0
    text = expression.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(match.group().strip())
        position = match.end()
    return tokens or None


class _Sum:
    """Sums of numbers and registers, with parentheses and `*ADDRESS`; as C has it, `*` binds before + and -."""

    def __init__(
        self,
        tokens: Sequence[str],
        text: str,
        register: Callable[[str], int],
        kernel: Kernel,
    ) -> None:
        self._tokens = list(tokens)
        self._text = text
        self._register = register
        self._read_word = kernel.read_word
        self._bits, self._mask = kernel.word.bits, kernel.word.mask

    def value(self) -> int:
        value = self._sum(0)
        if self._tokens:
            raise self._wrong()
        return value & self._mask

    def _sum(self, depth: int) -> int:
        value = self._operand(depth)
        while self._tokens and self._tokens[0] in "+-":
            sign = -1 if self._tokens.pop(0) == "-" else 1
            value += sign * self._operand(depth)
        return value & self._mask

    def _operand(self, depth: int) -> int:
        if not self._tokens or depth > 50:
            raise self._wrong()
        token = self._tokens.pop(0)
        if token == "*":
            return self._read_word(self._operand(depth + 1))
        if token == "-":
            return -self._operand(depth + 1)
        if token == "(":
            value = self._sum(depth + 1)
            if not self._tokens or self._tokens.pop(0) != ")":
                raise self._wrong()
            return value
        if token in "+)":
            raise self._wrong()
        if token[0].isdigit():
            value = int(token, 0 if token[:2] in ("0x", "0X") else 10)
            if value > self._mask:
                raise ExpressionError(f"{self._text}: more than {self._bits} bits")
            return value
        return self._register(token)

    def _wrong(self) -> ExpressionError:
        return ExpressionError(f"{self._text}: not an expression")
