"""Call chains on a stack of a fake kernel: drgn walks them by frame pointers, as there is no debug information.

arch/x86/include/asm/ptrace.h; arch/arm64/include/asm/ptrace.h and stacktrace/frame.h.
"""

from __future__ import annotations

from collections.abc import Mapping

from kplug.arch.registers import canonical, registers_of
from support.fake_kernel import THREAD_SIZE, FakeKernel

_ARM_RECORD = 304  # struct pt_regs up to its frame record, in 6.12


class FakeFrames:
    """A stack, at `stack`, and code that calls. Offsets of code are in the image's text."""

    def __init__(self, fake: FakeKernel) -> None:
        self.fake = fake
        self.machine = fake.machine.name
        self.order = registers_of(self.machine).pt_regs
        members = {name or "orig_ax": ("unsigned long", 8 * number) for number, name in enumerate(self.order)}
        self.record = _ARM_RECORD if self.machine == "aarch64" else 0
        if self.record:
            members["stackframe"] = ("unsigned long [2]", self.record)
        fake.struct("pt_regs", self.record + 32 if self.record else 8 * len(self.order), **members)
        self.stack = fake.take(THREAD_SIZE, THREAD_SIZE)

    def code(self, offset: int) -> int:
        return self.fake.machine.image + offset

    def after_call(self, offset: int, called: int = 0x10) -> int:
        """The address of code at an offset, with a call of a function before it: of the image's first, if no other's
        offset is given."""
        address, to = self.code(offset), self.code(called)
        if self.machine == "aarch64":
            call = 0x94000000 | (to - (address - 4)) // 4 & 0x3FFFFFF  # bl
            self.fake.poke(address - 4, call.to_bytes(4, "little"))
        else:
            self.fake.poke(address - 5, b"\xe8" + (to - address).to_bytes(4, "little", signed=True))
        return address

    def link(self, at: int, outer: int, back: int) -> None:
        """A frame record at an offset of the stack: the caller's record, and the return address."""
        self.fake.words(self.stack + at, self.stack + outer if outer else 0, back)

    def registers(self, pc: int, sp: int, fp: int, **more: int) -> Mapping[str, int]:
        """Registers of a CPU; the pointers are offsets of the stack."""
        named = {"pc": pc, "sp": self.stack + sp, "fp": self.stack + fp if fp else 0, **more}
        return {**dict.fromkeys(self.order, 0), **{canonical(name, self.machine)[0]: v for name, v in named.items()}}

    def exception(self, at: int, registers: Mapping[str, int]) -> int:
        """A struct pt_regs at an offset of the stack, with its frame record (arm64); the offset of that."""
        self.fake.words(self.stack + at, *(registers[name] for name in self.order))
        self.fake.words(self.stack + at + self.record, registers["x29"], registers["pc"])
        return at + self.record
