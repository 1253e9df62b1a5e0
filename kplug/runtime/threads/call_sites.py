"""Whether an address is code, and whether a call returns to it: what a frame's caller is measured by."""

from __future__ import annotations

from collections.abc import Iterator

from kplug import model
from kplug.arch.calls import call_reach, calls_before
from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.memory.reading import try_read
from kplug.runtime.kernel.facts import facts_of
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.tables.translation import page_tables
from kplug.space.signed_pointers import without_signature


class CallSites:
    """Of the kernel's own code, by its page tables and the bytes in its memory (code is patched)."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.memo = kernel.memo

    def plain(self, word: int) -> int:
        """The address in a saved program counter, without a signature."""
        return without_signature(word, self._kernel.machine, facts_of(self._kernel), self._kernel.word)

    @remembered(UNTIL_RESUMED)
    def is_code(self, address: int) -> bool | None:
        """Whether the kernel can execute what is there, or could before it freed its init code. None if that is not
        known."""
        kernel = self._kernel
        if not kernel.word.is_kernel(address):
            return False
        piece = kernel.image.piece(address) if kernel.image is not None else None
        section = piece.section if piece is not None else None
        # x86_64's .data may be marked as executable, too (cb33ff9e063c, 6.14).
        if section is not None and not (section.executable and section.writable):
            return section.executable
        if piece is not None and piece.region_class in (model.TEXT, model.INIT):
            return True if piece.region_class == model.TEXT else None
        try:
            held = page_tables(kernel).translate(address)
        except TargetError:
            return None
        return held is not None and "x" in held.permissions

    @remembered(UNTIL_RESUMED)
    def follows_call(self, address: int) -> bool | None:
        """Whether the instruction before an address of code is a call. None if that is not known."""
        if self.is_code(address - 1) is False:
            return False
        seen = False
        for code in self._codes(address):
            seen = True
            for call in calls_before(code, address, self._kernel.machine):
                if call.target is None or self.is_code(call.target) is not False:
                    return True
        return False if seen else None

    @remembered(UNTIL_RESUMED)
    def called(self, address: int) -> int | None:
        """What the call before an address of code calls. None if it does not name it (a call by a pointer)."""
        for code in self._codes(address):
            for call in calls_before(code, address, self._kernel.machine):
                if call.target is not None and self.is_code(call.target):
                    return call.target
        return None

    def is_return(self, address: int, interrupted: bool) -> bool:
        """Whether a frame's program counter is where its call returns to. A task that has not run yet made none."""
        return not interrupted and self.follows_call(self.plain(address)) is not False

    def _codes(self, address: int) -> Iterator[bytes]:
        """The bytes before an address, as many as a call may have: from memory, and from the vmlinux for init code,
        whose memory may have other content by now."""
        kernel, reach = self._kernel, call_reach(self._kernel.machine)
        memory = try_read(kernel.read, address - reach, reach) if reach else None
        if memory is not None:
            yield memory
        piece = kernel.image.piece(address - 1) if kernel.image is not None else None
        if not reach or kernel.image is None or piece is None:
            return
        if memory is None or piece.region_class == model.INIT:
            file = kernel.image.image.elf.read_address(kernel.image.placement.link(address - reach), reach)
            if file is not None:
                yield file


@remembered(UNTIL_RESUMED)
def call_sites_of(kernel: Kernel) -> CallSites:
    """The call sites of a kernel, as its memory is now."""
    return CallSites(kernel)
