"""Real Debian kernels for tests and the demo: fetched, booted under QEMU, and dumped."""

from __future__ import annotations

from .errors import VMError
from .fetch import KernelFiles, cached, fetch
from .manifest import KERNELS, Kernel, find, names

__all__ = ["KERNELS", "Kernel", "KernelFiles", "VMError", "cached", "fetch", "find", "names"]
