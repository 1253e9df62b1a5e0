"""Real Debian kernels for tests and the demo: fetched, booted under QEMU, and dumped."""

from __future__ import annotations

from .errors import VMError
from .fetch import KernelFiles, cached, fetch
from .machine import VM, boot
from .manifest import KERNELS, Kernel, find, names
from .options import Options
from .qmp import QMPClient, QMPError

__all__ = [
    "KERNELS",
    "VM",
    "Kernel",
    "KernelFiles",
    "Options",
    "QMPClient",
    "QMPError",
    "VMError",
    "boot",
    "cached",
    "fetch",
    "find",
    "names",
]
