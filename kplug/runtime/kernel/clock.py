"""The clock by which the kernel dates its records."""

from __future__ import annotations

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.runtime.kernel import helpers
from kplug.runtime.kernel.cpus import online_cpus
from kplug.runtime.kernel.kernel import Kernel

_NANOSECONDS = 10**9


def since_boot_and_ago(kernel: Kernel, when: int) -> tuple[float, float | None]:
    """A time of local_clock() in seconds: since boot, and before now (None if now is not known)."""
    now = _local_clock(kernel)
    age = round((now - when) / _NANOSECONDS, 3) if now is not None and when <= now else None
    return round(when / _NANOSECONDS, 3), age


@remembered(UNTIL_RESUMED)
def _local_clock(kernel: Kernel) -> int | None:
    """local_clock(), when a CPU last read it for its run queue; None if not known."""
    try:
        with kernel.reading("the clock"):
            queues = kernel.prog["runqueues"]
            return max((helpers.per_cpu(queues, cpu).clock.value_() for cpu in online_cpus(kernel)), default=None)
    except TargetError:  # an answer stands without it
        return None
