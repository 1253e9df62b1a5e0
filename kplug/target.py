"""What a debugger must give: the only way in which the core touches a running or crashed kernel."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol


class Target(Protocol):
    """A kernel that a debugger holds. Implemented by front ends; nothing here reads anything before it is asked."""

    def description(self) -> str:
        """What it is, for the user: "QEMU gdbstub", "vmcore /var/crash/vmcore"."""

    def has_memory(self) -> bool:
        """Whether there is memory to read at all (false for a vmlinux alone)."""

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes at a kernel virtual address. TargetError if they cannot be read."""

    def evaluate(self, expression: str) -> int:
        """The value of an expression in the host's own language, as an unsigned 64-bit number. ExpressionError."""

    def generation(self) -> Hashable:
        """Changes whenever what was read may no longer hold: the target ran, other object files were loaded."""
