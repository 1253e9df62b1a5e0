"""What drgn debugs, as the core sees it (`kplug.target.Target`)."""

from __future__ import annotations

from collections.abc import Hashable

from kplug.errors import ExpressionError
from kplug.runtime.kernel import Kernel


class DrgnTarget:
    """A vmcore, a guest or the running kernel. `description` names it for the user."""

    def __init__(self, kernel: Kernel, description: str) -> None:
        self.kernel = kernel
        self._description = description

    def description(self) -> str:
        return self._description

    def has_memory(self) -> bool:
        return True

    def read(self, address: int, size: int) -> bytes:
        return self.kernel.read(address, size)

    def evaluate(self, expression: str) -> int:
        raise ExpressionError(f"{expression}: no such symbol, section or register")

    def generation(self) -> Hashable:
        return self.kernel.generation
