"""The kernel's CPUs, from its CPU masks."""

from __future__ import annotations

from collections.abc import Sequence

from kplug.lifetimes import UNTIL_RESUMED, remembered
from kplug.runtime.kernel.kernel import Kernel
from kplug.runtime.kernel.masks import numbers_in


@remembered(UNTIL_RESUMED)
def possible_cpus(kernel: Kernel) -> Sequence[int]:
    """The possible CPUs. TargetError if the mask cannot be read."""
    return _cpus(kernel, "cpu_possible_mask")


@remembered(UNTIL_RESUMED)
def present_cpus(kernel: Kernel) -> Sequence[int]:
    """The present CPUs. TargetError if the mask cannot be read."""
    return _cpus(kernel, "cpu_present_mask")


@remembered(UNTIL_RESUMED)
def online_cpus(kernel: Kernel) -> Sequence[int]:
    """The online CPUs. TargetError if the mask cannot be read."""
    return _cpus(kernel, "cpu_online_mask")


def _cpus(kernel: Kernel, name: str) -> Sequence[int]:
    with kernel.reading("the CPUs"):
        prog = kernel.prog
        try:
            mask = prog[f"__{name}"]
        except LookupError:  # a pointer to the mask, up to 4.4
            mask = prog[name]
        # Without SMP, and with FORCE_NR_CPUS (6.1), nr_cpu_ids is a constant.
        return tuple(numbers_in(mask.bits, "nr_cpu_ids"))
