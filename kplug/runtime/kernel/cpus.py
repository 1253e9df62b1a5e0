"""The kernel's CPUs, from its CPU masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import drgn
from drgn.helpers.linux.bitops import for_each_set_bit
from drgn.helpers.linux.cpumask import cpu_online_mask, cpu_possible_mask, cpu_present_mask

from kplug.errors import TargetError
from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.runtime.kernel.kernel import Kernel, reading


@remembered(UNTIL_RESUMED)
def possible_cpus(kernel: Kernel) -> Sequence[int]:
    """The possible CPUs. TargetError if the mask cannot be read."""
    return _cpus(kernel, cpu_possible_mask)


@remembered(UNTIL_RESUMED)
def present_cpus(kernel: Kernel) -> Sequence[int]:
    """The present CPUs. TargetError if the mask cannot be read."""
    return _cpus(kernel, cpu_present_mask)


@remembered(UNTIL_RESUMED)
def online_cpus(kernel: Kernel) -> Sequence[int]:
    """The online CPUs. TargetError if the mask cannot be read."""
    return _cpus(kernel, cpu_online_mask)


def _cpus(kernel: Kernel, mask_of: Callable[[drgn.Program], drgn.Object]) -> Sequence[int]:
    with reading("the CPUs"):
        bits = mask_of(kernel.prog).bits
        room: int = 8 * drgn.sizeof(bits)
        try:
            count: int = kernel.prog["nr_cpu_ids"].value_()
        except KeyError:  # without SMP, and with FORCE_NR_CPUS (6.1): a constant
            count = room
        if not 0 < count <= room:
            raise TargetError(f"the CPUs: nr_cpu_ids is {count}, and the kernel has room for {room}")
        return tuple(for_each_set_bit(bits, count))
